"""The telemetry records of a run and their fold into one RunState, which every view of a run is drawn from.

A record is one JSON object on one line of events.jsonl: {"v": 2, "seq": n, "at": unix seconds, "kind": ..., fields,
"crc": of the line before it}. Format 1 was the same without "crc". `seq` rises by one; `at` is what the machine's clock
said, which may step back. The kinds and their fields (bytes, seconds and tokens as plain numbers):

queued      needed_bytes, free_bytes, usable_bytes, total_bytes, reserve_bytes, device,
            holders [{name, user, pid, bytes}], place (in its device's line, from 1), ahead (how many of those before
            it could start now), after (the name of the run that is to end first, or ""), others [name] (runs on its
            device that it may not be beside), trouble (what kept it from looking, or ""), why (what it waits for, but
            for those before it), text: the run waits for its turn and until its memory is free
seal        number (of the attempt), level (required | best | off), layers [{layer, held, detail, why, fix,
            milliseconds}], milliseconds (what the sealing took), probes {tried, refused, open [{name, answer}], hits
            (on the listener outside), control (whether the listener was reached from outside), seconds}, or null where
            none were tried, evidence (of the worker: see engine.seal.proof.evidence), text: what keeps the worker
            that starts from the network, and how that was tried; changed [text]: what the kernel says otherwise than it
            should be; comes after the attempt's own event
seal_check  when (checkpoint | end), step, evidence, changed [text] (what is not as it was at the start; none is good)
way_out     what (the call that was refused, in words), where (file:line in the code that tried, or ""), process (its
            name), pid, count (how often, since the last such event), text: something within the seal tried to get out
attempt     number, resumed_from (step or null), worker_pid, adjusted {field: value}: a worker process starts: the first
            one, after a resume, a rung of the ladder or a restart; `adjusted` are the fields changed by `ladder` and
            `adjusted` events so far
ladder      number, where (loading | step | evaluation | answers | saving), what, changes {field: [old, new]}, text:
            memory ran out, and the next attempt goes on with less
plan        planned_steps, rows_per_step, sequence_length, train_rows, held_out_rows, measured_rows (of those held
            out, the ones that loss is measured on), rejected_rows, train_tokens, target_tokens, cut_rows,
            packing_efficiency, total_parameters, trainable_parameters, device, dtype, attention, reasons [text],
            predicted {component: bytes}, predicted_peak_bytes; wasted_share: of the slots of an epoch those without a
            token, wasted_share_padded: what it would be with rows padded to the longest beside them; with several data
            sources, sources [{name, rows, tokens, repeats, share}]: training rows, their tokens once, how often they
            come in an epoch, and their share of its tokens
phase       phase (preparing | loading | evaluating | training | saving | paused), detail, done, total (0 when not
            countable); paused: the disk is short of room, and the detail says how much
step        step, epoch, loss, learning_rate, gradient_norm, target_tokens, tokens, seconds, memory_bytes; and, added by
            the supervisor, tokens_seen, training_seconds: the run's totals, work repeated after a resume included; with
            several data sources, source_losses [loss or null]: each source's mean over the last steps
evaluation  when (before | during | after), step, held_out_loss, exact_match (share or null), answers; where the
            objective measures more, metrics {name: number}; with several data sources, source_losses [loss or null]
sample      index, prompt, expected, base, tuned: one held-out row answered by both models
checkpoint  step, bytes, seconds, best (bool), held_out_loss or null
device      cpu_share, memory_used_bytes, memory_total_bytes, worker_bytes, disk_free_bytes,
            gpus [{index, name, used_bytes, total_bytes, celsius, watts, share}]
probe       predicted, measured (bytes, or null), allocated (bytes of tensors, or null on a CPU), seconds, tokens: what
            one step on the longest rows took, tried before anything was learnt
memory      measured {component: bytes}, peak_bytes: what the process really took on the training device
note        text: something a person should know (rows set aside, a setting that was replaced, a save that failed)
control     command, by (pid): a person asked the live run for something
output      name (adapter | model), path relative to the run folder
problem     where, what, fix
restart     number, cause (see engine.run.endings.causes), what, step (of the checkpoint, or null), text: the worker
            ended for a reason that another try may not meet again, or a person had it ended, and another one starts
adjusted    changes {field: [old, new]}, text: a person changed settings for the rest of the run
continued   step (of the checkpoint), changes [{field, was, now}], text: a person said to go on though these are not as
            at the checkpoint
stall       seconds, usual_seconds, phase, process (text: what the worker's process does), stack [text, innermost
            last], text: nothing was heard of the worker for much longer than usual; over with its next event
throttle    device, reason, celsius (or null), on (bool), text: a device runs slower to protect itself, or
            does no longer
not_finite  step, what (loss | gradient norm | the name of a tensor), rows [text: which rows of which file the step
            learnt from], checkpoint_step (or null), learning_rate, lower_rate: of the schedule, as it is, and as it
            might be
end         outcome (finished | stopped | failed), cause (see engine.run.endings.causes), why, remedy, step; and where
            nobody but a signal asked for it, by_signal (true): such a run is among those that were interrupted

Unknown kinds and fields are kept on disk and passed over here, so that an older finetui reads a newer run.
A loss that is not a number is written as null, since JSON has none.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

FORMAT_VERSION = 2

Event = dict[str, Any]
Outcome = Literal["finished", "stopped", "failed"]
Phase = Literal["queued", "preparing", "loading", "evaluating", "training", "saving", "paused"]
TESTING_SEAL = "testing the seal"
"""The detail of a `phase` event: before a trainer starts, the ways out of its seal are tried."""

# A chart 200 columns wide with two points a cell needs 400; ten times that leaves room to zoom without
# a week-long run growing the state.
SERIES_LIMIT = 4096


@dataclass(frozen=True, slots=True)
class StepPoint:
    """One optimizer step as the monitor draws it; `loss` and `gradient_norm` are None when not a number."""

    step: int
    loss: float | None
    learning_rate: float
    gradient_norm: float | None
    tokens_per_second: float


@dataclass(frozen=True, slots=True)
class Evaluation:
    when: Literal["before", "during", "after"]
    step: int
    held_out_loss: float | None
    exact_match: float | None
    answers: int
    metrics: Mapping[str, float] = field(default_factory=dict)
    """What the objective measures beside its loss, by the name it is shown with."""
    source_losses: tuple[float | None, ...] = ()
    """Held-out loss of each data source, None where it has no held-out rows; empty for a single source."""


@dataclass(frozen=True, slots=True)
class Sample:
    index: int
    prompt: str
    expected: str
    base: str
    tuned: str


@dataclass(frozen=True, slots=True)
class RunState:
    """All that is known of a run at one moment: a fold over its events. Times are unix seconds."""

    seq: int = 0
    started_at: float | None = None
    last_event_at: float | None = None
    attempts: int = 0
    resumed_from: int | None = None
    worker_pid: int | None = None
    queued: Mapping[str, Any] = field(default_factory=dict)
    """What the run waits for, as its last `queued` event said; empty once it goes on."""
    ladder: tuple[Mapping[str, Any], ...] = ()
    """The rungs taken when memory ran out, oldest first: the fields of the `ladder` events."""
    adjusted: Mapping[str, Any] = field(default_factory=dict)
    """Fields of the spec that the ladder or a person changed, with the values in force; those of evaluation may be no
    fields."""
    plan: Mapping[str, Any] = field(default_factory=dict)
    phase: Phase = "preparing"
    phase_detail: str = ""
    phase_done: int = 0
    phase_total: int = 0
    step: int = 0
    epoch: float = 0.0
    steps: tuple[StepPoint, ...] = ()
    tokens_seen: int = 0
    training_seconds: float = 0.0
    recent_tokens_per_second: float | None = None
    recent_seconds_per_step: float | None = None
    memory_bytes: int | None = None
    source_losses: tuple[float | None, ...] = ()
    """Each data source's mean training loss over the last steps; empty for a single source."""
    measured_memory: Mapping[str, int] = field(default_factory=dict)
    measured_peak_bytes: int | None = None
    probe: Mapping[str, Any] = field(default_factory=dict)
    """What the trial step before the run was predicted to take, and took; empty where there was none."""
    evaluations: tuple[Evaluation, ...] = ()
    samples: tuple[Sample, ...] = ()
    checkpoint_step: int | None = None
    best_step: int | None = None
    device: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    outputs: Mapping[str, str] = field(default_factory=dict)
    problem: Mapping[str, str] | None = None
    restarts: tuple[Mapping[str, Any], ...] = ()
    """The fields of the `restart` events, oldest first."""
    continued: tuple[Mapping[str, Any], ...] = ()
    """What had changed since a checkpoint when a person said to go on: {field, was, now}, over all resumes."""
    stall: Mapping[str, Any] = field(default_factory=dict)
    """The fields of the `stall` event that still holds; empty once the worker was heard again."""
    throttled: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """By device, the fields of its `throttle` event while it runs slower to protect itself."""
    not_finite: Mapping[str, Any] = field(default_factory=dict)
    """The fields of the `not_finite` event of the last attempt; empty where its numbers are finite."""
    seal: Mapping[str, Any] = field(default_factory=dict)
    """The fields of the last attempt's `seal` event; empty in journals of an older finetui."""
    seal_checks: int = 0
    """How often the kernel was asked about the seal since that attempt began, beside at its start."""
    seal_last_check: Mapping[str, Any] = field(default_factory=dict)
    """The fields of the last `seal_check` event since then, with `at`; empty before the first."""
    seal_changed: tuple[str, ...] = ()
    """What was found not to be as at the start; none is good."""
    ways_out: tuple[Mapping[str, Any], ...] = ()
    """The `way_out` events of all attempts, oldest first, those of the same call from the same place summed up."""
    stop_requested: bool = False
    outcome: Outcome | None = None
    cause: str = ""
    """One of engine.run.endings.causes once the run ended; empty in journals of an older finetui."""
    why: str = ""
    remedy: str = ""
    """What to do about it, in a sentence; empty where there is nothing to do."""
    by_signal: bool = False
    """Whether it was stopped by a signal, and by nobody's wish."""
    damaged: int = 0
    """Lines of the journal that are no event, or one with a field missing or of the wrong type."""

    @property
    def planned_steps(self) -> int | None:
        return self.plan.get("planned_steps")

    @property
    def seconds_left(self) -> float | None:
        """Training time left at the pace of the last steps, in seconds; None until a step was timed or once ended."""
        if self.outcome or self.recent_seconds_per_step is None or self.planned_steps is None:
            return None
        return max(0, self.planned_steps - self.step) * self.recent_seconds_per_step

    @property
    def fresh_restart(self) -> Mapping[str, Any]:
        """The `restart` event since which no checkpoint was saved; empty where there is none."""
        newest = self.restarts[-1] if self.restarts else {}
        return newest if newest and newest["step"] == self.checkpoint_step else {}

    @property
    def tests_seal(self) -> bool:
        """Whether the seal of the trainer that is to start is tested just now."""
        return self.phase == "preparing" and self.phase_detail == TESTING_SEAL and self.outcome is None

    @property
    def ways_out_tried(self) -> int:
        """How often something within the seal tried to get out, over all attempts."""
        return sum(each["count"] for each in self.ways_out)

    @property
    def sources(self) -> Sequence[Mapping[str, Any]]:
        """What is known of each data source, in the order of their losses; empty for a single source."""
        return self.plan.get("sources") or ()

    def evaluation(self, when: Literal["before", "after"]) -> Evaluation | None:
        """The measurement taken before, or after, training, if it was."""
        return next((each for each in reversed(self.evaluations) if each.when == when), None)
