"""Makes tests meet the orders of threads, timers, messages and processes that a loaded machine makes.

NAPS=0.12,0.02 PYTHONPATH=tests/naps python -m pytest ... (or `make test-naps`)

Every Python process of the tests, sealed ones where they see this folder, naps in about so large a share of the places
where another could come first, for so many seconds in the mean: around the start of threads and processes, events that
are set, files that are renamed or removed, turns of the event loop. A message of Textual's may wait behind those of
other widgets. Without NAPS nothing is changed. The interpreter imports a module of this name at its start.
"""

from __future__ import annotations

import os
import random
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

_FRAMES_BEHIND = 300
"""Turns of the event loop that a message may wait at most: some dozens of messages of others take these."""


def _begin(share: float, mean_seconds: float) -> None:
    import threading
    import time

    draw, sleep = random.Random(os.urandom(8)), time.sleep

    def nap(likely: float = share) -> None:
        if draw.random() < likely:
            sleep(min(draw.expovariate(1 / mean_seconds), 6 * mean_seconds))

    def napping(called: Callable[..., Any]) -> Callable[..., Any]:
        def around(*values: Any, **named: Any) -> Any:
            nap()
            try:
                return called(*values, **named)
            finally:
                nap()

        around.__name__ = getattr(called, "__name__", "around")
        return around

    def wrap(owner: Any, *names: str) -> None:
        for name in names:
            setattr(owner, name, napping(getattr(owner, name)))

    def slow_loop(module: ModuleType) -> None:
        loop = module.BaseEventLoop
        run_once = loop._run_once

        def nap_and_run(self: Any) -> None:
            nap(share / 4)  # there are many
            run_once(self)

        loop._run_once = nap_and_run
        wrap(loop, "call_soon_threadsafe")

    def slow_messages(module: ModuleType) -> None:
        import asyncio

        pump = module.MessagePump
        dispatch = pump._dispatch_message

        async def wait_and_dispatch(self: Any, message: Any) -> Any:
            if draw.random() < share / 4:
                for _ in range(draw.randrange(_FRAMES_BEHIND)):
                    await asyncio.sleep(0)
            return await dispatch(self, message)

        pump._dispatch_message = wait_and_dispatch

    later: dict[str, Callable[[ModuleType], None]] = {
        "asyncio.base_events": slow_loop,
        "textual.message_pump": slow_messages,
        "subprocess": lambda module: wrap(module.Popen, "__init__", "wait"),
        "queue": lambda module: wrap(module.Queue, "put", "get"),
        "concurrent.futures.thread": lambda module: wrap(module._WorkItem, "run"),
    }
    sys.setswitchinterval(draw.choice([1e-5, 5e-4, 5e-3, 3e-2]))
    wrap(threading.Thread, "_bootstrap_inner")
    wrap(threading.Event, "set")
    wrap(os, "replace", "rename", "fsync", "unlink", "kill")
    for name in later.keys() & sys.modules.keys():
        later.pop(name)(sys.modules[name])
    sys.meta_path.insert(0, _After(later))  # type: ignore[arg-type]


class _After:
    """Changes modules once they are imported, so that none is imported for this alone."""

    def __init__(self, changes: dict[str, Callable[[ModuleType], None]]):
        self._changes = changes

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        if (change := self._changes.pop(name, None)) is None:
            return None
        from importlib.machinery import PathFinder

        spec = PathFinder.find_spec(name, path)
        if spec is not None and spec.loader is not None:
            execute = spec.loader.exec_module

            def execute_and_change(module: ModuleType) -> None:
                execute(module)
                change(module)

            spec.loader.exec_module = execute_and_change  # type: ignore[method-assign]
        return spec


if _asked := os.environ.get("NAPS"):
    _begin(*map(float, _asked.split(",")))
