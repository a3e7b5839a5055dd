"""The fold of a journal's events into one RunState."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import fields
from itertools import islice
from typing import Any

from engine.run.telemetry.events import Evaluation, Event, RunState, Sample, StepPoint
from engine.run.telemetry.series import Series

RECENT_STEPS = 20
"""Steps over which the present pace is taken."""

# What a reader's memory bears of a journal whose trainer had no end of words: far more than a run has that is in order.
# Of notes the newest stay, of evaluations the first and the newest.
_MOST_NOTES, _NOTE_CHARACTERS = 1_000, 4_000
_MOST_EVALUATIONS, _MOST_METRICS = 4_096, 100
_MOST_SAMPLES, _MOST_OUTPUTS = 1_000, 100
_PHASE_CHARACTERS = 40


class Folding:
    """A RunState in the making. For one thread at a time; the states it gives out never change."""

    def __init__(self, state: RunState | None = None, recent: Iterable[tuple[float, float]] = ()):
        """Begin with nothing, or go on from a state, of which `recent` are the tokens and seconds of the last steps.
        Where these are not known any more, the state's pace stands for each of them."""
        state = state or RunState()
        self._values = {field.name: getattr(state, field.name) for field in fields(RunState)}
        self._series = Series(state.steps)
        self._evaluations = {(each.when, each.step): each for each in state.evaluations}
        self._samples = {sample.index: sample for sample in state.samples}
        self.recent: deque[tuple[float, float]] = deque(recent, maxlen=RECENT_STEPS)
        """Tokens and seconds of the last steps, from which the pace is taken."""
        if not self.recent and (seconds := state.recent_seconds_per_step) is not None:
            tokens = (state.recent_tokens_per_second or 0.0) * seconds
            self.recent.extend([(tokens, seconds)] * RECENT_STEPS)

    def add(self, event: Event) -> None:
        """Take in one event. A kind not known here only moves the time on; a known one that is malformed is counted."""
        values = self._values
        values["seq"] = event["seq"]
        if isinstance(at := event.get("at"), int | float):
            values["last_event_at"] = at
            if values["started_at"] is None:
                values["started_at"] = at
        if event["kind"] in _OF_THE_WORKER and values["stall"]:
            values["stall"] = {}
        if (take := _TAKERS.get(event["kind"])) is not None:
            try:
                take(self, event)
            except (KeyError, TypeError, ValueError, AttributeError, OverflowError, RecursionError):
                self.count_damaged(1)

    def count_damaged(self, lines: int) -> None:
        """Add lines that a reader found to be no event."""
        self._values["damaged"] += lines

    def add_work(self, tokens: int, seconds: float) -> None:
        """Add the work of steps that a reader left out."""
        self._values["tokens_seen"] += tokens
        self._values["training_seconds"] += seconds

    def state(self) -> RunState:
        """All that is known now."""
        seconds = sum(each for _, each in self.recent)
        tokens = sum(each for each, _ in self.recent)
        self._values.update(
            steps=self._series.points(),
            evaluations=tuple(self._evaluations.values()),
            samples=tuple(self._samples[index] for index in sorted(self._samples)),
            recent_seconds_per_step=seconds / len(self.recent) if self.recent else None,
            recent_tokens_per_second=tokens / seconds if seconds > 0 else None,
        )
        return RunState(**self._values)

    def totals(self) -> tuple[int, float]:
        """Tokens and seconds that all steps so far took, those done again after a resume included."""
        return self._values["tokens_seen"], self._values["training_seconds"]

    def _attempt(self, event: Event) -> None:
        number, resumed_from = int(event["number"]), event["resumed_from"]
        self._roll_back(resumed_from or 0)
        self._values.update(attempts=number, resumed_from=resumed_from, worker_pid=event.get("worker_pid"))
        self._values.update(phase="preparing", phase_detail="", phase_done=0, phase_total=0)
        self._begin_anew()
        self._values.update(checkpoint_step=resumed_from, queued={})
        self._values["adjusted"] = dict(event.get("adjusted") or {})

    def _queued(self, event: Event) -> None:
        facts = {key: value for key, value in event.items() if key not in ("v", "seq", "at", "kind")}
        self._values.update(phase="queued", phase_detail=str(event["text"]), phase_done=0, phase_total=0, queued=facts)
        self._begin_anew()

    def _begin_anew(self) -> None:
        """Forget how the last attempt ended."""
        self._values.update(problem=None, outcome=None, cause="", why="", remedy="", by_signal=False)
        self._values["stop_requested"] = False
        self._values.update(stall={}, throttled={}, not_finite={})

    def _seal(self, event: Event) -> None:
        names = ("number", "level", "layers", "milliseconds", "probes", "evidence", "text")
        changed = [str(each) for each in event.get("changed") or ()]
        self._values["seal"] = {name: event[name] for name in names} | {"changed": changed, "at": event.get("at")}
        self._values.update(seal_checks=0, seal_last_check={}, seal_changed=tuple(changed))

    def _seal_check(self, event: Event) -> None:
        self._values["seal_checks"] += 1
        names = ("when", "step", "evidence", "changed")
        self._values["seal_last_check"] = {name: event[name] for name in names} | {"at": event.get("at")}
        news = (str(each) for each in event["changed"])
        self._values["seal_changed"] = tuple(dict.fromkeys((*self._values["seal_changed"], *news)))

    def _way_out(self, event: Event) -> None:
        tried = {name: event[name] for name in ("what", "where", "process", "pid", "count", "text")}
        known = {(each["what"], each["where"]): each for each in self._values["ways_out"]}
        place = (tried["what"], tried["where"])
        count = int(tried["count"]) + (known[place]["count"] if place in known else 0)
        known[place] = {**tried, "count": count}
        self._values["ways_out"] = tuple(known.values())

    def _ladder(self, event: Event) -> None:
        rung = {name: event[name] for name in ("number", "where", "what", "changes", "text")}
        self._values["ladder"] = (*self._values["ladder"], rung)
        self._adjusted(event)

    def _adjusted(self, event: Event) -> None:
        changed = {field: new for field, (_, new) in event["changes"].items()}
        self._values["adjusted"] = {**self._values["adjusted"], **changed}
        self._note(event)

    def _restart(self, event: Event) -> None:
        restart = {name: event[name] for name in ("number", "cause", "what", "step", "text", "at")}
        self._values["restarts"] = (*self._values["restarts"], restart)
        self._note(event)

    def _continued(self, event: Event) -> None:
        changes = tuple({part: change[part] for part in ("field", "was", "now")} for change in event["changes"])
        self._values["continued"] = (*self._values["continued"], *changes)[-_MOST_NOTES:]
        self._note(event)

    def _stall(self, event: Event) -> None:
        names = ("seconds", "usual_seconds", "phase", "process", "stack", "text", "at")
        if before := self._values["stall"]:  # the same silence, told again since it grew
            self._values["notes"] = tuple(note for note in self._values["notes"] if note != before["text"])
        self._values["stall"] = {name: event[name] for name in names}
        self._note(event)

    def _throttle(self, event: Event) -> None:
        device, throttled = str(event["device"]), dict(self._values["throttled"])
        throttled.pop(device, None)
        if event["on"]:
            throttled[device] = {name: event[name] for name in ("device", "reason", "celsius", "text")}
        self._values["throttled"] = throttled
        self._note(event)

    def _not_finite(self, event: Event) -> None:
        names = ("step", "what", "rows", "checkpoint_step", "learning_rate", "lower_rate")
        self._values["not_finite"] = {name: event[name] for name in names}

    def _roll_back(self, step: int) -> None:
        """Forget what a resumed run does again."""
        values = self._values
        self.recent.clear()
        self._series.drop_after(step)
        self._evaluations = {key: each for key, each in self._evaluations.items() if each.step <= step}
        if values["best_step"] is not None and values["best_step"] > step:
            values["best_step"] = None
        if step < values["step"]:
            values["epoch"] *= step / values["step"]  # it grows evenly with the steps
            values["step"] = step

    def _plan(self, event: Event) -> None:
        if not isinstance(event.get("planned_steps", 0), int):
            raise TypeError("no number of steps")
        self._values["plan"] = {key: value for key, value in event.items() if key not in ("v", "seq", "at", "kind")}

    def _phase(self, event: Event) -> None:
        if self._values["outcome"] is not None:
            self._begin_anew()  # it is resumed: before an attempt its seal is tried
        done, total = int(event.get("done") or 0), int(event.get("total") or 0)
        phase, detail = str(event["phase"]), str(event.get("detail") or "")
        if len(phase) > _PHASE_CHARACTERS:
            raise ValueError("no phase")
        self._values.update(phase=phase, phase_detail=detail, phase_done=done, phase_total=total)

    def _step(self, event: Event) -> None:
        values = self._values
        step, tokens, seconds = int(event["step"]), int(event["tokens"]), float(event["seconds"])
        speed = tokens / seconds if seconds > 0 else 0.0
        rate, epoch = float(event["learning_rate"]), float(event["epoch"])
        point = StepPoint(step, _number(event["loss"]), rate, _number(event["gradient_norm"]), speed)
        self._series.add(point)
        self.recent.append((tokens, seconds))
        if values["phase"] != "training":
            values.update(phase="training", phase_detail="", phase_done=0, phase_total=0)
        values["step"], values["epoch"], values["memory_bytes"] = step, epoch, event.get("memory_bytes")
        if (by_source := event.get("source_losses")) is not None:
            values["source_losses"] = tuple(map(_number, by_source))
        # The totals as the supervisor wrote them; summed up here where it did not.
        values["tokens_seen"] = event.get("tokens_seen", values["tokens_seen"] + tokens)
        values["training_seconds"] = event.get("training_seconds", values["training_seconds"] + seconds)

    def _evaluation(self, event: Event) -> None:
        measured = Evaluation(
            event["when"],
            int(event["step"]),
            _number(event["held_out_loss"]),
            _number(event.get("exact_match")),
            int(event.get("answers") or 0),
            _numbers(event.get("metrics") or {}),
            tuple(map(_number, event.get("source_losses") or ())),
        )
        if measured.when not in ("before", "during", "after") or len(measured.metrics) > _MOST_METRICS:
            raise ValueError("no evaluation of ours")
        self._evaluations[measured.when, measured.step] = measured
        if len(self._evaluations) > _MOST_EVALUATIONS:
            # Not the first, which all others are compared with.
            del self._evaluations[next(islice(self._evaluations, 1, None))]

    def _sample(self, event: Event) -> None:
        texts = (str(event[name]) for name in ("prompt", "expected", "base", "tuned"))
        if not 0 <= int(event["index"]) < _MOST_SAMPLES:
            raise ValueError("more samples than are shown")
        self._samples[int(event["index"])] = Sample(int(event["index"]), *texts)

    def _checkpoint(self, event: Event) -> None:
        self._values["checkpoint_step"] = int(event["step"])
        if event.get("best"):
            self._values["best_step"] = int(event["step"])

    def _device(self, event: Event) -> None:
        self._values["device"] = {key: value for key, value in event.items() if key not in ("v", "seq", "kind")}

    def _memory(self, event: Event) -> None:
        self._values.update(measured_memory=dict(event["measured"]), measured_peak_bytes=event["peak_bytes"])

    def _probe(self, event: Event) -> None:
        self._values["probe"] = {name: event[name] for name in ("predicted", "measured", "seconds", "tokens")} | {
            "allocated": event.get("allocated")
        }

    def _note(self, event: Event) -> None:
        self._values["notes"] = (*self._values["notes"], str(event["text"])[:_NOTE_CHARACTERS])[-_MOST_NOTES:]

    def _control(self, event: Event) -> None:
        if event["command"] in ("stop", "kill"):
            self._values["stop_requested"] = True

    def _output(self, event: Event) -> None:
        outputs = {**self._values["outputs"], str(event["name"]): str(event["path"])}
        if len(outputs) > _MOST_OUTPUTS:
            raise ValueError("more outputs than any run has")
        self._values["outputs"] = outputs

    def _problem(self, event: Event) -> None:
        self._values["problem"] = {part: str(event[part]) for part in ("where", "what", "fix")}

    def _end(self, event: Event) -> None:
        self._values.update(outcome=event["outcome"], why=str(event["why"]), queued={}, stall={}, throttled={})
        self._values.update(cause=str(event.get("cause") or ""), remedy=str(event.get("remedy") or ""))
        self._values["by_signal"] = event.get("by_signal") is True
        # The last steps of a run whose disk was full are not in the journal.
        if isinstance(step := event.get("step"), int):
            self._values["step"] = max(self._values["step"], step)


