"""What of a run outlives its process: checkpoints, gone on from after a restart, and the tuned adapter or model."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from engine.run.directory import RunDirectory
from engine.train.checkpoints.saved import (
    Progress,
    checkpoint_bytes,
    load_checkpoint,
    load_trainable,
    newest_checkpoint,
    save_checkpoint,
)
from engine.train.disk_wait import until_written
from engine.train.outputs import output_bytes, write_outputs
from engine.train.setup import Setup
from engine.train.talk import Talk
from profiles.problem import Problem


class Saving:
    """The checkpoints and outputs of one run, written once the disk has room for them."""

    def __init__(self, setup: Setup, run: RunDirectory, talk: Talk):
        self._setup, self._run, self._talk = setup, run, talk
        self.saved_step: int | None = None
        """The step of the checkpoint that was saved or loaded last."""

    def restore(self) -> Progress | None:
        """Go on from the newest undamaged checkpoint; None when there is none. Raises Problem when it does not fit."""
        setup, talk = self._setup, self._talk
        newest, skipped = newest_checkpoint(self._run.checkpoints)
        for reason in skipped:
            talk.send("note", text=reason)
        if newest is None:
            return None
        progress = load_checkpoint(newest, setup.parameters, setup.optimizer)
        self.saved_step = progress.step
        if progress.loss_scale and setup.accelerator.scaler is not None:
            setup.accelerator.scaler.load_state_dict(progress.loss_scale)
        talk.send("note", text=f"went on from the checkpoint of step {progress.step}")
        return progress

    def save(self, progress: Progress, held_out_loss: float | None, *, needed: bool) -> Progress:
        """Save a checkpoint at `progress`, where `held_out_loss` was measured if at all; the progress that knows it.

        One that fails for another reason than a full disk is told and training goes on, unless it is `needed`: then
        it raises Problem. Raises NoRoomError.
        """
        setup, talk = self._setup, self._talk
        talk.phase("saving", f"checkpoint of step {progress.step}")
        scaler = setup.accelerator.scaler
        saving = replace(progress, loss_scale=scaler.state_dict() if scaler is not None else None)
        best = progress.best_held_out_loss
        if is_best := held_out_loss is not None and (best is None or held_out_loss < best):
            saving = replace(saving, best_held_out_loss=held_out_loss, best_step=progress.step)
        try:
            saved = until_written(
                self._run.path,
                checkpoint_bytes(setup.parameters, setup.optimizer),
                f"the checkpoint of step {progress.step}",
                partial(
                    save_checkpoint,
                    self._run.checkpoints,
                    saving,
                    setup.parameters,
                    setup.optimizer,
                    keep=setup.spec.checkpoint.keep,
                ),
                talk,
            )
        except Problem as problem:
            if needed:
                raise
            talk.send("note", text=f"{problem.what}; training goes on")
            saving = progress
        else:
            self.saved_step = progress.step
            talk.send(
                "checkpoint",
                step=progress.step,
                bytes=saved.total_bytes,
                seconds=saved.seconds,
                best=is_best,
                held_out_loss=held_out_loss,
            )
        talk.phase("training", "")
        return saving

    def hand_over(self, progress: Progress) -> None:
        """Write the adapter or model of the best step into outputs/. Raises Problem, NoRoomError."""
        setup, talk = self._setup, self._talk
        if progress.handed_over_step != progress.step:
            load_trainable(self._run.checkpoints / f"step-{progress.handed_over_step:06d}", setup.parameters)
        talk.phase("saving", "the tuned model")
        write = partial(write_outputs, setup, self._run)
        name, path = until_written(self._run.path, output_bytes(setup), "the tuned model", write, talk)
        talk.send("output", name=name, path=str(path.relative_to(self._run.path)))
