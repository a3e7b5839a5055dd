"""`finetui show RUN`: what a run was asked to do and how it went."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from engine.data.shapes import KIND_WORDS
from engine.run.directory import RunDirectory, find_run
from engine.run.evidence.lineage import read_lineage
from engine.run.summary import RunSummary, summarise
from engine.run.telemetry.events import RunState
from engine.run.telemetry.reading import read_state
from profiles.problem import printable
from tui.commands import status
from tui.commands.lineage_text import evidence_lines, lineage_lines
from tui.commands.output import Output
from tui.commands.wording import (
    measurements_table,
    output_lines,
    plan_text,
    progress_text,
    sample_lines,
    sources_table,
    state_words,
)
from tui.format import bytes_text, count_text, duration_text, loss_text, moment_text, steps_text
from tui.run_words import (
    adjusted_words,
    continued_words,
    out_of_memory_words,
    probe_words,
    restart_words,
    throttle_words,
    why_words,
)
from tui.seal_evidence import (
    answers,
    evidence_rows,
    last_check,
    layer_rows,
    summary_rows,
    trial_rows,
)
from tui.seal_words import GLYPHS, seal_words, way_out_words

_SAMPLES_SHOWN = 3
_FRAMES_SHOWN = 5
_CLASSES_SHOWN = 12


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_run_argument(parser)
    parser.add_argument("--json", action="store_true", help="print JSON")


def add_run_argument(parser: argparse.ArgumentParser) -> None:
    """The RUN that most commands take."""
    parser.add_argument("run", metavar="RUN", help='"latest", a run\'s name or a part of it, or its folder')


def run(arguments: argparse.Namespace, output: Output) -> int:
    found = find_run(arguments.run)
    summary, state = summarise(found), read_state(found)
    if arguments.json:
        output.json(as_dict(found, summary, state))
        return status.DONE
    output.line(f"{summary.name}   {state_words(summary)}")
    data = read_lineage(found).get("data", {})
    output.lines(_facts(summary, state, data))
    if summary.state in ("running", "preparing"):
        output.line(progress_text(state))
    if words := why_words(summary.cause, summary.why):
        output.line(f"why      {words}")
    if summary.remedy:
        output.line(f"remedy   {summary.remedy}")
    elif summary.stalled:
        ways = f"`finetui restart {found.name}` goes on from the last checkpoint; or wait, or stop it."
        output.line(f"remedy   {ways}")
    output.lines([f"         it is at: {frame}" for frame in reversed(state.stall.get("stack", ())[-_FRAMES_SHOWN:])])
    if state.problem and state.problem["fix"] != summary.remedy:  # else it was told just now
        output.line(f"problem  {state.problem['where']}: {state.problem['what']}")
        output.line(f"         fix: {state.problem['fix']}")
    for note in dict.fromkeys(state.notes):
        output.line(f"note     {note}")
    output.lines(_seal_lines(state))
    output.lines([*lineage_lines(data), *evidence_lines(found, read_lineage(found))])
    for lines in (sources_table(state), measurements_table(state), output_lines(found, state)):
        output.lines(["", *lines] if lines else [])
    output.line()
    if state.samples:
        output.line("Rows of the data, kept in this run with their answers (privacy.samples = false keeps none):")
    output.lines(list(sample_lines(state.samples[:_SAMPLES_SHOWN], output.terminal.columns)))
    output.lines([f"# {found.spec_path}", *found.spec_path.read_text(encoding="utf-8").splitlines()])
    return status.DONE


def as_dict(found: RunDirectory, summary: RunSummary, state: RunState) -> dict[str, Any]:
    """Everything known of a run as JSON types; the spec as it was written."""
    return {
        **summary.as_dict(),
        "spec": found.spec().model_dump(mode="json"),
        "plan": dict(state.plan),
        "reached": progress_text(state),
        "evaluations": [dataclasses.asdict(each) for each in state.evaluations],
        "source_losses": list(state.source_losses),
        "measured_memory": dict(state.measured_memory),
        "measured_peak_bytes": state.measured_peak_bytes,
        "probe": dict(state.probe),
        "ladder": [dict(rung) for rung in state.ladder],
        "adjusted": dict(state.adjusted),
        "attempts": state.attempts,
        "restarts": [dict(restart) for restart in state.restarts],
        "continued": [dict(change) for change in state.continued],
        "stall": dict(state.stall) or None,
        "throttled": [dict(fields) for fields in state.throttled.values()],
        "not_finite": dict(state.not_finite) or None,
        "seal": dict(state.seal) or None,
        "seal_checks": state.seal_checks,
        "seal_last_check": dict(last_check(state)) or None,
        "seal_changed": list(state.seal_changed),
        "ways_out": [dict(way) for way in state.ways_out],
        "checkpoint_step": state.checkpoint_step,
        "best_step": state.best_step,
        "notes": list(state.notes),
        "lineage": read_lineage(found),
        "outputs": {name: str(found.path / path) for name, path in state.outputs.items()},
        "problem": state.problem and dict(state.problem),
        "samples": [dataclasses.asdict(sample) for sample in state.samples],
    }


def _facts(summary: RunSummary, state: RunState, data: Mapping[str, Any]) -> list[str]:
    loss = loss_text(summary.loss, "nan" if summary.step else "-")
    lines = [
        f"folder   {summary.path}",
        f"model    {summary.model}",
        f"data     {summary.data}",
        f"learns   {_learns(summary.objective, data)}",
        f"started  {moment_text(summary.started_at)}, trained for {duration_text(state.training_seconds)}",
        f"step     {steps_text(summary.step, summary.planned_steps)}, loss {loss}",
    ]
    if state.plan:
        with suppress(KeyError):  # a field that this finetui tells of, and the one that wrote it did not have
            lines.append(f"plan     {plan_text(dict(state.plan))}")
    if state.measured_peak_bytes is not None:
        lines.append(
            f"memory   {bytes_text(state.measured_peak_bytes)} at the peak, "
            f"{bytes_text(state.plan.get('predicted_peak_bytes'))} predicted"
        )
    if state.probe:
        lines.append(f"probe    {probe_words(state.probe)}")
    for words in (restart_words(state), throttle_words(state), continued_words(state)):
        lines += [f"also     {words}"] if words else []
    if state.ladder:
        lines.append(f"ladder   {out_of_memory_words(state)}; now {adjusted_words(state)}")
    return lines


def _seal_lines(state: RunState) -> list[str]:
    """The seal in one line, then what that rests on: each layer, the trial, the kernel's word and what was tried."""
    said = seal_words(state)
    if said is None:
        return []
    lines = [f"seal     {GLYPHS[said.name][0]} {said.text}"]
    if not state.seal:
        return lines
    rows = summary_rows(state)
    for layer in state.seal.get("layers") or ():
        rows += [row for row in layer_rows(layer) if not row[0].startswith(" ")]  # the rest is in --json and the app
    rows += trial_rows(state.seal)
    rows += [("open", f"{name}: {answer}") for name, answer, refused in answers(state.seal) if not refused]
    evidence = last_check(state).get("evidence") or state.seal.get("evidence") or {}
    rows += evidence_rows(evidence)
    rows += [("way out", way_out_words(way)) for way in state.ways_out]
    return lines + [f"         {label:<13}{printable(value, 2000)}" for label, value in rows]


def _learns(objective: str, data: Mapping[str, Any]) -> str:
    """By which objective from what, as far as the data were looked at."""
    kind = data.get("kind")
    words = f"{objective}, from {KIND_WORDS[kind]}" if kind in KIND_WORDS else objective
    classes = ", ".join(printable(label, 40) for label in data.get("labels", ())[:_CLASSES_SHOWN])
    more = len(data.get("labels", ())) - _CLASSES_SHOWN
    return words + (f": {classes}" if classes else "") + (f" and {count_text(more)} more" if more > 0 else "")
