"""What of a run outlives its process: checkpoints, gone on from after a restart, and the tuned adapter or model."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path

from engine.run.checkpoints.manifest import checkpoint_path
from engine.run.checkpoints.verifying import damage, newest_checkpoint
from engine.run.directory import RunDirectory
from engine.train.checkpoints import Progress, checkpoint_bytes, load_checkpoint, load_trainable, save_checkpoint
from engine.train.disk_wait import until_written
from engine.train.outputs import output_bytes, write_outputs
from engine.train.resuming import check_checkpoint
from engine.train.setup import Setup
from engine.train.talk import Talk
from profiles.problem import Problem


class Saving:
    """The checkpoints and outputs of one run, written once the disk has room for them."""

    def __init__(self, setup: Setup, run: RunDirectory, talk: Talk):
        self._setup, self._run, self._talk = setup, run, talk
        self.saved_step: int | None = None
        """The step of the checkpoint that was saved or loaded last."""
        self._remarked: set[str] = set()

    def newest(self) -> Path | None:
        """The newest undamaged checkpoint, to be gone on from with as many threads as it was made with; None when there
        is none. Raises ChangedSince when it was made under other circumstances and nobody said to go on all the same.
        """
        newest, skipped = newest_checkpoint(self._run.checkpoints)
        for reason in skipped:
            self._talk.send("note", text=reason)
        if newest is not None:
            check_checkpoint(self._setup, self._run, newest, self._talk.send)
        elif skipped:
            self._talk.send("note", text="no checkpoint is whole: the run begins anew")
        return newest

    def restore(self, newest: Path) -> Progress:
        """Go on from the checkpoint `newest`. Raises Problem when it does not fit."""
        setup, talk = self._setup, self._talk
        progress = load_checkpoint(newest, setup.parameters, setup.optimizer)
        self.saved_step = progress.step
        if progress.loss_scale and setup.accelerator.scaler is not None:
            setup.accelerator.scaler.load_state_dict(progress.loss_scale)
        talk.send("note", text=f"went on from the checkpoint of step {progress.step}")
        return progress

    def save(self, progress: Progress, held_out_loss: float | None, *, needed: bool, counts: bool = True) -> Progress:
        """Save a checkpoint at `progress`, where `held_out_loss` was measured if at all; the progress that knows it.
        It becomes the best one for it only if that loss `counts`.

        One that fails for another reason than a full disk is told and training goes on, unless it is `needed`: then
        it raises Problem. Raises NoRoomError, and NotFiniteError however little the checkpoint is needed.
        """
        setup, talk = self._setup, self._talk
        talk.phase("saving", f"checkpoint of step {progress.step}")
        scaler = setup.accelerator.scaler
        saving = replace(progress, loss_scale=scaler.state_dict() if scaler is not None else None)
        best = progress.best_held_out_loss
        if is_best := counts and held_out_loss is not None and (best is None or held_out_loss < best):
            saving = replace(saving, best_held_out_loss=held_out_loss, best_step=progress.step)
        write = partial(
            save_checkpoint,
            self._run.checkpoints,
            saving,
            setup.parameters,
            setup.optimizer,
            keep=setup.spec.checkpoint.keep,
            circumstances=setup.circumstances(),
        )
        size, what = checkpoint_bytes(setup.parameters, setup.optimizer), f"the checkpoint of step {progress.step}"
        try:
            saved = until_written(self._run.checkpoints, size, what, write, talk, needed=needed)
        except Problem as problem:
            if needed:
                raise
            talk.send("note", text=f"{problem.what}; training goes on. {problem.fix}")
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
            self._remark(saved.remarks)
        talk.phase("training", "")
        return saving

    def hand_over(self, progress: Progress) -> Progress:
        """Write the adapter or model of the best step into outputs/; that of the last step, which must be what the
        model holds, where the best one's checkpoint is damaged. The progress that knows which it was. Raises Problem,
        NoRoomError."""
        setup, talk = self._setup, self._talk
        if progress.handed_over_step != progress.step:
            best = checkpoint_path(self._run.checkpoints, progress.handed_over_step)
            if (reason := damage(best)) is None:
                load_trainable(best, setup.parameters)
            else:
                last = f"the weights of step {progress.step} are handed over"
                talk.send("note", text=f"the best checkpoint, {best.name}, is damaged: {reason}; {last} instead")
                progress = replace(progress, best_held_out_loss=None, best_step=None)
        talk.phase("saving", "the tuned model")
        write = partial(write_outputs, setup, self._run)
        name, path = until_written(self._run.outputs, output_bytes(setup), "the tuned model", write, talk)
        talk.send("output", name=name, path=str(path.relative_to(self._run.path)))
        return progress

    def _remark(self, remarks: tuple[str, ...]) -> None:
        """Tell what was noticed of older checkpoints, each thing once."""
        for remark in remarks:
            if remark not in self._remarked:
                self._remarked.add(remark)
                self._talk.send("note", text=remark)
