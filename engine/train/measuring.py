"""What the model is worth now: held-out loss, and answers beside those of the base."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from engine.data.dataset import HeldOutRow
from engine.evaluate.answers import exact_match, generate_answers, read_answers, write_answers
from engine.evaluate.held_out import judge_held_out
from engine.run.directory import RunDirectory
from engine.run.endings.exhaustion import BASE_DETAIL
from engine.train.disk_wait import until_written
from engine.train.setup import Setup
from engine.train.talk import Talk

# Held-out rows whose answers are shown side by side in the app.
SHOWN_SAMPLES = 20


@dataclass(frozen=True)
class _HeldOut:
    """What was measured on the held-out rows."""

    loss: float | None
    """None when there are no held-out rows."""
    more: dict[str, Any]
    """Further fields of the `evaluation` event."""


class Measuring:
    """The measurements of one run; answers are kept in its folder."""

    def __init__(self, setup: Setup, run: RunDirectory, talk: Talk, answer_batch: int):
        """`answer_batch` is how many held-out rows are answered at once at most."""
        self._setup, self._run, self._talk, self._answer_batch = setup, run, talk, answer_batch
        self._evaluation = setup.spec.evaluation
        self._last: tuple[int, float | None] = (-1, None)

    def refer(self) -> None:
        """Let the objective learn what it has to know of the base; the model must still be that. Raises
        StopRequestedError."""
        setup, talk = self._setup, self._talk

        def progress(done: int, total: int) -> None:
            talk.phase("preparing", BASE_DETAIL, done, total)
            talk.stop_if_asked()

        def keep(size: int, write: Callable[[], None]) -> None:
            until_written(self._run.evaluation, size, "the file of the base's log-probabilities", write, talk)

        setup.objective.refer(
            self._run.evaluation,
            token_budget=setup.evaluation_tokens,
            device=setup.device,
            autocast=setup.accelerator.autocast,
            progress=progress,
            keep=keep,
        )

    def measure(self, when: str, step: int) -> None:
        """Held-out loss and answers, of the base ("before") or of the model that is handed over ("after"), which has
        the weights of `step`. Raises StopRequestedError."""
        setup = self._setup
        judged = self._judge(f"held-out loss {when} training")
        answers = self._answers(when)
        expected = [row.expected for row in self._answer_rows()]
        self._talk.send(
            "evaluation",
            when=when,
            step=step,
            held_out_loss=judged.loss,
            exact_match=exact_match(answers, expected),
            answers=len(answers),
            **judged.more,
        )
        if when == "after" and setup.spec.privacy.samples:
            self._keep_answers("after.jsonl", answers)
            self._send_samples(answers)
        setup.model.train()

    def measure_during(self, step: int, before: Callable[[], None]) -> bool:
        """Held-out loss at `step`, between two steps, once however often it is asked for; `before` is called first.
        Whether it was measured now."""
        if self._last[0] == step:
            return False
        before()
        talk = self._talk
        judged = self._judged(lambda done, total: talk.quiet_phase("evaluating", "held-out loss", done, total))
        if talk.phase_name != "training":
            talk.phase("training", "")
        self._last = (step, judged.loss)
        if judged.loss is not None:
            talk.send(
                "evaluation",
                when="during",
                step=step,
                held_out_loss=judged.loss,
                exact_match=None,
                answers=0,
                **judged.more,
            )
        return True

    def loss_at(self, step: int) -> float | None:
        """Held-out loss at `step`, if that is the one it was measured at last."""
        return self._last[1] if self._last[0] == step else None

    def sample_now(self) -> None:
        """Answer the first held-out rows with the weights as they are now: asked for by a person, whatever the spec
        says of samples."""
        rows = self._answer_rows()[:SHOWN_SAMPLES]
        self._talk.phase("evaluating", "answers asked for", 0, len(rows))
        self._send_samples(self._generate([row.prompt_ids for row in rows], lambda done, total: None))
        self._talk.phase("training", "")

    def _judge(self, detail: str) -> _HeldOut:
        talk = self._talk

        def progress(done: int, total: int) -> None:
            talk.phase("evaluating", detail, done, total)
            talk.stop_if_asked()

        return self._judged(progress)

    def _judged(self, progress: Callable[[int, int], None]) -> _HeldOut:
        setup = self._setup
        # Rows of a held-out file are from none of the sources that are learnt from.
        tally = setup.source_tally() if setup.spec.data.held_out is None else None
        with setup.accelerator.autocast():
            judged = judge_held_out(setup.objective, setup.held_out_batches, setup.device, progress, tally)
        if judged is None:
            return _HeldOut(None, {})
        more: dict[str, Any] = {"metrics": dict(judged.metrics)} if judged.metrics else {}
        if tally is not None:
            more["source_losses"] = list(tally.means())
        return _HeldOut(judged.loss, more)

    def _answer_rows(self) -> list[HeldOutRow]:
        if self._setup.head.kind != "language":
            return []
        return self._setup.dataset.held_out_rows[: self._evaluation.answers]

    def _answers(self, when: str) -> list[str]:
        """The model's answers to the held-out rows; the base's are kept, since full tuning leaves no base to ask."""
        rows, talk = self._answer_rows(), self._talk
        if not rows:
            return []

        def progress(done: int, total: int) -> None:
            talk.phase("evaluating", f"answers {when} training", done, total)
            talk.stop_if_asked()

        talk.phase("evaluating", f"answers {when} training", 0, len(rows))
        answers = self._generate([row.prompt_ids for row in rows], progress)
        if when == "before" and self._setup.spec.privacy.samples:
            self._keep_answers(self._run.answers_path.name, answers)
        return answers

    def _keep_answers(self, name: str, answers: list[str]) -> None:
        size = sum(len(json.dumps(answer)) + 1 for answer in answers)
        path = self._run.answers_path.with_name(name)
        write = partial(write_answers, path, answers)
        until_written(self._run.evaluation, size, "the file of answers", write, self._talk)

    def _generate(self, prompts: list[Any], progress: Callable[[int, int], None]) -> list[str]:
        setup, spec = self._setup, self._setup.spec
        setup.forward.use_plain_attention()
        try:
            with setup.accelerator.autocast():
                return generate_answers(
                    setup.model,
                    setup.tokenizer,
                    prompts,
                    batch=self._answer_batch,
                    token_budget=spec.train.micro_batch * spec.data.sequence_length,
                    max_new_tokens=self._evaluation.max_new_tokens,
                    stop_tokens=setup.stop_tokens,
                    progress=progress,
                )
        finally:
            setup.forward.use_training_attention()

    def _send_samples(self, tuned: list[str]) -> None:
        """Tell the first of `tuned`, each beside what was expected and what the base answered."""
        rows = self._answer_rows()[: min(SHOWN_SAMPLES, len(tuned))]
        # There may be more of the base's: an attempt that ran out of memory answered rows that this one leaves out.
        base = (read_answers(self._run.answers_path) or [""] * len(rows))[: len(rows)]
        for index, (row, before, after) in enumerate(zip(rows, base, tuned[: len(rows)], strict=True)):
            self._talk.send(
                "sample", index=index, prompt=row.prompt_text, expected=row.expected, base=before, tuned=after
            )
