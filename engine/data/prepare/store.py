"""Reads examples from shards, cut to length and marked for what is trained, one small read each.

Files are read rather than mapped: a mapped file that is shortened kills the process that looks at it, and the pages
of a large data set would count as memory of the training process.
"""

from __future__ import annotations

import hashlib
import os
import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from engine.data.examples import Example, Places
from engine.data.prepare.shards import TEXT_HEAD_BYTES, read_record
from engine.data.rows import shown
from profiles.problem import Problem

# Well below the 1,024 files that a process may usually have open.
_OPEN_FILES = 128


@dataclass(frozen=True, slots=True)
class StoredShard:
    """What is needed of a shard to read its examples."""

    path: Path
    records_begin: int
    records_bytes: int
    records_sha256: str
    id_dtype: str
    first_row: int
    """Position of its chunk's first row among all rows of all sources."""
    source: int
    label_ids: NDArray[np.int32]
    """The data set's number for each of the shard's labels."""


class ShardStore:
    """Reads examples of `shards`, cut to `sequence_length` tokens a sequence."""

    def __init__(self, shards: Sequence[StoredShard], sequence_length: int, train_on: str):
        self._shards, self._length, self._train_on = shards, sequence_length, train_on
        self._open: OrderedDict[int, int] = OrderedDict()
        self._is_checked = np.zeros(len(shards), dtype=np.bool_)
        self._lock = threading.Lock()

    def __del__(self) -> None:
        for descriptor in self._open.values():
            os.close(descriptor)

    def read(self, places: Places, index: int) -> Example:
        """Raises Problem when the shard is gone or damaged."""
        number = int(places.shard[index])
        offset, size = int(places.offset[index]), int(places.size_bytes[index])
        window = -1 if places.windows is None else int(places.windows[index])
        if window >= 0:
            return self._window(number, offset, window, int(places.lengths[index]))
        return self._whole(number, self._bytes(number, offset, size))

    def prompt(self, number: int, offset: int, size: int) -> tuple[int, NDArray[np.int32] | None]:
        """For the record of `size` bytes at `offset` of shard `number`: its row's position among all rows, and what
        the model is given to produce the last answer of its first sequence; None where no token of that is left."""
        shard = self._shards[number]
        head, _, ids, _ = read_record(self._bytes(number, offset, size), shard.id_dtype)
        prompt_ids = ids[0][: head[1]].astype(np.int32) if head[1] < self._length else None
        return shard.first_row + head[0], prompt_ids

    def _whole(self, number: int, data: bytes) -> Example:
        shard = self._shards[number]
        head, labels, ids, spans = read_record(data, shard.id_dtype)
        parts = [each[: self._length] for each in ids]
        # All of it is learnt of conversations alone: what is preferred or liked is an answer.
        learns_all = self._train_on == "everything" and len(parts) == 1 and not len(labels)
        masks = [self._mask(len(part), answers, learns_all) for part, answers in zip(parts, spans, strict=True)]
        return Example(
            input_ids=np.concatenate(parts).astype(np.int32),
            trained=np.concatenate(masks),
            row=shard.first_row + head[0],
            source=shard.source,
            parts=tuple(map(len, parts)) if len(parts) > 1 else (),
            labels=tuple(shard.label_ids[labels].tolist()),
        )

    def _mask(self, tokens: int, answers: NDArray[np.int32], learns_all: bool) -> NDArray[np.bool_]:
        trained = np.zeros(tokens, dtype=np.bool_)
        if len(answers) and learns_all:
            trained[:] = True
        for begins, ends in answers[-1:] if self._train_on == "last_answer" else answers:
            trained[begins:ends] = True
        trained[:1] = False
        return trained

    def _window(self, number: int, offset: int, window: int, length: int) -> Example:
        # Each begins with the last token of the one before, so that every token but the first is a target once.
        shard = self._shards[number]
        id_bytes = np.dtype(shard.id_dtype).itemsize
        position = int.from_bytes(self._bytes(number, offset, 4), "little")
        begins = offset + TEXT_HEAD_BYTES + window * (self._length - 1) * id_bytes
        ids = np.frombuffer(self._bytes(number, begins, length * id_bytes), dtype=shard.id_dtype)
        trained = np.ones(length, dtype=np.bool_)
        trained[0] = False
        return Example(ids.astype(np.int32), trained, shard.first_row + position, shard.source)

    def _bytes(self, number: int, offset: int, size: int) -> bytes:
        shard = self._shards[number]
        try:
            with self._lock:  # so that no other thread closes the file meanwhile
                data = os.pread(self._descriptor(number), size, shard.records_begin + offset)
        except OSError as error:
            raise _lost(shard.path, f"cannot be read: {error.strerror}") from None
        if len(data) < size:
            raise _lost(shard.path, "is shorter than it was")
        return data

    def _descriptor(self, number: int) -> int:
        if number in self._open:
            self._open.move_to_end(number)
        else:
            if len(self._open) >= _OPEN_FILES:
                os.close(self._open.popitem(last=False)[1])
            self._open[number] = os.open(self._shards[number].path, os.O_RDONLY | os.O_CLOEXEC)
            if not self._is_checked[number]:
                self._check(number)
        return self._open[number]

    def _check(self, number: int) -> None:
        """Raises Problem when a shard is not what was written: a disk that forgets, a copy that broke off. Reading one
        whole takes some milliseconds, once in a run."""
        shard = self._shards[number]
        data = os.pread(self._open[number], shard.records_bytes, shard.records_begin)
        if len(data) < shard.records_bytes:
            raise _lost(shard.path, "is shorter than it was")
        if hashlib.sha256(data).hexdigest() != shard.records_sha256:
            raise _lost(shard.path, "is damaged: it holds other bytes than were written")
        self._is_checked[number] = True


def _lost(path: Path, what: str) -> Problem:
    return Problem(shown(path), f"prepared data {what}", "Remove the file and start again; it is made again.")
