"""The monitor's texts: pure functions from a RunSnapshot to lines for a width."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from rich.text import Text

from tui.format import (
    bytes_of_text,
    bytes_text,
    compact_text,
    count_text,
    counted,
    duration_text,
    learning_rate_text,
    loss_text,
    moment_text,
    rate_text,
    share_text,
    steps_text,
)
from tui.measured_words import held_out_words, metric_words
from tui.run_words import (
    ASCII_STALL_GLYPH,
    CAUSE_WORDS,
    STALL_GLYPH,
    adjusted_words,
    continued_words,
    held_word,
    key_remedy,
    out_of_memory_words,
    probe_words,
    restart_words,
    throttle_words,
    why_words,
)
from tui.seal_words import seal_faults, way_out_words
from tui.snapshots import RunSnapshot
from tui.source_words import waste_words
from tui.theme import Look
from tui.widgets.painted import cut, spread

FIELD_WIDTH = 14
EIGHTHS = " ▏▎▍▌▋▊▉"
Block = Sequence[Text]


def title_line(snapshot: RunSnapshot, width: int, look: Look) -> Text:
    """The run's name and state at the left, what it trains on what at the right."""
    word = snapshot.doing or snapshot.word
    glyph, style = look.state(snapshot.word)
    left = Text().append(snapshot.run.spec_name, style=look.strong).append(f"  {glyph} {word}", style=style)
    state = snapshot.state
    if held := held_word(snapshot):
        left.append(f" {look.glyph(STALL_GLYPH, ASCII_STALL_GLYPH)} {held}", style=look.warn)
    ended_by = CAUSE_WORDS.get(snapshot.ending.cause, "") if snapshot.ending else ""
    stopping = "stopping after this step" if snapshot.liveness == "live" and state.stop_requested else ""
    words = (ended_by, stopping, throttle_words(state, look.degree), out_of_memory_words(state), restart_words(state))
    for each in (*words, continued_words(state)):
        if each:
            left.append(f"{look.separator}{each}", style=style if each is ended_by else look.warn)
    right = Text()
    if spec := snapshot.spec:
        data = spec.data.paths[0].name + (f" +{len(spec.data.train) - 1}" if len(spec.data.train) > 1 else "")
        right.append(look.separator.join([spec.method.kind, spec.model.path.name, data]), style=look.dim)
    return spread(left, right, width, look)


