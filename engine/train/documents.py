"""Where the documents of a micro-batch lie among its flattened hidden states."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from engine.data.examples import Example


def document_ids(examples: Sequence[Example]) -> list[NDArray[np.int32]]:
    """The token ids of every document of `examples`, in order; an example without parts is one document."""
    documents = []
    for example in examples:
        documents.extend(
            np.split(example.input_ids, np.cumsum(example.parts)[:-1]) if example.parts else [example.input_ids]
        )
    return documents


def document_offsets(lengths: Sequence[int], *, padded: bool) -> NDArray[np.int64]:
    """Where each document begins among the flattened states of its batch."""
    if padded:
        return np.arange(len(lengths), dtype=np.int64) * max(lengths)
    return np.cumsum([0, *lengths[:-1]], dtype=np.int64)


def end_position(ids: NDArray[np.int32], padding_id: int | None) -> int:
    """Where transformers' classification heads read a document: its last token that is not `padding_id`, or else 0."""
    others = np.flatnonzero(ids != padding_id) if padding_id is not None else np.arange(len(ids))
    return int(others[-1]) if len(others) else 0


def target_owners(examples: Sequence[Example]) -> NDArray[np.int64]:
    """For every target token of `examples`, in order, the document that it belongs to."""
    lengths = [length for example in examples for length in example.parts or (len(example),)]
    trained = np.concatenate([example.trained for example in examples])
    return np.repeat(np.arange(len(lengths), dtype=np.int64), lengths)[trained]
