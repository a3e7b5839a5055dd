"""What held-out rows said of a run, in words: before training, and since."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from engine.run.telemetry.metric_names import metric_name
from tui.format import counted, loss_text, share_text

if TYPE_CHECKING:
    from engine.run.telemetry.events import Evaluation, RunState


def held_out_words(state: RunState, arrow: str, separator: str) -> str:
    """Loss and exact match before and after training: "2.871 → 0.387 · exact match 0 % → 94 % of 50 answers"; empty
    when neither was measured."""
    before, after = state.evaluation("before"), state.evaluation("after")
    words = [_from_to(before, after, lambda each: each.held_out_loss, loss_text, arrow)]
    if match := _from_to(before, after, lambda each: each.exact_match, share_text, arrow):
        words.append(f"exact match {match} of {counted((after or before).answers, 'answer')}")  # type: ignore[union-attr]
    measured = separator.join(filter(None, words))
    return f"{measured} before training" if measured and after is None else measured


def metric_names(state: RunState) -> tuple[str, ...]:
    """What the objective measures beside its loss, in the order in which it was first told."""
    return tuple(dict.fromkeys(name for each in state.evaluations for name in each.metrics))


def metric_words(state: RunState, arrow: str, separator: str) -> str:
    """Each metric as first and as last measured: "accuracy 0.512 → 0.901"; empty where there is none."""
    told = [each for each in state.evaluations if each.metrics]
    if not told:
        return ""
    first, newest = told[0], told[-1] if len(told) > 1 else None

    def words(name: str) -> str:
        return f"{metric_name(name)} {_from_to(first, newest, lambda each: each.metrics.get(name), loss_text, arrow)}"

    return separator.join(map(words, metric_names(state)))


def _from_to(
    first: Evaluation | None,
    last: Evaluation | None,
    value: Callable[[Evaluation], float | None],
    text: Callable[[float | None], str],
    arrow: str,
) -> str:
    """Two measurements, the second where there is one; empty when neither has the value."""
    values = [None if each is None else value(each) for each in (first, last)]
    if values == [None, None]:
        return ""
    return text(values[0]) if last is None else f"{text(values[0])} {arrow} {text(values[1])}"
