"""`python -m engine.fit.rates_child cpu|cuda`: a benchmark of the training device, printed as one line of JSON.

Two seconds of what a training step is made of: large and narrow matrix products in the dtypes that training computes
in, an element-wise product over activations, small operations through autograd, and unpacking of 4-bit weights. All
take turns in several rounds, and of each the quickest times count: other programs slow a machine down for moments.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from functools import partial

from engine.child_process import end_with
from engine.offline import set_offline

set_offline()
if __name__ == "__main__":
    end_with(os.getppid())  # importing torch takes longest

import torch  # noqa: E402

from profiles.machine.host import HostFiles, read_cpu  # noqa: E402

# Tokens at once (on a CPU few enough that a product is over before others get the core), and the widths of a small and
# of a large model on such a device.
_TOKENS = {"cpu": 256, "cuda": 4096}
_WIDTHS = {"cpu": (256, 1024), "cuda": (1024, 4096)}
# Numbers of an activation: what fits a CPU's cache in training too, and what no GPU's cache holds.
_ELEMENTS = {"cpu": 2 << 20, "cuda": 64 << 20}
# On a CPU, enough numbers that an operation is split over threads, whose start is part of its cost.
_SMALL_ELEMENTS = {"cpu": 1 << 16, "cuda": 64}
_SMALL_OPERATIONS = 100
# A model's operations come with a module's Python around them, which a GPU waits for; on a CPU it is lost in the rest.
_MODULE_FACTOR = {"cpu": 1, "cuda": 2}
_QUANTISED_SHAPE = (2048, 2048)

# Less processor time than this share of the threads' is left when other programs take the rest.
_LEAST_PROCESSOR_SHARE = 0.6

_ROUNDS = 4
_ROUND_SECONDS = 0.06
_LEAST_REPETITIONS = 3

Work = Callable[[], object]


def measure(kind: str) -> dict[str, object]:
    """The rates of this process's device, as profiles.speed.rates_of takes them."""
    device = torch.device(kind)
    torch.manual_seed(0)
    dtypes = {"fp32": torch.float32} | _half_dtypes(device)
    works: dict[str, Work] = {
        f"{name} {width}": _product(device, dtype, width) for name, dtype in dtypes.items() for width in _WIDTHS[kind]
    }
    first, second = (torch.randn(_ELEMENTS[kind], device=device) for _ in range(2))
    works["moving"] = partial(torch.mul, first, second)
    works["starting"] = _small_operations(device)
    if (unpacking := _unpacking(device)) is not None:
        works["unpacking"] = unpacking
    wall, processor = time.perf_counter(), time.process_time()
    seconds = _best_seconds(device, works)
    share = (time.process_time() - processor) / (time.perf_counter() - wall) / torch.get_num_threads()

    fitted = {name: _fit(kind, *(seconds[f"{name} {width}"] for width in _WIDTHS[kind])) for name in dtypes}
    return {
        "device": torch.cuda.get_device_name() if kind == "cuda" else read_cpu(HostFiles()).name,
        "threads": torch.get_num_threads(),
        "torch": str(torch.__version__),
        "busy": kind == "cpu" and share < _LEAST_PROCESSOR_SHARE,
        "matmul_flops": {name: flops for name, (flops, _) in fitted.items()},
        # Of the dtype trained in: fp32 on a CPU, half precision on a GPU.
        "half_width": fitted["fp32" if kind == "cpu" else list(dtypes)[-1]][1],
        "bandwidth_bytes_per_second": 3 * first.nbytes / seconds["moving"],
        "operation_seconds": _MODULE_FACTOR[kind] * seconds["starting"] / (2 * _SMALL_OPERATIONS),
        "dequantised_per_second": torch.Size(_QUANTISED_SHAPE).numel() / seconds["unpacking"] if unpacking else None,
    }


def _half_dtypes(device: torch.device) -> dict[str, torch.dtype]:
    if device.type == "cpu":
        return {"bf16": torch.bfloat16} if read_cpu(HostFiles()).native_bf16 else {}
    return {"bf16": torch.bfloat16} if torch.cuda.get_device_capability() >= (8, 0) else {"fp16": torch.float16}


def _product(device: torch.device, dtype: torch.dtype, width: int) -> Work:
    """A linear layer forward and backward: three products, two of which read an operand across its rows."""
    states = torch.randn(_TOKENS[device.type], width, device=device, dtype=dtype, requires_grad=True)
    weight = torch.randn(2 * width, width, device=device, dtype=dtype, requires_grad=True)
    gradient = torch.randn(_TOKENS[device.type], 2 * width, device=device, dtype=dtype)

    def there_and_back() -> None:
        torch.autograd.grad(torch.nn.functional.linear(states, weight), (states, weight), gradient)

    return there_and_back


def _fit(kind: str, narrow_seconds: float, wide_seconds: float) -> tuple[float, float]:
    """(FLOP/s of wide products, width at which half of that is reached): 1/rate is linear in 1/width."""
    narrow, wide = _WIDTHS[kind]
    slow, fast = (
        seconds / (3 * 2 * _TOKENS[kind] * width * 2 * width)
        for width, seconds in ((narrow, narrow_seconds), (wide, wide_seconds))
    )
    slope = (slow - fast) / (1 / narrow - 1 / wide)
    if slope <= 0:  # as fast when narrow: nothing to correct for
        return 1 / fast, 1.0
    # Noise must not extrapolate to a rate far above any that was seen.
    limit = max(fast - slope / wide, 0.7 * fast)
    return 1 / limit, max(1.0, slope / limit)


def _small_operations(device: torch.device) -> Work:
    start = torch.randn(_SMALL_ELEMENTS[device.type], device=device, requires_grad=True)

    def chain() -> None:
        state = start
        for _ in range(_SMALL_OPERATIONS):
            state = state * 0.5
        state.sum().backward()

    return chain


def _unpacking(device: torch.device) -> Work | None:
    """Unpacking an NF4 matrix; None where bitsandbytes does not work."""
    try:
        from bitsandbytes import functional

        weights = torch.randn(_QUANTISED_SHAPE, device=device, dtype=torch.bfloat16)
        packed, state = functional.quantize_4bit(weights, quant_type="nf4", compress_statistics=True)
        functional.dequantize_4bit(packed, state)
    except Exception as error:  # whatever a library built for other hardware does, qlora's rate is then a guess
        print(f"4-bit weights could not be measured: {error}", file=sys.stderr)
        return None
    return partial(functional.dequantize_4bit, packed, state)


def _best_seconds(device: torch.device, works: dict[str, Work]) -> dict[str, float]:
    """Of each work the time that a tenth of its repetitions, over all rounds, stay within."""
    for work in works.values():  # warms up
        work()
    times: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(_ROUNDS):
        for name, work in works.items():
            times[name] += _times(device, work)
    return {name: sorted(each)[len(each) // 10] for name, each in times.items()}


def _times(device: torch.device, work: Work) -> list[float]:
    times: list[float] = []
    ends = time.perf_counter() + _ROUND_SECONDS
    while len(times) < _LEAST_REPETITIONS or time.perf_counter() < ends:
        started = time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - started)
    return times


if __name__ == "__main__":
    if sys.argv[1] == "cuda" and not torch.cuda.is_available():
        sys.exit("PyTorch does not find the GPU")
    print(json.dumps(measure(sys.argv[1])))
