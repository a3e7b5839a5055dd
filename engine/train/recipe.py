"""The training run, read top to bottom: measure, train, measure again, hand over.

What it trades for what: gradients of a step are summed over its micro-batches and normalised by the step's true number
of target tokens, so that 4 x 1 and 1 x 4 are the same step; metrics stay on the device until the next step's work has
been queued, so that a GPU never waits for them; held-out loss is measured whenever a checkpoint is due, so that the
best checkpoint is one that exists.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import torch

from engine.data.dataset import HeldOutRow
from engine.evaluate.answers import exact_match, generate_answers, read_answers, write_answers
from engine.evaluate.held_out import held_out_loss
from engine.fit.memory_rows import Expected, predict_for_tokens, remember
from engine.run.channel import Channel, MemoryChannel
from engine.run.directory import RunDirectory
from engine.run.disk_room import disk_is_full, free_bytes, with_overhead
from engine.run.sizes import size_text
from engine.train.checkpoint import (
    Progress,
    checkpoint_bytes,
    load_checkpoint,
    load_trainable,
    newest_checkpoint,
    save_checkpoint,
)
from engine.train.metrics import StepMetrics
from engine.train.optimizer import rate_share, set_rate
from engine.train.outputs import output_bytes, write_outputs
from engine.train.probe import take_trial_step
from engine.train.setup import Setup
from profiles.ladder import USUAL_ANSWER_BATCH
from profiles.problem import Problem

# Held-out rows whose answers are shown side by side in the app.
SHOWN_SAMPLES = 20

# How often a measurement that is under way may speak, in seconds.
PHASE_INTERVAL_SECONDS = 0.25

# Between two looks at a disk that is full; and between two tries where a write was refused though there seemed to be
# room: a quota is not seen from outside.
ROOM_INTERVAL_SECONDS, REFUSED_INTERVAL_SECONDS = 0.5, 10.0

Written = TypeVar("Written")


@dataclass(frozen=True)
class Ending:
    """How the run ended, for the supervisor's last record."""

    outcome: str
    why: str
    step: int


class StopRequestedError(Exception):
    """A person asked the run to stop while it was measuring."""


class NoRoomError(Exception):
    """A person asked the run to stop while it waited for room on the disk; the text says for what."""