def _number(value: float | None) -> float | None:
    """`value`, or None where it is not a number. Raises TypeError or ValueError for what is none at all."""
    return None if value is None or not math.isfinite(value) else float(value)


def _numbers(values: Mapping[str, Any]) -> dict[str, Any]:
    """Each as `_number` has it. Raises what that raises, and AttributeError."""
    return {name: _number(value) for name, value in values.items()}


_OF_THE_WORKER = frozenset(
    {
        "plan",
        "phase",
        "step",
        "evaluation",
        "sample",
        "checkpoint",
        "probe",
        "memory",
        "output",
        "problem",
        "not_finite",
    }
)

_TAKERS: dict[str, Callable[[Folding, Event], None]] = {
    "queued": Folding._queued,
    "seal": Folding._seal,
    "seal_check": Folding._seal_check,
    "way_out": Folding._way_out,
    "attempt": Folding._attempt,
    "ladder": Folding._ladder,
    "restart": Folding._restart,
    "adjusted": Folding._adjusted,
    "continued": Folding._continued,
    "stall": Folding._stall,
    "throttle": Folding._throttle,
    "not_finite": Folding._not_finite,
    "plan": Folding._plan,
    "phase": Folding._phase,
    "step": Folding._step,
    "evaluation": Folding._evaluation,
    "sample": Folding._sample,
    "checkpoint": Folding._checkpoint,
    "device": Folding._device,
    "memory": Folding._memory,
    "probe": Folding._probe,
    "note": Folding._note,
    "control": Folding._control,
    "output": Folding._output,
    "problem": Folding._problem,
    "end": Folding._end,
}


def fold(events: Iterable[Event], state: RunState | None = None) -> RunState:
    """The state after `events`, from nothing or from `state` on."""
    folding = Folding(state)
    for event in events:
        folding.add(event)
    return folding.state()
