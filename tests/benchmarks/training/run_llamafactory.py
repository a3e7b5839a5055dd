"""LLaMA-Factory with neat packing: `run_llamafactory.py ASSETS full|lora`, in an environment that has it."""

from __future__ import annotations

import importlib.machinery
import json
import os
import sys
import tempfile
import types
from pathlib import Path
from typing import Any

os.environ.update(HF_HUB_OFFLINE="1", DISABLE_VERSION_CHECK="1", WANDB_DISABLED="true")

# LLaMA-Factory imports torchaudio whatever is trained, and its wheel does not load beside a CPU build of torch.
_torchaudio = types.ModuleType("torchaudio")
_torchaudio.__spec__ = importlib.machinery.ModuleSpec("torchaudio", None)
sys.modules["torchaudio"] = _torchaudio

import torch  # noqa: E402
from llamafactory.train.tuner import run_exp  # noqa: E402
from result import Clock, emit  # noqa: E402
from transformers import TrainerCallback  # noqa: E402

PAD = 0


class Meter(TrainerCallback):
    """Counts real tokens and times training from its begin to its end."""

    def __init__(self) -> None:
        self.tokens = 0

    def on_train_begin(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
        forward = model.forward

        def counted(*positional: Any, **kwargs: Any) -> Any:
            self.tokens += int((kwargs["input_ids"] != PAD).sum())
            return forward(*positional, **kwargs)

        model.forward = counted
        self.clock = Clock()

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.times, self.log = self.clock.read(), state.log_history


def main(assets: Path, method: str, output: str) -> None:
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    columns = {"prompt": "instruction", "response": "output"}
    info = {"bench": {"file_name": str(assets / "train_sft.json"), "columns": columns}}
    Path(output, "dataset_info.json").write_text(json.dumps(info), encoding="utf-8")
    arguments = {
        "model_name_or_path": str(assets / "model"),
        "stage": "sft",
        "do_train": True,
        "finetuning_type": method,
        "dataset": "bench",
        "dataset_dir": output,
        "template": "empty",
        "cutoff_len": 512,
        "train_on_prompt": True,
        "neat_packing": True,
        "overwrite_cache": True,
        "preprocessing_num_workers": 1,
        "output_dir": output,
        "per_device_train_batch_size": 2,
        "gradient_accumulation_steps": 1,
        "learning_rate": 1e-4,
        "num_train_epochs": 1.0,
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": "none",
        "bf16": False,
        "fp16": False,
        "use_cpu": True,
        "flash_attn": "sdpa",
        "disable_gradient_checkpointing": True,
        "optim": "adamw_torch",
        "plot_loss": False,
        "disable_tqdm": True,
        "infer_dtype": "float32",
    }
    if method == "lora":
        arguments |= {"lora_rank": 16, "lora_alpha": 32, "lora_target": "all"}
    meter = Meter()
    run_exp(arguments, callbacks=[meter])
    log = [entry for entry in meter.log if "grad_norm" in entry]
    norms, losses = ([float(entry[name]) for entry in log] for name in ("grad_norm", "loss"))
    emit("LLaMA-Factory", meter.tokens, meter.times, norms, losses)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        main(Path(sys.argv[1]), sys.argv[2], folder)
