"""One model of random weights, made trainable one way, through two optimizer steps in each of several settings.

Reads {"config", "device", "settings": [...]} as JSON on stdin, and prints one JSON object for each setting:
allocated_bytes, reserved_bytes, process_bytes, tokens_per_second, outcome ("ok", "out of memory", or an error).
"""

from __future__ import annotations

import gc
import json
import os
import sys
import time
from contextlib import nullcontext
from functools import partial
from typing import Any

from engine.offline import set_offline

set_offline()

import numpy as np  # noqa: E402
import torch  # noqa: E402
from torch import nn  # noqa: E402
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel  # noqa: E402

from engine.data.examples import Example  # noqa: E402
from engine.fit.live_bytes import LiveBytes  # noqa: E402
from engine.methods.recomputing import checkpoint_layers  # noqa: E402
from engine.methods.trainable import make_trainable, trainable_parameters  # noqa: E402
from engine.spec import MethodSection, OptimizerSection  # noqa: E402
from engine.train.device import AUTOCAST, DTYPES  # noqa: E402
from engine.train.forward import Forward  # noqa: E402
from engine.train.optimizer import make_optimizer  # noqa: E402
from engine.train.step import forward_backward, update  # noqa: E402
from profiles.settings import Settings  # noqa: E402


def main() -> None:
    asked = json.load(sys.stdin)
    everything = [Settings(**{**each, "targets": _targets(each["targets"])}) for each in asked["settings"]]
    model: PreTrainedModel | None = None
    built_for = None
    for settings in everything:
        form = (settings.method, settings.rank, settings.dropout, settings.double_quantisation, settings.trained_layers)
        try:
            if form != built_for:
                model = None
                _collect(settings.device)
                model, built_for = _trainable(asked["config"], settings), form
            print(json.dumps({**_measure(model, settings), "outcome": "ok"}), flush=True)
        except torch.OutOfMemoryError:
            print(json.dumps({**_nothing(), "outcome": "out of memory"}), flush=True)
        except Exception as error:  # a row that says why, so that the rest is still measured
            first = str(error).splitlines()[0] if str(error) else ""
            print(json.dumps({**_nothing(), "outcome": f"{type(error).__name__}: {first}"[:200]}), flush=True)
        _collect(settings.device)


def _targets(targets: Any) -> Any:
    return targets if isinstance(targets, str) else tuple(targets)


def _trainable(values: dict[str, Any], settings: Settings) -> Any:
    """A model of random weights on the device, with what learns requiring gradients."""
    config = AutoConfig.for_model(**values)
    dtype = DTYPES[settings.weight_dtype]
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config, dtype=dtype)
    if settings.method == "qlora":
        _quantise(model, settings, dtype)
    _fill(model, settings.device)
    model.tie_weights()
    method = MethodSection(
        kind=settings.method,
        rank=settings.rank,
        dropout=settings.dropout,
        trained_layers=settings.trained_layers,
        double_quantisation=settings.double_quantisation,
    )
    return make_trainable(model, method).train()


def _quantise(model: nn.Module, settings: Settings, dtype: torch.dtype) -> None:
    """Every linear layer but the output head as bitsandbytes' NF4, one at a time."""
    import bitsandbytes

    head = model.get_output_embeddings()  # type: ignore[operator]
    for name, layer in list(model.named_modules()):
        if type(layer) is not nn.Linear or layer is head:
            continue
        quantised = bitsandbytes.nn.Linear4bit(
            layer.in_features,
            layer.out_features,
            layer.bias is not None,
            compute_dtype=dtype,
            compress_statistics=settings.double_quantisation,
            quant_type="nf4",
            device="meta",
        )
        weight = torch.randn(layer.out_features, layer.in_features, dtype=dtype, device=settings.device) * 0.02
        quantised.weight = bitsandbytes.nn.Params4bit(
            weight,
            requires_grad=False,
            compress_statistics=settings.double_quantisation,
            quant_type="nf4",
            module=quantised,
        ).to(settings.device)
        parent, _, own = name.rpartition(".")
        setattr(model.get_submodule(parent), own, quantised)


