"""Importing torch and what stands on it in two thirds of the time: for processes that begin with that."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache, partial, wraps
from typing import Any


@contextmanager
def swift_imports() -> Iterator[None]:
    """What is imported in the block stays for as long as the process lives, as does all that there is by then.

    No garbage is looked for: some 3,000 modules leave none, and later collections need not look at them either. And
    torch's compiler is not loaded, which takes 40 MB and a second: bitsandbytes, which peft imports wherever it is
    installed, hands four functions for the CPU to `torch.compile` as it is imported. They are handed over when they are
    first called.
    """
    gc.disable()
    import torch

    compile_now = torch.compile
    torch.compile = partial(_compiled_when_called, compile_now)  # type: ignore[assignment]
    try:
        yield
    finally:
        torch.compile = compile_now
        gc.freeze()
        gc.enable()


def _compiled_when_called(
    compile_now: Callable[..., Any], function: Callable[..., Any] | None = None, /, **options: Any
) -> Callable[..., Any]:
    """As `torch.compile`, whose arguments it takes, also as a decorator with options."""
    if function is None:
        return partial(_compiled_when_called, compile_now, **options)
    compiled = cache(partial(compile_now, function, **options))

    @wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        return compiled()(*args, **kwargs)

    return call
