"""A run in words: its journal's events, its progress and its results, the same for every command."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from engine.run.directory import RunDirectory
from engine.run.summary import STATE_GLYPHS, RunSummary
from engine.run.telemetry.events import Event, RunState, Sample
from engine.run.telemetry.metric_names import metric_name
from profiles.problem import printable
from tui.commands.output import table
from tui.format import (
    bytes_text,
    compact_text,
    count_text,
    counted,
    duration_text,
    loss_text,
    ordinal_text,
    rate_text,
    share_text,
    steps_text,
)
from tui.measured_words import metric_names
from tui.run_words import STALL_GLYPH, held_word, probe_words, why_words
from tui.seal_words import GLYPHS, WORDS, way_out_words
from tui.source_words import SOURCE_COLUMNS, source_rows, waste_words

_LONGEST_EXCERPT = 600


def event_text(event: Event) -> str | None:
    """A journal event as one line, or None for those that only move numbers (steps, gauges, samples)."""
    describe = _DESCRIBERS.get(event["kind"])
    if describe is None:
        return None
    try:
        return describe(event)
    except (KeyError, TypeError, ValueError):
        return f"a record of kind {event['kind']} that cannot be read (seq {event['seq']})"


def _attempt(event: Event) -> str:
    resumed_from = event.get("resumed_from")
    if resumed_from is None:
        return "the trainer started"
    return f"the trainer started again, from the checkpoint of step {count_text(resumed_from)}"


def plan_text(event: Event) -> str:
    """A `plan` event's fields in one line. Raises KeyError when one is absent."""
    rejected = event.get("rejected_rows") or 0
    set_aside = f", {count_text(rejected)} set aside" if rejected else ""
    return (
        f"{counted(event['planned_steps'], 'step')} of {counted(event['rows_per_step'], 'row')}, "
        f"{counted(event['train_rows'], 'training row')}{set_aside}, "
        f"{compact_text(event['train_tokens'])} tokens{f' ({empty})' if (empty := waste_words(event)) else ''}; "
        f"{compact_text(event['trainable_parameters'])} of {compact_text(event['total_parameters'])} "
        f"parameters learn; {event['dtype']} on {event['device']}; "
        f"memory predicted {bytes_text(event.get('predicted_peak_bytes'))}"
    )


def _evaluation(event: Event) -> str:
    when = {"before": "before training", "after": "after training"}.get(
        event["when"], f"at step {count_text(event['step'])}"
    )
    words = [f"held-out loss {loss_text(event['held_out_loss'], 'nan')} {when}"]
    words += [f"{metric_name(name)} {loss_text(value)}" for name, value in (event.get("metrics") or {}).items()]
    if event.get("exact_match") is not None:
        answers = counted(event.get("answers") or 0, "answer")
        words.append(f"exact match {share_text(event['exact_match'])} of {answers}")
    return ", ".join(words)


def _checkpoint(event: Event) -> str:
    best = ", the best so far" if event.get("best") else ""
    return f"saved step {count_text(event['step'])} ({bytes_text(event['bytes'])}){best}"


def _problem(event: Event) -> str:
    return f"problem: {event['where']}: {event['what']}  fix: {event['fix']}"


def _end(event: Event) -> str:
    words = why_words(str(event.get("cause") or ""), str(event.get("why") or ""))
    why = f": {words}" if words else ""
    remedy = f"  remedy: {event['remedy']}" if event.get("remedy") else ""
    step = f" at step {count_text(event['step'])}" if event.get("step") is not None else ""
    return f"{event['outcome']}{step}{why}{remedy}"


def _stall(event: Event) -> str:
    at = f"  it is at: {event['stack'][-1]}" if event["stack"] else ""
    return f"stalled: {event['text']}{at}"


def _not_finite(event: Event) -> str:
    rows = f", learning from {'; '.join(event['rows'])}" if event["rows"] else ""
    return f"the {event['what']} of step {count_text(event['step'])} is no finite number{rows}"


def _seal_check(event: Event) -> str | None:
    return f"the seal changed: {printable('; '.join(event['changed']), _LONGEST_EXCERPT)}" if event["changed"] else None


def state_words(run: RunSummary) -> str:
    """A run's state in one word with its glyph; a live one that is held up says by what instead. A seal that does not
    keep what it promised is told with it."""
    seal = f" {GLYPHS[run.seal][0]} {WORDS[run.seal]}" if run.seal_broken else ""
    if held := held_word(run):
        return f"{STALL_GLYPH} {held}{seal}"
    place = f" {ordinal_text(run.place)}" if run.place is not None else ""
    return f"{STATE_GLYPHS[run.state]} {run.doing or run.state}{place}{seal}"


