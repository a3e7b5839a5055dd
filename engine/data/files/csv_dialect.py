"""How a table of text is written: its delimiter, its quotes and whether it begins with names of columns."""

from __future__ import annotations

import contextlib
import csv
import io
import itertools
import re
from collections import Counter
from dataclasses import dataclass

_DELIMITERS = (",", "\t", ";", "|", "\x01")
_RECORDS_LOOKED_AT = 200
# What is taken for a column's name: as long as this, and not a sentence.
_LONGEST_NAME = 64
_MOST_NAME_WORDS = 5
_NUMBER = re.compile(r"[-+]?[\d.,\s]*\d[\d.,\s]*%?")
_SEPARATOR_LINE = re.compile(r"sep=([^\w\s\"']|\t)\r?\n")
"""With which Excel says what the delimiter is."""


@dataclass(frozen=True, slots=True)
class Dialect:
    delimiter: str
    quote: str
    has_backslashed_quotes: bool
    records: int
    """Looked at."""
    fields: int
    """Of most records."""
    agreement: float
    """Share of the records that have so many."""

    @property
    def is_table(self) -> bool:
        return self.fields > 1 and self.agreement == 1.0


def dialect_of(text: str, is_whole: bool, delimiter: str = "auto") -> Dialect:
    """Of a table that begins with `text`; `delimiter` as the person says it."""
    said = _SEPARATOR_LINE.match(text)
    if said:
        text = text[said.end() :]
        delimiter = said.group(1) if delimiter == "auto" else delimiter
    backslashed = '\\"' in text and '""' not in text.replace('\\"', "").replace(',""', "")
    quote = _quote_of(text)
    candidates = _DELIMITERS if delimiter == "auto" else (delimiter,)
    tried = [_tried(text, is_whole, each, quote, backslashed) for each in candidates]
    return max(tried, key=lambda found: (found.fields > 1, round(found.agreement, 1), found.fields))


def separator_line(text: str) -> bool:
    """Whether the first line only says what the delimiter is."""
    return _SEPARATOR_LINE.match(text) is not None


def header_of(cells: list[str]) -> bool:
    """Whether the first record is names of columns rather than a row."""
    names = [cell.strip() for cell in cells]
    given = [name for name in names if name]
    return bool(given) and not any(
        len(name) > _LONGEST_NAME
        or "\n" in name
        or name.endswith((".", "?", "!"))
        or len(name.split()) > _MOST_NAME_WORDS
        or _NUMBER.fullmatch(name)
        for name in given
    )


def unescaped(lines: str) -> str:
    """Quotes written with a backslash, written twice as the parser wants them. Other backslashes stay."""
    return lines.replace('\\"', '""')


def _quote_of(text: str) -> str:
    """A single quote where the first line is enclosed in them, else the usual double quote."""
    first = text.lstrip().split("\n", 1)[0].strip()
    return "'" if len(first) > 1 and first[0] == first[-1] == "'" and '"' not in first else '"'


def _tried(text: str, is_whole: bool, delimiter: str, quote: str, backslashed: bool) -> Dialect:
    text = unescaped(text) if backslashed else text
    if not is_whole:
        text = text[: text.rfind("\n") + 1] or text  # the last line may be cut
    counts: list[int] = []
    reader = csv.reader(io.StringIO(text, newline="\n"), delimiter=delimiter, quotechar=quote)
    # A fault ends the look; the records before it tell enough, and reading tells of the fault itself.
    with contextlib.suppress(csv.Error):
        for record in itertools.islice(reader, _RECORDS_LOOKED_AT):
            if record:
                counts.append(len(record))
    if len(counts) > 1 and not is_whole:
        counts.pop()  # an open quote takes the rest into the last record
    fields, count = Counter(counts).most_common(1)[0] if counts else (0, 0)
    return Dialect(delimiter, quote, backslashed, len(counts), fields, count / len(counts) if counts else 0.0)
