"""Real training steps on this CPU, whose living tensor bytes are counted: a child of fit_accuracy.py.

Reads {"folder": path, "config": config.json's values, "settings": [...]} from stdin, makes a random model in the folder
and prints one line of JSON for each settings: {"peak_bytes": bytes}.
"""

from __future__ import annotations

import gc
import json
import math
import os
import sys
import warnings
from pathlib import Path
from typing import Any

from engine.offline import set_offline

set_offline()
warnings.filterwarnings("ignore")

import torch  # noqa: E402
from transformers import AutoConfig, AutoModelForCausalLM  # noqa: E402

from engine.fit.live_bytes import LiveBytes  # noqa: E402
from engine.fit.training_step import TORCH_DTYPES, TrainingStep, head_for, method_section  # noqa: E402
from engine.methods.loading import load_base  # noqa: E402
from engine.methods.trainable import make_trainable  # noqa: E402
from engine.train.document_attention import forget_masks  # noqa: E402
from engine.train.optimizer import make_optimizer  # noqa: E402
from profiles.settings import Settings  # noqa: E402

_THREADS = 2


def peak_bytes(folder: Path, settings: Settings) -> int:
    """The most bytes of tensors in two optimizer steps of the model in `folder`: the second has the states."""
    torch.manual_seed(0)
    model = load_base(
        folder,
        dtype=TORCH_DTYPES[settings.weight_dtype],
        device="cpu",
        quantise=settings.method == "qlora",
        double_quantisation=settings.double_quantisation,
        head=head_for(settings),
    )
    model = make_trainable(model, method_section(settings))
    step = TrainingStep.of(model, settings, make_optimizer, settings.attention)
    forget_masks()  # those of an earlier case would not be counted
    live = LiveBytes()
    with live:
        count_model(live, model)
        for tensor in step.batch_tensors():
            live.count(tensor)
        for _ in range(2):
            for _ in range(settings.gradient_accumulation):
                step.micro_batch(_unmarked)
            norm = float(step.update(_unmarked))
            assert math.isfinite(norm) and norm > 0, "a step without gradients would measure nothing"
    return live.peak


def count_model(live: LiveBytes, model: torch.nn.Module) -> None:
    """Count what the model holds, the scales of 4-bit matrices included."""
    for tensor in (*model.parameters(), *model.buffers()):
        live.count(tensor.data)
        state = getattr(tensor, "quant_state", None)
        if state is not None:
            nested = [state.state2.absmax, state.state2.code] if state.nested else []
            for part in (state.absmax, state.code, state.offset, *nested):
                if isinstance(part, torch.Tensor):
                    live.count(part)


def make_folder(folder: Path, config: dict[str, Any]) -> None:
    """A random model of `config` in `folder`."""
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(**config), dtype=torch.float32)
    model.save_pretrained(folder)


def main() -> None:
    answer = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print goes to stderr
    torch.set_num_threads(_THREADS)
    request = json.load(sys.stdin)
    folder = Path(request["folder"])
    make_folder(folder, request["config"])
    for values in request["settings"]:
        targets = values["targets"]
        settings = Settings(**{**values, "targets": targets if isinstance(targets, str) else tuple(targets)})
        print(json.dumps({"peak_bytes": peak_bytes(folder, settings)}), file=answer, flush=True)
        gc.collect()


def _unmarked(_: str) -> None:
    pass


if __name__ == "__main__":
    main()
