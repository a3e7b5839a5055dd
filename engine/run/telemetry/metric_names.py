"""What objectives measure beside their loss (engine.objectives), in words that people use. No torch."""

from __future__ import annotations

_WORDS = {
    "preference_accuracy": "preferred the better answer",
    "feedback_accuracy": "agreed with the thumbs",
    "reward_margin": "margin of rewards",
    "macro_f1": "macro F1",
    "micro_f1": "micro F1",
    "recall_at_1": "recall at 1",
}


def metric_name(key: str) -> str:
    """The words for a metric of an `evaluation` event; one that is not known is read as it is written."""
    return _WORDS.get(key, key.replace("_", " "))
