"""Names of classes that a table stores as numbers: Hugging Face's datasets write them into the schema's metadata."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pyarrow as pa

_KEY = b"huggingface"
_LARGEST_BYTES = 1 << 24


def class_names(schema: pa.Schema) -> dict[str, list[str]]:
    """The names of the classes of each column of class numbers; none where nothing is told that can be understood."""
    written = (schema.metadata or {}).get(_KEY, b"")
    if not written or len(written) > _LARGEST_BYTES:
        return {}
    try:
        features = json.loads(written)["info"]["features"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return {}
    if not isinstance(features, Mapping):
        return {}
    found = {str(column): _names(feature) for column, feature in features.items()}
    return {column: names for column, names in found.items() if names and column in schema.names}


def with_names(batch: pa.RecordBatch, names: Mapping[str, list[str]]) -> pa.RecordBatch:
    """`batch` with the classes' names in place of their numbers; a number without a name (-1 is "not labelled")
    becomes null."""
    import pyarrow as pa

    for column, known in names.items():
        at = batch.schema.get_field_index(column)
        if at < 0:
            continue
        values = batch.column(at)
        if pa.types.is_integer(values.type):
            named: pa.Array = _named(values.to_pylist(), known)
        elif pa.types.is_list(values.type) and pa.types.is_integer(values.type.value_type):
            rows = values.to_pylist()
            named = pa.array(
                [None if row is None else _named(row, known).to_pylist() for row in rows], pa.list_(pa.string())
            )
        else:
            continue
        batch = batch.set_column(at, column, named)
    return batch


def _named(numbers: list[int | None], known: list[str]) -> pa.Array:
    import pyarrow as pa

    return pa.array(
        [known[number] if number is not None and 0 <= number < len(known) else None for number in numbers], pa.string()
    )


def _names(feature: Any) -> list[str]:
    """Of a ClassLabel, or of a list of them in any of the forms that datasets has written."""
    if isinstance(feature, list) and len(feature) == 1:
        feature = feature[0]
    if isinstance(feature, Mapping) and feature.get("_type") in ("Sequence", "List", "LargeList"):
        feature = feature.get("feature")
    if not isinstance(feature, Mapping) or feature.get("_type") != "ClassLabel":
        return []
    names = feature.get("names")
    return names if isinstance(names, list) and all(isinstance(name, str) for name in names) else []
