"""What became of a layer, before it is a line of the report."""

from __future__ import annotations


class Missing(Exception):
    """A layer cannot hold: why, as the end of a sentence, and what an administrator may do, if anything."""

    def __init__(self, why: str, fix: str = ""):
        super().__init__(why, fix)
        self.why, self.fix = why, fix


class Outcome:
    """A layer that holds; `gaps` are the parts of it that do not, each the end of a sentence."""

    def __init__(self) -> None:
        self.detail: dict[str, object] = {}
        self.gaps: list[str] = []
