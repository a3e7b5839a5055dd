"""The rows of a source one by one, as they will be understood, for looking at them and searching them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from engine.data.contents import Content
from profiles.problem import printable
from tui.widgets.data.content import classes_of, parts_of, snippet

FILTERS = ("all", "set aside", "long", "personal")
"""What the sample may be narrowed to, besides each class of the data."""
CHARACTERS_PER_TOKEN = 4
"""For telling a long row before its tokens are counted."""


PersonalSpan = tuple[int, int, str]
"""Where a piece of personal data begins and ends in a text, and what people call its kind."""


@dataclass(frozen=True, slots=True)
class SampleRow:
    """One row: what it holds, or why it is set aside."""

    line: int
    content: Content | None
    reason: str = ""
    excerpt: str = ""
    unit: str = "line"

    @property
    def characters(self) -> int:
        return sum(map(len, self.content.texts())) if self.content is not None else 0

    @property
    def beginning(self) -> str:
        """What the row says, on one line."""
        return snippet(self.content) if self.content is not None else printable(self.excerpt, 200)

    def has_words(self, words: str) -> bool:
        """Whether every one of the words, whatever their case, stands somewhere in the row."""
        if self.content is None:
            text = f"{self.reason} {self.excerpt}"
        else:
            text = "\n".join(part.text for part in parts_of(self.content))
        folded = text.casefold()
        return all(word in folded for word in words.casefold().split())


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which rows are shown."""

    filter: str = "all"
    words: str = ""
    lines: frozenset[int] = frozenset()
    """Only these, when there are any."""
    sequence_length: int = 1024
    has_personal: Callable[[str], bool] = field(default=lambda text: False, compare=False)

    @property
    def is_all(self) -> bool:
        return self.filter == "all" and not self.words and not self.lines

    def takes(self, row: SampleRow) -> bool:
        return self._passes(row) and (not self.words or row.has_words(self.words))

    def _passes(self, row: SampleRow) -> bool:
        if self.lines:
            return row.line in self.lines
        if self.filter == "all":
            return True
        if self.filter == "set aside":
            return row.content is None
        if row.content is None:
            return False
        if self.filter == "long":
            return row.characters > self.sequence_length * CHARACTERS_PER_TOKEN
        if self.filter == "personal":
            return any(self.has_personal(text) for text in row.content.texts())
        return self.filter in classes_of(row.content)


@dataclass(frozen=True, slots=True)
class RowsRead:
    """Some rows that were found, and how much of the source has been looked through."""

    rows: tuple[SampleRow, ...]
    share: float
    done: bool = False


def search(
    rows: Iterator[tuple[SampleRow, float]], wanted: Wanted, limit: int, is_cancelled: Callable[[], bool]
) -> Iterator[RowsRead]:
    """The first `limit` wanted rows, in portions as they are found, and every percent even without any.

    `rows` gives each row with the share of the source that was read up to it.
    """
    found: list[SampleRow] = []
    told, count, share = 0.0, 0, 0.0
    for row, share in rows:
        if is_cancelled():
            return
        if wanted.takes(row):
            found.append(row)
            count += 1
        if count == (len(wanted.lines) or limit):
            break
        if share - told >= 0.01 or len(found) == 100:
            yield RowsRead(tuple(found), share)
            found, told = [], share
    yield RowsRead(tuple(found), share, done=True)