class Recipe:
    """One run of a Setup in its folder, telling `channel` what happens."""

    def __init__(
        self,
        setup: Setup,
        run: RunDirectory,
        channel: Channel | MemoryChannel,
        *,
        answer_batch: int = USUAL_ANSWER_BATCH,
        expected: Expected | None = None,
    ):
        """`answer_batch` is how many held-out rows are answered at once, `expected` the memory that was predicted."""
        self.setup, self.run, self.channel = setup, run, channel
        self.answer_batch, self.expected = answer_batch, expected
        self.spec = setup.spec
        self.progress = Progress(step=0, tokens_seen=0, best_held_out_loss=None, best_step=None)
        self.metrics = StepMetrics(setup.device, self._report_step)
        self.stopping = False
        self._unanswered: list[str] = []
        self._last_evaluation: tuple[int, float | None] = (-1, None)
        self._saved_step: int | None = None
        self._phase_spoke_at, self._phase_name = 0.0, ""

    def train(self) -> Ending:
        """Run to the end, or until stopped. Raises Problem when it cannot go on."""
        try:
            self._restore()
            if self.progress.step == 0:
                self._probe()
                self._measure("before")
            self.learn()
            if self.progress.step:
                self._save_if_new()
                self._hand_over()
            if not self.stopping:
                self._measure("after")
        except StopRequestedError:
            self.stopping = True
        except NoRoomError as unsaved:
            saved = self._saved_step
            remains = "nothing was saved" if saved is None else f"the checkpoint of step {saved} remains"
            why = f"stopped on request while the disk was full: {unsaved} was not written; {remains}"
            return Ending("stopped", why, self.progress.step)
        if self.stopping:
            return Ending("stopped", f"stopped on request after step {self.progress.step}", self.progress.step)
        return Ending("finished", f"all {self.setup.total_steps} steps were taken", self.progress.step)

    def _probe(self) -> None:
        """Measure what a step takes, before anything is learnt, and tell how that compares with the estimate."""
        expected = self.expected
        if expected is None or not self.spec.train.probe:
            return
        self._phase("preparing", "a trial step, to measure the memory it takes")
        trial = take_trial_step(self.setup)
        prediction = predict_for_tokens(expected, trial.tokens, steps_only=True)
        self.channel.send(
            "probe",
            predicted=prediction.believed_bytes,
            measured=trial.process_bytes,
            allocated=trial.allocated_bytes,
            seconds=trial.seconds,
            tokens=trial.tokens,
        )
        if trial.process_bytes is None:
            return
        remember(
            expected,
            prediction,
            process_bytes=trial.process_bytes,
            allocated_bytes=trial.allocated_bytes,
            reserved_bytes=trial.reserved_bytes,
        )
        off = trial.process_bytes / prediction.believed_bytes - 1
        if abs(off) > expected.estimate.error_share:
            took, believed = size_text(trial.process_bytes), size_text(prediction.believed_bytes)
            less_or_more = "more" if off > 0 else "less"
            text = f"the trial step took {took}, {abs(off):.0%} {less_or_more} than the {believed} expected"
            self.channel.send("note", text=f"{text}; later estimates on this device follow it")

    def learn(self) -> None:
        """The optimizer steps from where training stands to the end of the plan."""
        setup, spec, every = self.setup, self.spec, self.spec.evaluation.every_steps
        self._phase("training", "")
        setup.model.train()
        self._obey_commands()
        self.metrics.start()
        while self.progress.step < setup.total_steps and not self.stopping:
            self._step()
            step = self.progress.step
            if step == min(3, setup.total_steps):
                self._report_memory()
            self._obey_commands()
            due = spec.checkpoint.every_steps and step % spec.checkpoint.every_steps == 0
            if (every and step % every == 0) or due:
                self._evaluate_during()
            if due:
                self._save(needed=False)
        self.metrics.flush()
        self._report_memory()
        self._remember_memory()

    def _step(self) -> None:
        setup, spec, step = self.setup, self.spec, self.progress.step
        batches = [setup.forward.collate(examples) for examples in setup.plan.micro_batches(step)]
        targets = sum(batch.targets for batch in batches)
        tokens = sum(batch.tokens for batch in batches)
        loss = torch.zeros((), device=setup.device)
        for batch in batches:
            loss += setup.add_gradients(batch, targets)
        rate = spec.optimizer.learning_rate * rate_share(step, setup.total_steps, spec.schedule)
        set_rate(setup.optimizer, rate)
        norm = setup.update()
        self.progress = Progress(
            step + 1,
            self.progress.tokens_seen + tokens,
            self.progress.best_held_out_loss,
            self.progress.best_step,
        )
        self.metrics.record(
            {"step": step + 1, "learning_rate": rate, "tokens": tokens, "target_tokens": targets}, loss, norm
        )

    def _report_step(self, fields: dict[str, Any], loss: float, norm: float, seconds: float) -> None:
        """Send a step's numbers. Raises Problem when its loss is not a number, so that it is never saved."""
        # In the order of engine.run.events: journals of a million steps are opened without parsing every line.
        self.channel.send(
            "step",
            step=fields["step"],
            epoch=self.setup.plan.epoch_at(fields["step"]),
            loss=loss if math.isfinite(loss) else None,
            learning_rate=fields["learning_rate"],
            gradient_norm=norm if math.isfinite(norm) else None,
            target_tokens=fields["target_tokens"],
            tokens=fields["tokens"],
            seconds=seconds,
            memory_bytes=self.setup.memory.now_bytes(),
        )
        # An infinite norm alone is fp16's loss scale finding its level: that step is skipped.
        if not math.isfinite(loss) or (not math.isfinite(norm) and self.setup.accelerator.scaler is None):
            raise Problem(
                f"step {fields['step']}",
                "the loss or its gradient was not a finite number",
                "Lower optimizer.learning_rate (a third of it, say) or lengthen the warm-up, and train again.",
            )

    # Measuring

    def _measure(self, when: str) -> None:
        """Held-out loss and answers, of the base (before) or of the model that is handed over (after)."""
        setup = self.setup
        loss = self._held_out_loss(f"held-out loss {when} training")
        answers = self._answers(when)
        expected = [row.expected for row in self._answer_rows()]
        self.channel.send(
            "evaluation",
            when=when,
            step=0 if when == "before" else self.handed_over_step,
            held_out_loss=loss,
            exact_match=exact_match(answers, expected),
            answers=len(answers),
        )
        if when == "after":
            base = read_answers(self.run.answers_path) or [""] * len(answers)
            self._keep_answers("after.jsonl", answers)
            self._send_samples(base, answers)
        setup.model.train()

    def _held_out_loss(self, detail: str) -> float | None:
        setup = self.setup

        def progress(done: int, total: int) -> None:
            self._phase("evaluating", detail, done, total)
            self._stop_if_asked()

        with setup.accelerator.autocast():
            return held_out_loss(setup.forward, setup.held_out_batches, setup.device, progress)

    def _evaluate_during(self) -> float | None:
        """Held-out loss at this step, measured once however often it is asked for."""
        step = self.progress.step
        if self._last_evaluation[0] != step:
            self.metrics.flush()
            setup = self.setup
            with setup.accelerator.autocast():
                loss = held_out_loss(setup.forward, setup.held_out_batches, setup.device, self._say_measuring)
            if self._phase_name != "training":
                self._phase("training", "")
            self._last_evaluation = (step, loss)
            if loss is not None:
                self.channel.send(
                    "evaluation", when="during", step=step, held_out_loss=loss, exact_match=None, answers=0
                )
            self.metrics.start()
        return self._last_evaluation[1]

    def _say_measuring(self, done: int, total: int) -> None:
        """Tell of a measurement between steps, unless it is over before anybody could read that."""
        if done == 1:
            self._phase_spoke_at = time.monotonic()
        if 1 < done < total:
            self._phase("evaluating", "held-out loss", done, total)

    def _answer_rows(self) -> list[HeldOutRow]:
        return self.setup.dataset.held_out_rows[: self.spec.evaluation.answers]

    def _answers(self, when: str) -> list[str]:
        """The model's answers to the held-out rows; the base's are kept, since full tuning leaves no base to ask."""
        rows = self._answer_rows()
        if not rows:
            return []

        def progress(done: int, total: int) -> None:
            self._phase("evaluating", f"answers {when} training", done, total)
            self._stop_if_asked()

        self._phase("evaluating", f"answers {when} training", 0, len(rows))
        answers = self._generate([row.prompt_ids for row in rows], progress)
        if when == "before":
            self._keep_answers(self.run.answers_path.name, answers)
        return answers

    def _keep_answers(self, name: str, answers: list[str]) -> None:
        size = sum(len(json.dumps(answer)) + 1 for answer in answers)
        path = self.run.answers_path.with_name(name)
        self._until_written(size, "the file of answers", lambda: write_answers(path, answers))

    def _generate(self, prompts: list[Any], progress: Callable[[int, int], None]) -> list[str]:
        setup = self.setup
        setup.forward.use_plain_attention()
        try:
            with setup.accelerator.autocast():
                return generate_answers(
                    setup.model,
                    setup.tokenizer,
                    prompts,
                    batch=self.answer_batch,
                    token_budget=self.spec.train.micro_batch * self.spec.data.sequence_length,
                    max_new_tokens=self.spec.evaluation.max_new_tokens,
                    stop_tokens=setup.stop_tokens,
                    progress=progress,
                )
        finally:
            setup.forward.use_training_attention()

    def _send_samples(self, base: list[str], tuned: list[str]) -> None:
        for index, (row, before, after) in enumerate(zip(self._answer_rows(), base, tuned, strict=True)):
            if index == SHOWN_SAMPLES:
                break
            self.channel.send(
                "sample", index=index, prompt=row.prompt_text, expected=row.expected, base=before, tuned=after
            )

    # Saving

    def _restore(self) -> None:
        """Go on from the newest undamaged checkpoint, when there is one."""
        newest, skipped = newest_checkpoint(self.run.checkpoints)
        for reason in skipped:
            self.channel.send("note", text=reason)
        if newest is None:
            return
        self.progress = load_checkpoint(newest, self.setup.parameters, self.setup.optimizer)
        self._saved_step = self.progress.step
        if self.progress.loss_scale and self.setup.accelerator.scaler is not None:
            self.setup.accelerator.scaler.load_state_dict(self.progress.loss_scale)
        self.channel.send("note", text=f"went on from the checkpoint of step {self.progress.step}")

    def _save_if_new(self) -> None:
        if self._saved_step != self.progress.step:
            self._evaluate_during()
            self._save(needed=True)

    def _save(self, *, needed: bool) -> None:
        """Save a checkpoint, once the disk has room for it. One that fails for another reason is told and training goes
        on, unless it is `needed`."""
        self.metrics.flush()
        self._phase("saving", f"checkpoint of step {self.progress.step}")
        step, loss = self._last_evaluation
        measured = loss if step == self.progress.step else None
        best = self.progress.best_held_out_loss
        is_best = measured is not None and (best is None or measured < best)
        scaler = self.setup.accelerator.scaler
        progress = Progress(
            self.progress.step,
            self.progress.tokens_seen,
            measured if is_best else best,
            self.progress.step if is_best else self.progress.best_step,
            scaler.state_dict() if scaler is not None else None,
        )
        setup = self.setup
        try:
            saved = self._until_written(
                checkpoint_bytes(setup.parameters, setup.optimizer),
                f"the checkpoint of step {progress.step}",
                lambda: save_checkpoint(
                    self.run.checkpoints,
                    progress,
                    setup.parameters,
                    setup.optimizer,
                    keep=self.spec.checkpoint.keep,
                ),
            )
        except Problem as problem:
            if needed:
                raise
            self.channel.send("note", text=f"{problem.what}; training goes on")
        else:
            self.progress, self._saved_step = progress, progress.step
            self.channel.send(
                "checkpoint",
                step=progress.step,
                bytes=saved.total_bytes,
                seconds=saved.seconds,
                best=is_best,
                held_out_loss=measured,
            )
        self._phase("training", "")
        self.metrics.start()

    @property
    def handed_over_step(self) -> int:
        """The step whose weights are handed over: the best on held-out rows, else the last."""
        return self.progress.best_step or self.progress.step

    def _hand_over(self) -> None:
        """Write the adapter or model of the best step into outputs/."""
        if self.handed_over_step != self.progress.step:
            load_trainable(self.run.checkpoints / f"step-{self.handed_over_step:06d}", self.setup.parameters)
        self._phase("saving", "the tuned model")
        name, path = self._until_written(
            output_bytes(self.setup), "the tuned model", lambda: write_outputs(self.setup, self.run)
        )
        self.channel.send("output", name=name, path=str(path.relative_to(self.run.path)))

    def _until_written(self, size: int, what: str, write: Callable[[], Written]) -> Written:
        """Call `write`, which writes `size` bytes, once the disk has room for them, and again where it was full still.

        Raises NoRoomError when a stop was asked for meanwhile, and what `write` raises for other reasons.
        """
        refused = False
        while True:
            self._wait_for_room(size, what, REFUSED_INTERVAL_SECONDS if refused else 0.0)
            try:
                return write()
            except (Problem, OSError) as error:
                if not disk_is_full(error.__cause__ if isinstance(error, Problem) else error):
                    raise
                refused = True

    def _wait_for_room(self, size: int, what: str, least_seconds: float) -> None:
        """Pause until the disk of runs has room for `size` bytes, and for `least_seconds` at least."""
        before, told, began = self._phase_name, "", time.monotonic()
        instead = "stop again to end without it" if self.stopping else "stop"
        needed = with_overhead(size)
        while (free := free_bytes(self.run.path)) < needed or time.monotonic() - began < least_seconds:
            text = f"{what} needs {size_text(needed)}, {size_text(free)} free on the disk of runs"
            if free >= needed:
                text += ", which took no more (is there a quota?)"
            if text != told:
                self._phase("paused", f"{text}: free some space, or {instead}")
                told = text
            commands = self.channel.commands()
            if "stop" in commands or self.channel.supervisor_gone:
                self.stopping = True
                raise NoRoomError(what)
            self._unanswered += commands
            time.sleep(ROOM_INTERVAL_SECONDS)
        if told:
            self._phase(before, what)

    # Talking

    def _phase(self, phase: str, detail: str, done: int = 0, total: int = 0) -> None:
        now = time.monotonic()
        if 0 < done < total and now - self._phase_spoke_at < PHASE_INTERVAL_SECONDS:
            return
        self._phase_spoke_at, self._phase_name = now, phase
        self.channel.send("phase", phase=phase, detail=detail, done=done, total=total)

    def _report_memory(self) -> None:
        setup = self.setup
        measured = setup.memory.components(setup.model, setup.parameters.values(), setup.optimizer)
        self.channel.send("memory", measured=measured, peak_bytes=setup.memory.peak_bytes())

    def _remember_memory(self) -> None:
        """Keep what the run took for later estimates, if it took all that it does over and over."""
        setup = self.setup
        if self.expected is None or self.progress.step < min(3, setup.total_steps):
            return
        heaviest = setup.forward.collate(setup.plan.heaviest(padded=setup.forward.padded))
        allocated, reserved = setup.memory.allocator_peaks()
        remember(
            self.expected,
            predict_for_tokens(self.expected, heaviest.input_ids.numel()),
            process_bytes=setup.memory.peak_bytes(),
            allocated_bytes=allocated,
            reserved_bytes=reserved,
        )

    @property
    def pace(self) -> tuple[float, float] | None:
        """Tokens per second of the run's steps, and the share of tokens that carried loss; None for a short run."""
        return self.metrics.pace

    def _obey_commands(self) -> None:
        """Do what a person asked for since the last step."""
        commands, self._unanswered = [*self._unanswered, *self.channel.commands()], []
        for command in commands:
            if command == "stop":
                self.stopping = True
            elif command == "save":
                self._evaluate_during()
                self._save(needed=False)
            elif command == "evaluate":
                self._evaluate_during()
            elif command == "sample":
                self._sample_now()
        if self.channel.supervisor_gone:
            self.stopping = True

    def _sample_now(self) -> None:
        """Answer the first held-out rows with the weights as they are now."""
        self.metrics.flush()
        rows = self._answer_rows()[:SHOWN_SAMPLES]
        base = read_answers(self.run.answers_path) or [""] * len(rows)
        self._phase("evaluating", "answers asked for", 0, len(rows))
        tuned = self._generate([row.prompt_ids for row in rows], lambda done, total: None)
        self._send_samples(base[: len(rows)], tuned)
        self._phase("training", "")
        self.metrics.start()

    def _stop_if_asked(self) -> None:
        """Raise StopRequestedError when a stop came while measuring; other requests wait for the next step."""
        self._unanswered += self.channel.commands()
        if "stop" in self._unanswered or self.channel.supervisor_gone:
            raise StopRequestedError