_DESCRIBERS = {
    "queued": lambda event: f"queued: {event['text']}",
    "seal": lambda event: printable(event["text"], _LONGEST_EXCERPT),
    "seal_check": _seal_check,
    "way_out": lambda event: f"a way out was tried: {way_out_words(event)}",
    "attempt": _attempt,
    "ladder": lambda event: event["text"],
    "restart": lambda event: f"restarted: {event['text']}",
    "adjusted": lambda event: event["text"],
    "continued": lambda event: event["text"],
    "stall": _stall,
    "throttle": lambda event: event["text"],
    "not_finite": _not_finite,
    "plan": lambda event: f"plan: {plan_text(event)}",
    "probe": probe_words,
    "evaluation": _evaluation,
    "checkpoint": _checkpoint,
    "note": lambda event: f"note: {event['text']}",
    "control": lambda event: f"asked to {event['command']}",
    "output": lambda event: f"wrote the {event['name']} to {event['path']}",
    "problem": _problem,
    "end": _end,
}


def progress_text(state: RunState) -> str:
    """Where a run is now, on one line."""
    if state.phase != "training":
        count = f" {steps_text(state.phase_done, state.phase_total)}" if state.phase_total else ""
        detail = f": {state.phase_detail}" if state.phase_detail else ""
        return f"{state.phase}{detail}{count}"
    parts = [f"step {steps_text(state.step, state.planned_steps)}"]
    if state.steps:
        parts.append(f"loss {loss_text(state.steps[-1].loss, 'nan')}")
    if state.evaluations:
        parts.append(f"held-out {loss_text(state.evaluations[-1].held_out_loss, 'nan')}")
    if state.recent_tokens_per_second is not None:
        parts.append(rate_text(state.recent_tokens_per_second))
    if state.memory_bytes is not None:
        parts.append(bytes_text(state.memory_bytes))
    if state.seconds_left is not None:
        parts.append(f"{duration_text(state.seconds_left)} left")
    return " · ".join(parts)


def measurements_table(state: RunState) -> list[str]:
    """Held-out loss and exact match before and after training; no lines when nothing was measured."""
    before, after = state.evaluation("before"), state.evaluation("after")
    if before is None and after is None:
        return []

    def row(name: str, text: Any) -> list[str]:
        return [name, *("-" if each is None else text(each) for each in (before, after))]

    rows = [row("held-out loss", lambda each: loss_text(each.held_out_loss, "nan"))]
    rows += [
        row(metric_name(name), lambda each, name=name: loss_text(each.metrics.get(name)))
        for name in metric_names(state)
    ]
    if any(each is not None and each.exact_match is not None for each in (before, after)):
        rows.append(row("exact match", lambda each: share_text(each.exact_match)))
    return table(("", "before", "after"), rows, right=("before", "after"))


def sources_table(state: RunState) -> list[str]:
    """What each data source gives to an epoch, and its losses; no lines for a single source."""
    rows = source_rows(state)
    return table(SOURCE_COLUMNS, rows, right=SOURCE_COLUMNS[1:]) if rows else []


def sample_lines(samples: tuple[Sample, ...], columns: int) -> Iterator[str]:
    """Answers of the base and the tuned model to the same held-out prompts, wrapped to `columns`."""
    for sample in samples:
        for label in ("prompt", "expected", "base", "tuned"):
            text = printable(" ".join(getattr(sample, label).split()), _LONGEST_EXCERPT)
            first, *further = _wrapped(text or "(nothing)", max(28, columns - 13))
            yield f"  {label:<10}{first}"
            yield from (" " * 12 + line for line in further)
        yield ""


def _wrapped(text: str, width: int) -> list[str]:
    """Lines of at most `width` characters, broken at spaces and behind commas (compact JSON has no spaces)."""
    lines = [""]
    for piece in re.findall(rf" |[^ ,]{{1,{width - 1}}},?|,", text):
        if len(lines[-1]) + len(piece) > width:
            lines[-1] = lines[-1].rstrip()
            lines.append("")
        lines[-1] += piece if lines[-1] or piece != " " else ""
    return lines


def output_lines(run: RunDirectory, state: RunState) -> list[str]:
    """Where the adapter or the model lies."""
    return [f"{name}: {run.path / path}" for name, path in state.outputs.items()]
