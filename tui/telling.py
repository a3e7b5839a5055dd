"""What a thread found out, told to the screen, the widget or the app that had it looked for.

They close on the event loop while their threads go on: the widgets go first, one by one, and only then is the work
cancelled. So whether anybody is left to be told is asked on the event loop, where nothing comes between the question
and the telling.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from textual.worker import Worker, get_current_worker


def tell(told: Callable[..., object], *values: object, **named: object) -> None:
    """In a worker's thread: call `told` on the event loop, and wait for that. Nothing is called where the worker was
    cancelled by then, or what started it is closing. Raises what `told` raises."""
    worker = get_current_worker()
    if worker.is_cancelled:
        return
    try:
        app = worker.node.app
    except RuntimeError:  # it was taken away just now
        return
    app.call_from_thread(_deliver, worker, told, values, named)


def _deliver(worker: Worker[Any], told: Callable[..., object], values: tuple[Any, ...], named: dict[str, Any]) -> None:
    node = worker.node
    if not worker.is_cancelled and node.app.is_running and node.is_running:
        told(*values, **named)
