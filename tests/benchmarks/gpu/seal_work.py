"""python seal_work.py KIND DEVICE [FILE...]: one thing that training on a GPU does, for seal_on_gpu.py.

driver: what comes before any computing, call by call, and whether each device FILE opens. compile: a step that torch
compiles, which has Triton run ptxas and a C compiler. bitsandbytes: a step over 4-bit weights, with its 8-bit Adam and
with the one whose states leave the GPU when that is full. Prints one line of JSON.
"""

from __future__ import annotations

import ctypes
import json
import os
import sys
import threading
import time
from typing import Any


def driver(device: str) -> dict[str, Any]:
    """Fails with the first call's own word for it, where torch would only say that there is no GPU."""
    told: dict[str, Any] = {"thread named": _name_a_thread()}
    told["devices"] = {path: _opened(path) for path in sys.argv[3:]}
    if device == "cuda":
        told["cuInit"] = ctypes.CDLL("libcuda.so.1").cuInit(0)
        told["nvmlInit"] = ctypes.CDLL("libnvidia-ml.so.1").nvmlInit_v2()
        assert told["cuInit"] == told["nvmlInit"] == 0, f"the driver does not begin: {json.dumps(told)}"
    assert told["thread named"] == 0, f"a thread cannot be named: {json.dumps(told)}"
    import torch

    told["sum"] = torch.ones(8, device=device).sum().item()
    if device == "cuda":
        told["name"] = torch.cuda.get_device_name()
        told["pinned"] = torch.ones(8).pin_memory().is_pinned()
    return told


def _name_a_thread() -> int:
    """As the driver names those it starts: from outside of them. 0 or the error's number."""
    stop = threading.Event()
    thread = threading.Thread(target=stop.wait)
    thread.start()
    answer = ctypes.CDLL(None).pthread_setname_np(ctypes.c_ulong(thread.ident or 0), b"named")
    stop.set()
    thread.join()
    return int(answer)


def _opened(path: str) -> str:
    try:
        os.close(os.open(path, os.O_RDWR))
    except OSError as error:
        return error.strerror
    return "open"


def compiled(device: str) -> dict[str, Any]:
    import torch

    torch.manual_seed(0)
    weights = torch.randn(256, 64, device=device, requires_grad=True)
    rows = torch.randn(32, 256, device=device)

    def loss(weights: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.gelu(rows @ weights).square().mean()

    plain, step = loss(weights, rows), torch.compile(loss)(weights, rows)
    step.backward()
    assert torch.allclose(plain, step, rtol=1e-3), (plain, step)
    return {"loss": step.item()}


def bitsandbytes(device: str) -> dict[str, Any]:
    import torch
    from bitsandbytes.nn import Linear4bit
    from bitsandbytes.optim import Adam8bit, PagedAdam8bit

    torch.manual_seed(0)
    frozen = Linear4bit(256, 256, bias=False, compute_dtype=torch.bfloat16, quant_type="nf4").to(device)
    moved = {}
    for kind in (Adam8bit, PagedAdam8bit) if device == "cuda" else (Adam8bit,):
        learning = torch.nn.Linear(256, 256, bias=False, device=device)
        optimizer = kind(learning.parameters(), min_8bit_size=1)
        before = learning.weight.detach().clone()
        frozen(learning(torch.randn(8, 256, device=device)).bfloat16()).float().square().mean().backward()
        optimizer.step()
        moved[kind.__name__] = (learning.weight.detach() - before).abs().sum().item()
    assert all(moved.values()), moved
    return {"moved": moved}


WORK = {"driver": driver, "compile": compiled, "bitsandbytes": bitsandbytes}

if __name__ == "__main__":
    since = time.monotonic()
    found = WORK[sys.argv[1]](sys.argv[2])
    print(json.dumps({**found, "seconds": time.monotonic() - since}))
