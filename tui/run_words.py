"""What happened to a run, in words: how it ended and what to do, its trial step, and what it gave up for memory."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from tui.format import bytes_text, counted, difference_text

if TYPE_CHECKING:
    from engine.run.summary import RunSummary
    from engine.run.telemetry.events import RunState
    from tui.snapshots import RunSnapshot

# Each cause of an end that needs a word of its own, beside "finished" and "stopped"; see engine.run.endings.causes.
CAUSE_WORDS = {
    "gpu_memory": "out of GPU memory",
    "host_memory": "out of memory",
    "disk_full": "disk full",
    "not_finite": "not a number",
    "device_lost": "GPU lost",
    "driver_fault": "GPU fault",
    "machine_restarted": "machine restarted",
    "engine_killed": "engine killed",
    "worker_killed": "trainer killed",
    "worker_crashed": "trainer crashed",
    "changed": "changed since",
    "unsealed": "the seal does not hold",
    "input": "bad input",
    "fault": "finetui failed",
}


STALL_GLYPH, ASCII_STALL_GLYPH = "▲", "!"
"""Beside the word of `held_word`."""


def held_word(run: RunSummary | RunSnapshot) -> str:
    """The word for a live run that does not go on until a person looks: "stalled" while nothing is heard of its
    trainer, "paused" while it waits for room on the disk; nothing for any other."""
    return "paused" if run.paused else "stalled" if run.stalled else ""


def why_words(cause: str, why: str) -> str:
    """Why a run ended, after the word for its cause: "GPU lost: Unable to determine the device handle"; the word alone
    where nothing more is known, and the reason alone where it says as much itself."""
    word = CAUSE_WORDS.get(cause, "")
    if why and all(part in why.lower() for part in word.lower().split() if len(part) > 2):
        return why
    return f"{word}: {why}" if word and why else word or why


def key_remedy(remedy: str, name: str) -> str:
    """A remedy with the app's key where it names the command that resumes the run called `name`."""
    command = rf"`finetui resume {re.escape(name)}"
    remedy = re.sub(rf"{command} --learning-rate ([0-9.e+-]+)`", r"r at a learning rate of \1", remedy)
    remedy = re.sub(rf"{command} --seal best`", "r, then b", remedy)
    return re.sub(rf"{command}[^`]*`", "r", remedy)


def restart_words(state: RunState) -> str:
    """How often the worker was started again in its attempts; nothing where it never was."""
    return f"restarted {times_text(len(state.restarts))}" if state.restarts else ""


def throttle_words(state: RunState, degree: str = " °C") -> str:
    """Which devices run slower to protect themselves: "GPU 0 throttled at 87 °C", with the unit as `degree`."""
    return ", ".join(
        f"{device} throttled" + (f" at {fields['celsius']:.0f}{degree}" if fields.get("celsius") is not None else "")
        for device, fields in state.throttled.items()
    )


def continued_words(state: RunState) -> str:
    """That a person had the run go on though things had changed; nothing where nobody did."""
    fields = dict.fromkeys(change["field"] for change in state.continued)
    return f"continued with {counted(len(fields), 'change')}" if fields else ""


def times_text(times: int) -> str:
    return {1: "once", 2: "twice"}.get(times, f"{times} times")


def probe_words(probe: Mapping[str, Any]) -> str:
    """A `probe` event's fields: "the trial step on 2,048 tokens took 572 MiB of 591 MiB predicted (-3.2 %)"."""
    tried = f"the trial step on {counted(probe['tokens'], 'token')}"
    measured, predicted = probe["measured"], probe["predicted"]
    if measured is None:
        return f"{tried} could not be measured"
    words = f"{tried} took {bytes_text(measured)}"
    return f"{words} of {bytes_text(predicted)} predicted ({difference_text(measured, predicted)})"


def out_of_memory_words(state: RunState) -> str:
    """How often memory ran out; nothing where it never did."""
    return f"ran out of memory {times_text(len(state.ladder))}" if state.ladder else ""


def adjusted_words(state: RunState) -> str:
    """The settings in force that are not as the run was asked: "micro-batch 2, accumulation 4"."""
    from tui.widgets.new_run.draft import SETTINGS

    known = {setting.field: setting for setting in SETTINGS}
    return ", ".join(
        f"{known[name].label} {known[name].show(value)}"
        if name in known
        else f"{name.rpartition('.')[2].replace('_', ' ')} {value}"
        for name, value in state.adjusted.items()
    )