def progress_line(snapshot: RunSnapshot, pace: float | None, width: int, look: Look) -> Text:
    """How far it is, at what rate, and how long it takes. `pace` is the present phase's, in things per second."""
    state, planned = snapshot.state, snapshot.state.planned_steps
    if snapshot.stalled:
        # No clock that ticks: how long it was when it was noticed, with the moment, tells as much and costs nothing.
        told, noticed = state.stall["text"], f" (noticed {moment_text(state.stall['at'])})"
        return cut(Text(told + noticed if len(told + noticed) <= width else told, style=look.warn), width, look)
    in_phase = snapshot.liveness == "live" and state.phase != "training"
    if in_phase and state.phase in ("queued", "paused"):
        # Nothing moves: what it waits for is all there is to tell.
        return cut(Text(state.phase_detail, style=look.warn, no_wrap=True), width, look)
    if in_phase:
        done, total = state.phase_done, state.phase_total
        left_seconds = (total - done) / pace if pace and total else None
        parts = [steps_text(done, total) if total else "", rate_text(pace, "/s") if pace else ""]
    else:
        done, total = state.step, planned or 0
        left_seconds = state.seconds_left if snapshot.liveness == "live" else None
        per_step = state.recent_seconds_per_step
        parts = [steps_text(state.step, planned), share_text(round(done / total, 2)) if total else ""]
        if per_step:
            parts.append(f"{per_step:.2f} s/step" if per_step < 100 else f"{duration_text(per_step)}/step")
    parts = [part for part in parts if part][: None if width >= 60 else 1]
    parts.append(f"{duration_text(left_seconds)} left" if left_seconds is not None else _took(snapshot))
    text = Text("  ".join(part for part in parts if part))
    label = Text()
    if in_phase:
        label.append(state.phase_detail or state.phase, style=look.accent)
        label.append("  ")
    cut(label, width // 2, look)
    bar = progress_bar(done, total, max(10, width - text.cell_len - label.cell_len - 2), look)
    return label.append_text(bar).append("  ").append_text(text)


def _took(snapshot: RunSnapshot) -> str:
    state = snapshot.state
    if snapshot.liveness == "live" or state.started_at is None or state.last_event_at is None:
        return ""
    return f"took {duration_text(state.training_seconds or state.last_event_at - state.started_at)}"


def progress_bar(done: float, total: float, width: int, look: Look) -> Text:
    """A bar of exactly `width` cells, to an eighth of a cell; empty when the total is not known."""
    inner = max(1, width - 2)
    share = min(1.0, max(0.0, done / total)) if total else 0.0
    if look.ascii:
        full = round(share * inner)
        return Text("[" + "#" * full + "." * (inner - full) + "]", style=look.accent)
    eighths = round(share * inner * 8)
    full, part = divmod(eighths, 8)
    track = f"{look.accent} on {look.components['free']}" if look.colored else look.accent
    bar = Text(no_wrap=True).append("▐", style=look.faint).append("█" * full, style=look.accent)
    if part:
        bar.append(EIGHTHS[part], style=track)
    rest = inner - full - (1 if part else 0)
    bar.append(" " * rest if look.colored else "·" * rest, style=track if look.colored else look.faint)
    return bar.append("▌", style=look.faint)


def readout_line(snapshot: RunSnapshot, width: int, look: Look) -> Text:
    """The newest numbers of training, labels dim."""
    state = snapshot.state
    last = state.steps[-1] if state.steps else None
    numbers = [
        ("epoch", f"{state.epoch:.2f}" if last else "-"),
        ("learning rate", learning_rate_text(last.learning_rate if last else None)),
        ("gradient norm", loss_text(last.gradient_norm if last else None, "nan" if last else "-")),
        ("speed", rate_text(state.recent_tokens_per_second)),
        ("tokens", compact_text(state.tokens_seen) if last else "-"),
        ("saved", f"step {state.checkpoint_step:,}" if state.checkpoint_step is not None else "not yet"),
    ]
    short = {"learning rate": "lr", "gradient norm": "norm"}
    gap = "   " if width >= 100 else "  "
    line = Text(no_wrap=True)
    for name, value in numbers:
        label = name if width >= 100 else short.get(name, name)
        entry = Text(gap if line.cell_len else "").append(f"{label} ", style=look.dim).append(value)
        if line.cell_len + entry.cell_len <= width:
            line.append_text(entry)
    return line


def device_lines(device: Mapping[str, Any], width: int, height: int, look: Look) -> list[Text]:
    """The gauges of the machine: a line for each GPU and one for the rest, joined where there are fewer."""
    lines = []
    for gpu in device.get("gpus") or []:
        gauges = [share_text(gpu["share"])] if gpu.get("share") is not None else []
        gauges += [f"{gpu['celsius']:.0f}{look.degree}"] if gpu.get("celsius") is not None else []
        gauges += [f"{gpu['watts']:.0f} W"] if gpu.get("watts") is not None else []
        gauges += [bytes_of_text(gpu.get("used_bytes"), gpu.get("total_bytes") or 0)]
        lines.append(_labelled(f"GPU {gpu.get('index', 0)}", "  ".join(gauges), look))
    if device.get("cpu_share") is not None:
        total, free = device.get("memory_total_bytes"), device.get("disk_free_bytes")
        machine = _labelled("CPU", share_text(round(device["cpu_share"], 2)), look)
        if total:
            ram = bytes_of_text(device.get("memory_used_bytes"), total)
            machine.append("  RAM ", style=look.dim).append(ram)
        if free is not None and (height > len(lines) or not lines) and width >= 60:
            machine.append("  disk ", style=look.dim).append(f"{bytes_text(free)} free")
        lines.append(machine)
    if len(lines) > height:
        joined = Text("   ", no_wrap=True).join([lines[0], lines[-1]])
        lines = [*lines[1 : height - 1], joined] if height > 1 else [joined]
    return lines or [Text("no reading of the devices yet", style=look.dim)]


def _labelled(label: str, value: str, look: Look) -> Text:
    return Text(no_wrap=True).append(f"{label} ", style=look.dim).append(value)


def field_lines(name: str, value: str, width: int, look: Look, style: str = "", most_lines: int = 4) -> list[Text]:
    """A dim name and a value that is wrapped beside it, at most `most_lines` lines, then an ellipsis."""
    room = max(8, width - FIELD_WIDTH)
    wrapped = _wrap(" ".join(value.split()), room, most_lines) or [""]
    if len(wrapped) > most_lines:
        wrapped = wrapped[:most_lines]
        wrapped[-1] = wrapped[-1][: room - 1] + look.ellipsis
    starts = [name, *[""] * (len(wrapped) - 1)]
    return [
        Text(no_wrap=True).append(start.ljust(FIELD_WIDTH), style=look.dim).append(line, style=style)
        for start, line in zip(starts, wrapped, strict=True)
    ]


def _wrap(value: str, room: int, most_lines: int) -> list[str]:
    """Between words; anywhere where long ones make up most of it (JSON) or only one line is to be filled."""
    long_words = sum(len(word) for word in value.split() if len(word) > room // 2)
    if most_lines > 1 and long_words <= len(value) // 2:
        return textwrap.wrap(value, room, break_on_hyphens=False)
    return [value[start : start + room] for start in range(0, len(value), room)]


def log_blocks(snapshot: RunSnapshot, width: int, look: Look) -> list[Block]:
    if not snapshot.log:
        return [[Text("engine.log is empty", style=look.dim)]]
    return [[cut(Text(line), width, look)] for line in snapshot.log]


def note_blocks(snapshot: RunSnapshot, width: int, look: Look) -> list[Block]:
    """What a person should know, then why things are as they are."""
    state = snapshot.state
    tried = [f"T{probe_words(state.probe)[1:]}."] if state.probe else []
    ways = [f"{fault[:1].upper()}{fault[1:]}: the seal does not keep what it promised." for fault in seal_faults(state)]
    ways += [f"A way out was tried: {way_out_words(way)}." for way in state.ways_out]
    notes = [
        *ways,
        *dict.fromkeys(state.notes),
        *tried,
        *state.plan.get("reasons", []),
    ]  # each attempt notes the same anew
    if state.damaged:
        notes.append(f"{counted(state.damaged, 'line')} of the journal could not be read and count for nothing")
    if snapshot.trouble:
        notes.append(snapshot.trouble)
    bullet = look.glyph("· ", "- ")
    wrapped = [textwrap.wrap(bullet + " ".join(note.split()), width, subsequent_indent="  ") for note in notes]
    blocks: list[Block] = [[Text(line, no_wrap=True) for line in lines] for lines in wrapped]
    return blocks or [[Text("nothing to note", style=look.dim)]]


def stack_blocks(snapshot: RunSnapshot, width: int, look: Look) -> list[Block]:
    """Where the worker hangs: what its process does, then its stack, innermost first."""
    stall = snapshot.state.stall
    if not stall:
        return [[Text("the trainer is heard again", style=look.dim)]]
    lines = field_lines("process", stall["process"], width, look)
    for number, frame in enumerate(reversed(stall["stack"])):
        lines += field_lines("" if number else "it is at", frame, width, look, most_lines=2)
    return [[line] for line in lines]


def sample_blocks(snapshot: RunSnapshot, width: int, height: int, look: Look) -> list[Block]:
    """Held-out rows answered by both models: one block each, four lines where the panel is low."""
    blocks: list[Block] = []
    most = 1 if height <= 6 else 4
    for sample in snapshot.state.samples:
        lines = field_lines("prompt", sample.prompt, width, look, most_lines=most)
        lines += field_lines("expected", sample.expected, width, look, look.dim, most)
        for name, answer in (("base", sample.base), ("tuned", sample.tuned)):
            same = " ".join(answer.split()) == " ".join(sample.expected.split())
            glyph = look.glyph("✓ ", "+ ") if same else look.glyph("✗ ", "x ")
            style = look.good if same else look.bad if name == "tuned" else look.dim
            lines += field_lines(name, glyph + answer, width, look, style, most)
        blocks.append(lines if most == 1 else [*lines, Text()])
    if not blocks:
        waiting = "No held-out row was answered by the base and by the tuned model."
        if snapshot.liveness == "live":
            waiting = "They come at the end (press a to see them now): held-out rows answered by the base and by the "
            waiting += "tuned model."
        return [[Text(line, style=look.dim)] for line in textwrap.wrap(waiting, width)]
    return blocks


def result_blocks(snapshot: RunSnapshot, width: int, height: int, look: Look) -> list[Block]:
    """What came of the run and what to do now; while it runs, what was measured so far. Where the panel is low, why
    and remedy have two lines each."""
    state, ending = snapshot.state, snapshot.ending
    lines: list[Text] = []
    most = 2 if height <= 6 else 6
    if ending is not None and ending.outcome != "finished":
        style = look.bad if ending.outcome == "failed" else ""
        why = why_words(ending.cause, ending.why) or f"at step {state.step:,}"
        lines += field_lines(ending.outcome, why, width, look, style, most)
        if remedy := key_remedy(ending.remedy, snapshot.run.name):
            label = "remedy" if ending.outcome == "failed" else "next"
            lines += field_lines(label, remedy, width, look, most_lines=most)
    elif snapshot.stalled:
        lines += field_lines("stalled", state.stall["text"], width, look, look.warn, most)
        keys = Text(" " * FIELD_WIDTH, no_wrap=True)
        for key, what in (("x", "restarts it"), ("s", "stops it"), ("v", "shows the stack")):
            keys.append(f"{key} ", style=look.accent).append(f"{what}   ", style=look.dim)
        lines.append(keys)
    elif snapshot.liveness == "live" and state.phase in ("queued", "paused"):
        lines += field_lines(state.phase, state.phase_detail, width, look, look.warn, most_lines=6)
    if snapshot.liveness == "live" and (restart := state.fresh_restart):
        lines += field_lines("restarted", restart["text"], width, look, look.warn, most)
    arrow = look.glyph("→", "->")
    if measured := held_out_words(state, arrow, look.separator):
        lines += field_lines("held-out loss", measured, width, look)
    if metrics := metric_words(state, arrow, look.separator):
        lines += field_lines("measured", metrics, width, look)
    for name, path in state.outputs.items():
        lines += field_lines(name, str(snapshot.run.path / path), width, look, look.strong)
    if state.outputs and snapshot.liveness != "live":
        keys = Text(" " * FIELD_WIDTH, no_wrap=True)
        talk = (("c", "chat with base and tuned"),) if snapshot.writes else ()
        for key, what in (*talk, ("e", "export"), ("y", "copy path")):
            keys.append(f"{key} ", style=look.accent).append(f"{what}   ", style=look.dim)
        lines.append(keys)
    elif state.checkpoint_step is not None and not state.outputs:
        best = f", best is step {state.best_step:,}" if state.best_step is not None else ""
        lines += field_lines("saved", f"step {state.checkpoint_step:,}{best}", width, look)
    return [[line] for line in lines] or [[Text("nothing measured yet", style=look.dim)]]


def _held_out_words(plan: Mapping[str, Any]) -> str:
    held_out, measured = plan.get("held_out_rows"), plan.get("measured_rows")
    told = f"{count_text(held_out)} held out"
    return told if measured in (None, held_out) else f"{told}, {count_text(measured)} of them measured"


def fact_lines(snapshot: RunSnapshot, width: int, look: Look) -> list[Text]:
    """What the run was asked to do and what the worker made of it."""
    state = snapshot.state
    plan, spec = state.plan, snapshot.spec
    facts: list[tuple[str, str]] = []
    if spec:
        method = spec.method
        if method.kind == "partial":
            sized = f", the last {counted(method.trained_layers, 'layer')}"
        else:
            sized = f", rank {method.rank}, alpha {method.alpha:g}" if method.adapts else ""
        facts.append(("method", method.kind + sized))
        schedule = f"{spec.schedule.kind}, warm-up {share_text(spec.schedule.warmup_share)}"
        rate = learning_rate_text(spec.optimizer.learning_rate)
        facts.append(("optimizer", f"{spec.optimizer.kind} {rate}, {schedule}"))
    if plan:
        trained, everything = plan.get("trainable_parameters"), plan.get("total_parameters")
        facts.append(("weights", f"{compact_text(everything)}, {compact_text(trained)} trained"))
        rows = f"{count_text(plan.get('train_rows'))} rows, {compact_text(plan.get('train_tokens'))} tokens"
        facts.append(("data", f"{rows}, {_held_out_words(plan)}"))
        rows = counted(plan.get("rows_per_step") or 0, "row")
        batch = f"{rows} of {count_text(plan.get('sequence_length'))} tokens"
        facts.append(("step", f"{batch}, {empty}" if (empty := waste_words(plan)) else batch))
        if state.adjusted:
            facts.append(("changed to", adjusted_words(state)))
        facts.append(("numerics", f"{plan.get('dtype')}, {plan.get('attention')} attention, {plan.get('device')}"))
    return [line for name, value in facts for line in field_lines(name, value, width, look, most_lines=2)]
