"""What is not as it was at a checkpoint: told field by field, and refused unless a person says to go on."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

from engine.run.endings.causes import ChangedSince
from profiles.problem import printable

# More than this many fields no longer fit into a sentence that a person reads.
_TOLD_CHANGES = 6
_VALUE_CHARACTERS = 60
_SHA256 = re.compile(r"\b([0-9a-f]{12})[0-9a-f]{52}\b")


@dataclass(frozen=True, slots=True)
class Change:
    """One circumstance that is not as it was."""

    field: str
    was: str
    now: str

    @property
    def text(self) -> str:
        """It in words, hashes cut to what tells them apart."""
        return f"{printable(self.field)} was {_shown(self.was)}, is {_shown(self.now)}"

    def as_dict(self) -> dict[str, str]:
        """Its fields by name, for the `continued` event."""
        return asdict(self)


def changes(saved: Mapping[str, str], now: Mapping[str, str]) -> list[Change]:
    """What differs between the circumstances of a checkpoint and those of `now`, in the order of `saved`. Fields that
    only one of them knows are no changes: they come and go with versions of finetui, which are told by themselves."""
    return [Change(field, was, now[field]) for field, was in saved.items() if field in now and now[field] != was]


def changes_text(changed: Sequence[Change]) -> str:
    """The changes in words, the first six of them."""
    told = [each.text for each in changed[:_TOLD_CHANGES]]
    more = len(changed) - len(told)
    return "; ".join(told) + (f"; and {more} more" if more else "")


def changed_since(run_name: str, step: int, changed: Sequence[Change]) -> ChangedSince:
    """The refusal to go on from the checkpoint of `step`."""
    it = "it" if len(changed) == 1 else "them"
    return ChangedSince(
        run_name,
        f"cannot go on exactly from the checkpoint of step {step}: {changes_text(changed)}",
        f"Put {it} back as before, or go on all the same: `finetui resume {run_name} --anyway`.",
    )


def _shown(value: str) -> str:
    return printable(_SHA256.sub(r"\1…", value), _VALUE_CHARACTERS)
