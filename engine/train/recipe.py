"""The training run, read top to bottom: measure, train, measure again, hand over.

What it trades for what: gradients of a step are summed over its micro-batches and normalised by the step's true number
of target tokens, so that 4 x 1 and 1 x 4 are the same step; metrics stay on the device until the next step's work has
been queued, so that a GPU never waits for them; held-out loss is measured whenever a checkpoint is due, so that the
best checkpoint is one that exists.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import torch

from engine.fit.memory_rows import Expected
from engine.run.directory import RunDirectory
from engine.run.endings.causes import Ending
from engine.run.processes.channel import Channel, MemoryChannel
from engine.train.checkpoints import NotFiniteError, Progress
from engine.train.disk_wait import NoRoomError
from engine.train.measuring import Measuring
from engine.train.memory_report import remember_memory, tell_memory, try_a_step
from engine.train.metrics import StepMetrics
from engine.train.not_finite import NotANumberError, not_finite_ending, require_numbers
from engine.train.optimizer import rate_share, set_rate
from engine.train.saving import Saving
from engine.train.setup import Setup
from engine.train.step_under_way import StepUnderWay
from engine.train.talk import StopRequestedError, Talk
from engine.train.tally import RecentLosses
from profiles.ladder import USUAL_ANSWER_BATCH

# By then a step has done all that it does over and over, and the memory it takes is known.
_TELLING_STEPS = 3


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
        self.setup, self.spec, self.run, self.expected = setup, setup.spec, run, expected
        self.talk = Talk(channel)
        self.measuring = Measuring(setup, run, self.talk, answer_batch)
        self.saving = Saving(setup, run, self.talk)
        self.progress = Progress(step=0, tokens_seen=0, best_held_out_loss=None, best_step=None)
        self.metrics = StepMetrics(setup.device, self._report_step)
        self.recent_losses = RecentLosses(len(self.spec.data.train))
        self._began_at = 0

    def train(self) -> Ending:
        """Run to the end, or until stopped. Raises Problem when it cannot go on."""
        try:
            newest = self.saving.newest()
            self.measuring.refer()  # while the model is still the base
            if newest is not None:
                self.progress = self.saving.restore(newest)
            self._began_at = self.progress.step
            if self.progress.step == 0:
                if self.expected is not None and self.spec.train.probe:
                    try_a_step(self.setup, self.expected, self.talk)
                self.measuring.measure("before", step=0)
            self.learn()
            if self.progress.step:
                if self.saving.saved_step != self.progress.step:
                    self._evaluate()
                    self._save(needed=True)
                self.progress = self.saving.hand_over(self._handed_over())
            if not self.talk.stopping:
                self.measuring.measure("after", self.progress.handed_over_step)
        except StopRequestedError:
            self.talk.stopping = True
        except NoRoomError as unsaved:
            saved = self.saving.saved_step
            remains = "nothing was saved" if saved is None else f"the checkpoint of step {saved} remains"
            why = f"while the disk was full: {unsaved} was not written; {remains}"
            return Ending("stopped", "disk_full", why)
        except (NotANumberError, NotFiniteError) as error:
            step, saved_step = self.progress.step, self.saving.saved_step
            fields, ending = not_finite_ending(
                error, self.setup, self.run, step=step, saved_step=saved_step, began_at=self._began_at
            )
            self.talk.send("not_finite", **fields)
            return ending
        if self.talk.stopping:
            return Ending("stopped", "stopped", f"after step {self.progress.step}")
        return Ending("finished", "finished", f"all {self.setup.total_steps} steps were taken")

    def learn(self) -> None:
        """The optimizer steps from where training stands to the end of the plan."""
        setup, talk, every = self.setup, self.talk, self.spec.evaluation.every_steps
        save_every = self.spec.checkpoint.every_steps
        telling_step = min(_TELLING_STEPS, setup.total_steps)
        talk.phase("training", "")
        setup.model.train()
        self._obey()
        self.metrics.start()
        while self.progress.step < setup.total_steps and not talk.stopping:
            if not self._step():
                break
            step = self.progress.step
            if step == telling_step:
                tell_memory(setup, talk)
            self._obey()
            due = save_every and step % save_every == 0
            if (every and step % every == 0) or due:
                self._evaluate()
            if due:
                self._save(needed=False)
        self.metrics.flush()
        tell_memory(setup, talk)
        if self.expected is not None and self.progress.step >= telling_step:
            remember_memory(setup, self.expected)

    @property
    def pace(self) -> tuple[float, float] | None:
        """Tokens per second of the run's steps, and the share of tokens that carried loss; None for a short run."""
        return self.metrics.pace

    def _step(self) -> bool:
        """Take a step. False where a stop came in the midst of a long one, which was undone; the stop was obeyed."""
        setup, spec, step = self.setup, self.spec, self.progress.step
        under_way = StepUnderWay(setup, self.talk)
        batches = [setup.objective.collate(examples) for examples in setup.plan.micro_batches(step)]
        batches = setup.objective.begin_step(batches, setup.accelerator.autocast)
        targets = sum(batch.targets for batch in batches)
        target_tokens = sum(batch.target_tokens for batch in batches)
        tokens = sum(batch.tokens for batch in batches)
        loss = torch.zeros((), device=setup.device)
        tally = setup.source_tally()
        micro_losses: list[torch.Tensor] = []
        for batch in batches:
            if under_way.is_left(len(micro_losses), len(batches)):
                self._obey()
                return False
            micro_losses.append(setup.add_gradients(batch, targets, tally))
            loss += micro_losses[-1]
        rate = spec.optimizer.learning_rate * rate_share(step, setup.total_steps, spec.schedule)
        set_rate(setup.optimizer, rate)
        norm = setup.update()
        self.progress = replace(self.progress, step=step + 1, tokens_seen=self.progress.tokens_seen + tokens)
        fields = {"step": step + 1, "learning_rate": rate, "tokens": tokens, "target_tokens": target_tokens}
        fields["micro_losses"] = micro_losses  # they stay on the device, and are looked at when the loss is no number
        if tally is None:
            self.metrics.record(fields, loss, norm)
        else:
            self.metrics.record(fields | {"source_units": tally.counts}, loss, norm, tally.sums)
        return True

    def _report_step(
        self, fields: dict[str, Any], loss: float, norm: float, seconds: float, source_sums: list[float]
    ) -> None:
        """Send a step's numbers. Raises NotANumberError when its loss is none, so that it is never saved."""
        # In the order of the telemetry records: journals of a million steps are opened without parsing every line.
        self.talk.send(
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
            **self._by_source(fields, source_sums),
        )
        scaled = self.setup.accelerator.scaler is not None
        require_numbers(fields["step"], loss, norm, fields["micro_losses"], scaled=scaled)

    def _by_source(self, fields: dict[str, Any], sums: list[float]) -> dict[str, Any]:
        """The field of a step that only runs of several data sources have."""
        if not sums:
            return {}
        self.recent_losses.add(sums, fields["source_units"])
        return {"source_losses": list(self.recent_losses.means())}

    # Between two steps

    def _evaluate(self) -> None:
        """Held-out loss at this step."""
        if self.measuring.measure_during(self.progress.step, before=self.metrics.flush):
            self.metrics.start()

    def _save(self, *, needed: bool) -> None:
        """A checkpoint of this step; without one that is `needed` training does not go on."""
        self.metrics.flush()
        held_out_loss = self.measuring.loss_at(self.progress.step)
        if held_out_loss is not None and not math.isfinite(held_out_loss):
            held_out_loss = None  # no checkpoint is the best for it
        # What a person asks for at other steps, a stop too, must not decide what a run that goes on hands over.
        every = self.spec.checkpoint.every_steps
        planned = self.progress.step == self.setup.total_steps or bool(every and self.progress.step % every == 0)
        self.progress = self.saving.save(self.progress, held_out_loss, needed=needed, counts=planned)
        self.metrics.start()

    def _handed_over(self) -> Progress:
        """The progress by which weights are handed over now: a run that stops between two checkpoints of its plan may
        be better than at any of them."""
        loss, best = self.measuring.loss_at(self.progress.step), self.progress.best_held_out_loss
        if loss is None or not math.isfinite(loss) or (best is not None and best <= loss):
            return self.progress
        return replace(self.progress, best_held_out_loss=loss, best_step=self.progress.step)

    def _obey(self) -> None:
        """Do what a person asked for since the last step."""
        for request in self.talk.requests():
            if request == "stop":
                self.talk.stopping = True
            elif request == "save":
                self._evaluate()
                self._save(needed=False)
            elif request == "evaluate":
                self._evaluate()
            elif request == "sample":
                self.metrics.flush()
                self.measuring.sample_now()
                self.metrics.start()
        if self.talk.supervisor_gone:
            self.talk.stopping = True
