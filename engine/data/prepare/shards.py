"""A shard: the tokens of one chunk of a source, uncut, with what the rest of the preparation needs to know of its rows.

It is a safetensors file. Its tensors are columns with an entry for each usable row, in the order of the chunk, and
`records`, the rows' tokens, each row's in one piece so that it is had with one read:

    head        five int32: row's position in the chunk, tokens before the last answer, sequences, labels, answers
    then        int32: tokens of each sequence, answers of each sequence, labels, (begin, end) of each answer
    then        the ids of all sequences, as uint16 where that can hold them, else int32, padded to four bytes

Places are relative to the chunk and its pieces, so that a chunk that moves within its file keeps its shard.
"""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.data.contents import Kind, Role
from engine.data.rows import Unit

FORMAT = 1
KINDS: tuple[Kind, ...] = ("conversation", "text", "preference", "feedback", "labelled", "similar")
ROLES: tuple[Role, ...] = ("system", "user", "assistant", "tool")
HEADWORDS = 5
TEXT_HEAD_BYTES = 4 * (HEADWORDS + 4)
"""Where the ids begin in the record of a text that is learnt in parts: one sequence, one answer, no labels."""

WORD = np.dtype("<i4")
_DTYPES = {
    "U8": "u1",
    "U16": "<u2",
    "U32": "<u4",
    "U64": "<u8",
    "I32": "<i4",
    "I64": "<i8",
    "BOOL": "?",
}


@dataclass(frozen=True, slots=True)
class ShardReject:
    """A rejected row of a chunk, placed as a ShardRow is."""

    position: int
    piece: int
    line: int
    reason: str
    excerpt: str
    unit: Unit


@dataclass(frozen=True, slots=True)
class ShardFacts:
    """What a shard says of its chunk as a whole."""

    rows: int
    """All of the chunk's, rejected ones included."""
    usable: int
    rejected: int
    id_dtype: str
    labels: tuple[str, ...]
    several_labels: bool
    shapes: tuple[str, ...]
    strata: tuple[str, ...]
    unused: tuple[str, ...]
    warnings: dict[str, int]
    personal: dict[str, int]
    """How many pieces of personal data of each kind were masked or replaced."""
    records_sha256: str
    """Of `records`: the same tokens and marks have the same."""


class Shard:
    """A shard as it is read: its facts at once, its columns and lists when they are asked for."""

    def __init__(self, path: Path):
        """Raises OSError, and ValueError for a file that is no whole shard of this format."""
        self.path = path
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            size = path.stat().st_size
            if not 0 < length < size:
                raise ValueError("not a safetensors file")
            data = file.read(length)
        self._data_begins = 8 + length
        self.size_bytes = size
        try:
            self._header: dict[str, Any] = json.loads(data)
            metadata = self._header.pop("__metadata__")
            is_whole = self._data_begins + max(each["data_offsets"][1] for each in self._header.values()) == size
            is_ours = metadata["finetui"] == str(FORMAT)
            self.facts = facts_from(json.loads(metadata["facts"]))
        except (KeyError, TypeError, AttributeError):
            raise ValueError("a header that is none of ours") from None
        if not (is_whole and is_ours):
            raise ValueError("not whole, or of another format")

    @property
    def records_begin(self) -> int:
        """Where in the file the records begin, in bytes."""
        return self._data_begins + self._header["records"]["data_offsets"][0]

    @property
    def records_bytes(self) -> int:
        begins, ends = self._header["records"]["data_offsets"]
        return ends - begins

    def is_intact(self) -> bool:
        """Whether the records are what was written, which takes reading them. Raises OSError."""
        with self.path.open("rb") as file:
            file.seek(self.records_begin)
            return hashlib.sha256(file.read(self.records_bytes)).hexdigest() == self.facts.records_sha256

    def __contains__(self, column: str) -> bool:
        return column in self._header

    def columns(self, *names: str) -> dict[str, NDArray]:
        """The columns of these names. Raises OSError."""
        with self.path.open("rb") as file:
            return {name: self._column(file, name) for name in names}

    def rejects(self) -> list[ShardReject]:
        """Raises OSError, as the others below."""
        data = self.columns("rejects")["rejects"].tobytes()
        return [ShardReject(*each) for each in json.loads(zlib.decompress(data))]

    def samples(self, rows: Collection[int]) -> dict[int, Any]:
        """What was kept of `rows`, by row; those of which nothing was kept are left out."""
        table = self.columns("sample_row", "sample_end", "sample_text")
        ends = table["sample_end"].tolist()
        return {
            row: json.loads(zlib.decompress(table["sample_text"][begins:ends].tobytes()))
            for row, begins, ends in zip(table["sample_row"].tolist(), [0, *ends], ends, strict=False)
            if row in rows
        }

    def _column(self, file: Any, name: str) -> NDArray:
        entry = self._header[name]
        begins, ends = entry["data_offsets"]
        file.seek(self._data_begins + begins)
        return np.frombuffer(file.read(ends - begins), dtype=_DTYPES[entry["dtype"]]).reshape(entry["shape"])


def read_record(
    data: bytes, id_dtype: str
) -> tuple[list[int], NDArray[np.int32], list[NDArray], list[NDArray[np.int32]]]:
    """A record's head, labels, ids of each sequence, and answer spans (answers, 2) of each sequence."""
    head = np.frombuffer(data, dtype=WORD, count=HEADWORDS)
    sequences, labels, answers = (int(count) for count in head[2:])
    words = np.frombuffer(data, dtype=WORD, count=HEADWORDS + 2 * sequences + labels + 2 * answers)[HEADWORDS:]
    tokens, answers_each = words[:sequences], words[sequences : 2 * sequences]
    spans = words[2 * sequences + labels :].reshape(-1, 2)
    ids_begin = 4 * (HEADWORDS + len(words))
    ids = np.frombuffer(data, dtype=id_dtype, count=int(tokens.sum()), offset=ids_begin)
    return (
        head.tolist(),
        words[2 * sequences : 2 * sequences + labels],
        list(_divided(ids, tokens)),
        list(_divided(spans, answers_each)),
    )


def _divided(array: NDArray, counts: NDArray) -> Iterator[NDArray]:
    begins = 0
    for count in counts.tolist():
        yield array[begins : begins + count]
        begins += count


def facts_from(said: dict[str, Any]) -> ShardFacts:
    values: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in said.items()}
    return ShardFacts(**values)
