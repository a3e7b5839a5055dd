"""Want of memory where a test wants it: real limits of the kernel, and errors as CUDA raises them.

As a program it is the real training worker under such a condition: `python shortages.py CONDITION RUN_PATH`, where
CONDITION is JSON: {"address_space_mib": n} lets the process grow by that much once its model is loaded;
{"place": "step", "rows": n, "after": n} raises an error as it comes from CUDA or a CPU (see `run_short`).
"""

from __future__ import annotations

import json
import resource
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

from engine.offline import set_offline

set_offline()

import torch  # noqa: E402

from engine.objectives.next_token import NextToken  # noqa: E402
from engine.train.forward import Forward  # noqa: E402

MIB = 1 << 20
SAID = "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 23.64 GiB"


CPU_SAID = "[enforce fail at alloc_cpu.cpp:127] . DefaultCPUAllocator: can't allocate memory: you tried to allocate 9"


@contextmanager
def run_short(place: str, *, rows: int = 0, after: int = 0, cpu: bool = False, often: bool = False) -> Iterator[None]:
    """Within the block, what happens at `place` raises out of memory from the `after`-th time on, when more than `rows`
    documents go through the model at once: in a step, in held-out loss ("evaluation") or in answers. In "packed" steps
    `rows` are tokens; other places know no rows and raise once, or every time with `often`. The words are those of
    CUDA, or of torch on a `cpu`."""
    error = RuntimeError(CPU_SAID) if cpu else torch.OutOfMemoryError(SAID)
    with ExitStack() as stack:
        for target, name, count in _PLACES[place]:
            stack.enter_context(_raising(target, name, count, rows, after, error, often))
        yield


def _raising(
    target: Any, name: str, count: Callable[..., int], rows: int, after: int, error: Exception, often: bool
) -> Any:
    original = getattr(target, name)
    calls = 0

    def limited(*arguments: Any, **options: Any) -> Any:
        nonlocal calls
        calls += 1
        size = count(*arguments, **options)
        if calls > after and (size > rows if size else often or calls == after + 1):
            raise error
        return original(*arguments, **options)

    return mock.patch.object(target, name, limited)


def _documents(_forward: Any, batch: Any, *_: Any, **__: Any) -> int:
    return len(batch.document_lengths)


def _tokens(_forward: Any, batch: Any, *_: Any, **__: Any) -> int:
    return sum(batch.document_lengths)


def _prompts(_model: Any, *_: Any, input_ids: torch.Tensor, **__: Any) -> int:
    return len(input_ids)


def _once(*_: Any, **__: Any) -> int:
    return 0


def _places() -> dict[str, list[tuple[Any, str, Callable[..., int]]]]:
    import transformers

    import engine.train.checkpoints.reading
    import engine.train.checkpoints.writing
    import engine.train.outputs
    import engine.train.probe

    return {
        "loading": [(transformers.AutoModelForCausalLM, "from_pretrained", _once)],
        "step": [(Forward, "loss", _documents)],
        "packed": [(Forward, "loss", _tokens)],
        "evaluation": [(NextToken, "observe", _documents)],
        "answers": [(transformers.GenerationMixin, "generate", _prompts)],
        "saving": [(engine.train.checkpoints.writing, "write_tensors", _once)],
        "layout": [(Forward, "_predicting_states", _once)],
        "probe": [(engine.train.probe, "_update_nothing", _once)],
        "restoring": [(engine.train.checkpoints.reading, "read_tensors", _once)],
        "handing over": [(engine.train.outputs, "sync_tree", _once)],
    }


_PLACES = _places()


def grow_at_most(size: int) -> None:
    """From now on this process may take `size` bytes of address space more, and no more: then malloc fails."""
    held = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (held + size, resource.RLIM_INFINITY))


def main() -> int:
    from engine.train import recipe, worker

    condition = json.loads(sys.argv[1])
    if "place" in condition:
        with run_short(**condition):
            return worker.main(sys.argv[2:])
    train = recipe.Recipe.train

    def limited_train(self: Any) -> Any:
        grow_at_most(condition["address_space_mib"] * MIB)
        return train(self)

    with mock.patch.object(recipe.Recipe, "train", limited_train):
        return worker.main(sys.argv[2:])


if __name__ == "__main__":
    sys.exit(main())