def _fill(model: nn.Module, device: str) -> None:
    """Random numbers for every parameter that is still on the meta device, and zeros for the tables."""
    for module in model.modules():
        for name, parameter in list(module._parameters.items()):
            if parameter is not None and parameter.is_meta:
                values = torch.empty(parameter.shape, dtype=parameter.dtype, device=device).normal_(0, 0.02)
                module._parameters[name] = nn.Parameter(values)
        for name, buffer in module._buffers.items():
            if buffer is not None and buffer.is_meta:  # rotary frequencies: any numbers cost the same
                module._buffers[name] = torch.zeros(buffer.shape, dtype=buffer.dtype, device=device)


def _measure(model: Any, settings: Settings) -> dict[str, Any]:
    for layer in model.modules():
        if getattr(layer, "gradient_checkpointing", False):
            layer.gradient_checkpointing = False
    checkpoint_layers(model, settings.gradient_checkpointing, offload=settings.offload_checkpoints)
    forward = Forward(
        model, attention=settings.attention, compute=DTYPES[settings.compute_dtype], loss_chunk=settings.loss_chunk
    )
    parameters = trainable_parameters(model)
    optimizer = make_optimizer(parameters, OptimizerSection(kind=settings.optimizer, learning_rate=1e-6))
    device = torch.device(settings.device)
    batch = forward.collate(_documents(settings, forward.base.config.vocab_size)).to(device)
    autocast = partial(
        torch.autocast,
        device.type,
        DTYPES[settings.compute_dtype],
        enabled=settings.autocast,
        cache_enabled=AUTOCAST.cache_enabled,
    )
    _synchronise(device)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    living = LiveBytes() if device.type == "cpu" else None
    seconds = 0.0
    with living or nullcontext():
        for tensor in (*model.parameters(), *model.buffers()) if living else ():
            living.count(tensor)
        for _ in range(2):
            started = time.monotonic()
            for _ in range(settings.gradient_accumulation):
                loss_of = partial(forward.loss, batch, 1 / batch.targets)
                forward_backward(loss_of, autocast=autocast, backward=torch.Tensor.backward)
            norm = update(parameters.values(), optimizer, limit=1.0)
            assert float(norm) > 0, "a step without gradients measures nothing"
            _synchronise(device)
            seconds = time.monotonic() - started  # the second step's: the first one also warms up
    tokens = batch.tokens * settings.gradient_accumulation
    return {**_taken(device, living), "tokens_per_second": tokens / seconds, "torch": torch.__version__}


def _documents(settings: Settings, vocab: int) -> list[Example]:
    """`micro_batch` rows, each one document: the longest attention that the settings allow."""
    length = settings.sequence_length
    trained = np.ones(length, dtype=bool)
    trained[0] = False
    generator = np.random.default_rng(0)
    return [
        Example(generator.integers(0, vocab, length, dtype=np.int32), trained, row)
        for row in range(settings.micro_batch)
    ]


def _taken(device: torch.device, living: LiveBytes | None) -> dict[str, int]:
    if living is not None:
        return {**_nothing(), "allocated_bytes": living.peak}
    reserved = torch.cuda.max_memory_reserved(device)
    held = _process_bytes()
    # The driver's figure is of now; what was given back to it since the peak is added.
    process = held - torch.cuda.memory_reserved(device) + reserved if held else 0
    return {
        "allocated_bytes": torch.cuda.max_memory_allocated(device),
        "reserved_bytes": reserved,
        "process_bytes": process,
    }


def _process_bytes() -> int:
    """What the driver says this process holds; where it does not tell, all that is taken on the device."""
    import pynvml

    try:
        pynvml.nvmlInit()
        handle = pynvml.nvmlDeviceGetHandleByIndex(0)
        for process in pynvml.nvmlDeviceGetComputeRunningProcesses(handle):
            if process.pid == os.getpid() and process.usedGpuMemory:
                return int(process.usedGpuMemory)
    except pynvml.NVMLError:
        pass
    free, total = torch.cuda.mem_get_info()
    return total - free


def _nothing() -> dict[str, int]:
    return {"allocated_bytes": 0, "reserved_bytes": 0, "process_bytes": 0, "tokens_per_second": 0}


def _synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _collect(device: str) -> None:
    gc.collect()
    if device == "cuda":
        torch.cuda.empty_cache()


if __name__ == "__main__":
    main()
