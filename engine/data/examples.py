"""Training examples: token ids with a mark on every token that is learnt, read from disk as they are asked for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Protocol, overload

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, eq=False)
class Example:
    """What a model learns from at once. Lengths are in tokens; a target is predicted from the tokens before it, so
    the first token of a sequence never is one."""

    input_ids: NDArray[np.int32]
    """(tokens,): its sequences one after another."""
    trained: NDArray[np.bool_]
    """(tokens,): whether the token is a target."""
    row: int
    """Position of its row among all rows of all sources, from 0. The parts of a long text share it."""
    source: int = 0
    """Which of the sources it came from, in the order of the spec; a held-out file comes after those trained on."""
    parts: tuple[int, ...] = ()
    """Lengths of its sequences where a row has more than one: (chosen, rejected), (anchor, positive, negatives...)."""
    labels: tuple[int, ...] = ()
    """Its classes, as positions in the data set's labels; for feedback (1,) where the answer was liked, else (0,)."""

    def __len__(self) -> int:
        return len(self.input_ids)


@dataclass(frozen=True, slots=True, eq=False)
class Places:
    """Where examples lie, one entry each in every array: what is held in memory of millions of examples."""

    shard: NDArray[np.int32]
    offset: NDArray[np.uint32]
    """Of its row's record within the shard's records, in bytes."""
    size_bytes: NDArray[np.uint32]
    """Of its row's record."""
    lengths: NDArray[np.int32]
    sources: NDArray[np.int16]
    windows: NDArray[np.int32] | None = None
    """Which part of a text it is, from 0; -1 for rows that are not learnt in parts. None: no row is."""

    def __len__(self) -> int:
        return len(self.lengths)

    def at(self, index: slice | NDArray) -> Places:
        """Those that `index` selects; a slice shares memory."""
        chosen = {each.name: getattr(self, each.name) for each in fields(self)}
        return replace(self, **{name: array[index] for name, array in chosen.items() if array is not None})


class ExampleStore(Protocol):
    """Reads one example. Safe to call from several threads."""

    def read(self, places: Places, index: int) -> Example: ...


class Examples(Sequence[Example]):
    """Examples that are read when they are asked for: `examples[3]` reads one; a slice, an index array or a mask
    gives Examples again, which hold no more than their places. Safe to use from several threads.
    """

    def __init__(self, store: ExampleStore, places: Places):
        self._store, self._places = store, places

    @property
    def lengths(self) -> NDArray[np.int32]:
        """(examples,): tokens of each, all of its sequences together."""
        return self._places.lengths

    @property
    def sources(self) -> NDArray[np.int16]:
        """(examples,): `Example.source` of each."""
        return self._places.sources

    def __len__(self) -> int:
        return len(self._places)

    @overload
    def __getitem__(self, index: int | np.integer) -> Example: ...
    @overload
    def __getitem__(self, index: slice | NDArray | list[int]) -> Examples: ...
    def __getitem__(self, index: int | np.integer | slice | NDArray | list[int]) -> Example | Examples:
        if isinstance(index, int | np.integer):
            position = int(index)
            if not -len(self) <= position < len(self):
                raise IndexError(f"example {position} of {len(self)}")
            return self._store.read(self._places, position % len(self))
        if isinstance(index, list):
            index = np.asarray(index, dtype=np.int64)
        return Examples(self._store, self._places.at(index))

    @classmethod
    def of(cls, examples: Sequence[Example]) -> Examples:
        """Examples that were made by hand, held in memory."""
        zeros = np.zeros(len(examples), dtype=np.uint32)
        return cls(
            _Held(tuple(examples)),
            Places(
                shard=np.arange(len(examples), dtype=np.int32),
                offset=zeros,
                size_bytes=zeros,
                lengths=np.array([len(each) for each in examples], dtype=np.int32),
                sources=np.array([each.source for each in examples], dtype=np.int16),
            ),
        )


@dataclass(frozen=True)
class _Held:
    examples: tuple[Example, ...]

    def read(self, places: Places, index: int) -> Example:
        return self.examples[places.shard[index]]
