"""Writes shards; engine.data.prepare.shards says what is in them."""

from __future__ import annotations

import hashlib
import json
import struct
import zlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, astuple, dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save

from engine.data.contents import Kind, Role
from engine.data.prepare.shards import FORMAT, KINDS, ROLES, WORD, ShardFacts, ShardReject
from engine.run.durable_files import write_atomically


@dataclass(frozen=True, slots=True)
class ShardRow:
    """A usable row on its way into a shard."""

    position: int
    """Among all rows of the chunk, rejected ones included, from 0."""
    piece: int
    """Which piece of the chunk it is in."""
    line: int
    """Less the piece's first line."""
    digest: int
    kind: Kind
    shape: str
    windows: bool
    sequences: Sequence[tuple[NDArray[np.int32], Sequence[tuple[int, int]]]]
    """Ids, and where the answers stand in them."""
    prompt_tokens: int
    labels: tuple[str, ...]
    altered: tuple[Role, ...]
    group: int
    stratum: str


def write_shard(
    path: Path,
    rows: Sequence[ShardRow],
    rejects: Sequence[ShardReject],
    samples: Mapping[int, Any],
    *,
    columns: dict[str, NDArray],
    several_labels: bool,
    unused: set[str],
    warnings: Counter[str],
    personal: Counter[str],
) -> ShardFacts:
    """Write a chunk's shard, whole or not at all. Raises OSError.

    `samples` are JSON values kept for some of the rows, by position in `rows`; `columns` are further ones with an
    entry a row.
    """
    labels, shapes, strata = (_Numbered() for _ in range(3))
    sequences = [sequence for row in rows for sequence in row.sequences]
    every_id = np.concatenate([np.zeros(0, np.int32), *(ids for ids, _ in sequences)])
    id_dtype = np.dtype("<u2" if every_id.max(initial=0) < 2**16 else "<i4")
    records = _records(rows, labels, memoryview(every_id.astype(id_dtype).tobytes()), id_dtype.itemsize)
    sizes = np.array([len(record) for record in records], dtype=np.int64)
    assert sizes.sum() < 2**32, "a chunk's records are addressed with 32 bits"
    joined = b"".join(records)
    tensors = {
        "position": np.array([row.position for row in rows], dtype=np.uint32),
        "piece": np.array([row.piece for row in rows], dtype=np.uint32),
        "line": np.array([row.line for row in rows], dtype=np.uint32),
        "digest": np.array([row.digest for row in rows], dtype=np.uint64),
        "kind": np.array([KINDS.index(row.kind) for row in rows], dtype=np.uint8),
        "shape": np.array([shapes[row.shape] for row in rows], dtype=np.uint16),
        "windows": np.array([row.windows for row in rows], dtype=np.bool_),
        "altered": np.array([sum(1 << ROLES.index(role) for role in row.altered) for row in rows], dtype=np.uint8),
        "group": np.array([row.group for row in rows], dtype=np.uint64),
        "stratum": np.array([strata[row.stratum] for row in rows], dtype=np.uint32),
        "offset": (np.cumsum(sizes) - sizes).astype(np.uint32),
        "size": sizes.astype(np.uint32),
        "sequences": np.array([len(row.sequences) for row in rows], dtype=np.uint32),
        "tokens": np.array([len(ids) for ids, _ in sequences], dtype=np.int32),
        "answers": np.array([len(spans) for _, spans in sequences], dtype=np.uint32),
        "spans": np.array([span for _, spans in sequences for span in spans], dtype=np.int32).reshape(-1, 2),
        **columns,
        "records": np.frombuffer(joined, dtype=np.uint8),
        "rejects": _packed([astuple(each) for each in rejects]),
        **_sample_tensors(samples),
    }
    facts = ShardFacts(
        rows=len(rows) + len(rejects),
        usable=len(rows),
        rejected=len(rejects),
        id_dtype=id_dtype.str,
        labels=labels.names,
        several_labels=several_labels,
        shapes=shapes.names,
        strata=strata.names,
        unused=tuple(sorted(unused)),
        warnings=dict(warnings),
        personal=dict(personal),
        records_sha256=hashlib.sha256(joined).hexdigest(),
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, save(tensors, metadata={"finetui": str(FORMAT), "facts": json.dumps(asdict(facts))}))
    return facts


def _records(rows: Sequence[ShardRow], labels: _Numbered, every_id: memoryview, id_bytes: int) -> list[bytes]:
    """The record of each row; `every_id` are the ids of all of them, one behind the other, of `id_bytes` each."""
    records, at = [], 0
    for row in rows:
        spans = [span for _, spans in row.sequences for span in spans]
        lengths = [len(ids) for ids, _ in row.sequences]
        words = [
            *(row.position, row.prompt_tokens, len(row.sequences), len(row.labels), len(spans)),
            *lengths,
            *(len(spans) for _, spans in row.sequences),
            *(labels[label] for label in row.labels),
            *chain.from_iterable(spans),
        ]
        size = sum(lengths) * id_bytes
        head = struct.pack(f"<{len(words)}i", *words)
        records.append(b"".join((head, every_id[at : at + size], b"\x00" * (-size % WORD.itemsize))))
        at += size
    return records


class _Numbered:
    """Names by number, in the order in which they were first asked for."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}

    def __getitem__(self, name: str) -> int:
        return self._numbers.setdefault(name, len(self._numbers))

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self._numbers)


def _sample_tensors(samples: Mapping[int, Any]) -> dict[str, NDArray]:
    """Packed one by one, so that a few are had without unpacking all."""
    texts = [_packed(value) for value in samples.values()]
    return {
        "sample_row": np.array(list(samples), dtype=np.uint32),
        "sample_end": np.cumsum([len(text) for text in texts], dtype=np.uint32),
        "sample_text": np.concatenate([np.zeros(0, np.uint8), *texts]),
    }


def _packed(value: Any) -> NDArray[np.uint8]:
    # Level 1: three times as fast as the usual level, and an eighth larger. A row's text seldom repeats what is farther
    # back than this window, and to clear the usual one for each row takes twice as long as to compress it.
    packer = zlib.compressobj(1, wbits=13, memLevel=6)
    return np.frombuffer(packer.compress(json.dumps(value).encode()) + packer.flush(), dtype=np.uint8)
