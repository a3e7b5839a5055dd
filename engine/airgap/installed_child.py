"""`python -m engine.airgap.installed_child`: what of this installation works, tried and told as one JSON object.

In a process of its own, since libraries may be missing, broken or slow, and sealed, since nothing may be looked up:
{"imports": {module: "" or what went wrong}, "versions": {module that imports: its own word or "?"}, "torch": {...},
"driver": {...}, "kernels": {name: "" or what went wrong}}.
"""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

from engine.child_process import take_stdout
from engine.offline import set_offline


def main(modules: list[str]) -> None:
    set_offline()
    send = take_stdout()
    imports = {module: _fault(partial(importlib.import_module, module)) for module in modules}
    versions = {
        name: str(getattr(sys.modules[name], "__version__", "?")) for name, fault in imports.items() if not fault
    }
    found: dict[str, Any] = {"imports": imports, "versions": versions, "torch": {}, "driver": _driver(), "kernels": {}}
    if not imports.get("torch", "is not asked for"):
        found["torch"] = _torch()
        found["kernels"] = {name: _fault(attempt) for name, attempt in _KERNELS.items()}
    send("installed", **found)


def _torch() -> dict[str, Any]:
    """How torch was built, and what it sees."""
    import torch

    count = torch.cuda.device_count()
    return {
        "torch_cuda": torch.version.cuda,
        "cuda_available": torch.cuda.is_available(),
        "devices": [torch.cuda.get_device_name(number) for number in range(count)],
        "architectures": torch.cuda.get_arch_list() if torch.version.cuda else [],
        "capabilities": ["{}{}".format(*torch.cuda.get_device_capability(number)) for number in range(count)],
    }


def _driver() -> dict[str, Any]:
    """What the NVIDIA driver says of itself, or why there is none."""
    try:
        import pynvml

        pynvml.nvmlInit()
        return {
            "driver_gpus": pynvml.nvmlDeviceGetCount(),
            "driver": pynvml.nvmlSystemGetDriverVersion(),
            "driver_cuda": pynvml.nvmlSystemGetCudaDriverVersion(),
        }
    except Exception as error:
        return {"no_driver": str(error)}


def _attend() -> None:
    import torch

    rows = torch.randn(1, 1, 8, 16, device=_device())
    torch.nn.functional.scaled_dot_product_attention(rows, rows, rows, is_causal=True)


def _quantise() -> None:
    import torch
    from bitsandbytes import functional

    packed, state = functional.quantize_4bit(torch.randn(64, 64, device=_device()), quant_type="nf4")
    functional.dequantize_4bit(packed, state)


def _step_in_8_bits() -> None:
    import torch
    from bitsandbytes.optim import AdamW8bit

    # Below 4,096 numbers it keeps 32 bits.
    weight = torch.nn.Parameter(torch.zeros(8192, device=_device()))
    weight.grad = torch.ones_like(weight)
    AdamW8bit([weight], lr=1e-3).step()


def _device() -> str:
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


_KERNELS: dict[str, Callable[[], object]] = {
    "attention": _attend,
    "4-bit weights": _quantise,
    "8-bit optimizer": _step_in_8_bits,
}


def _fault(attempt: Callable[[], object]) -> str:
    try:
        attempt()
    except BaseException as error:  # whatever a broken library does on import, exiting included
        return f"{type(error).__name__}: {error}"
    return ""


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
