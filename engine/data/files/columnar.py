"""Parquet and Arrow (Feather, too): tables by columns, cut into Arrow streams of some rows each.

Values come out as JSON has them: dates and decimals as text, NaN as null. Columns of bytes are read where they hold
text, and left out where they hold anything else, such as images.
"""

from __future__ import annotations

import io
import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from engine.data.files import limits
from engine.data.files.chunk import Cut, Cuts, Fault, Layout, Parsed
from engine.data.files.class_names import class_names, with_names
from engine.data.files.columnar_files import batches_of, opened, readable_columns, told
from engine.data.files.faults import too_long
from engine.data.files.stored import StoredFile
from engine.data.quoting import quoted
from profiles.problem import printable

if TYPE_CHECKING:
    import pyarrow as pa


def cut(stored: StoredFile, layout: Layout, target_bytes: int, notes: list[str]) -> Cuts:
    """Runs of rows, each an Arrow stream. Raises Problem when the file is broken. What is left out goes to `notes`."""
    with opened(stored, layout) as table:
        columns, note = readable_columns(stored, table)
        notes.extend(note)
        names = class_names(table.schema)
        if names:
            told_columns = ", ".join(printable(name, 40) for name in names)
            notes.append(f"numbers of classes are read as the names that the file gives them: {told_columns}")
        run, offset, first, row = _Run(), 0, 1, 1
        for batch in batches_of(stored, table, columns):
            with told(stored):
                run.add(with_names(batch, names) if names else batch)
            row += batch.num_rows
            if run.size_bytes >= target_bytes:
                data, run = run.finished(), _Run()
                yield Cut(data, offset, first, first, row, stored.position_bytes, len(data))
                offset, first = offset + len(data), row
        if row > first:
            data = run.finished()
            yield Cut(data, offset, first, first, row, stored.position_bytes, len(data))


def parse(data: bytes, layout: Layout, first_line: int, text_line: int) -> Iterator[Parsed]:
    import pyarrow as pa

    stream = io.BytesIO(data)
    number = first_line
    # Only where the whole run has more than one row may have can a row have more.
    is_long = len(data) > limits.MAX_ROW_BYTES
    for batch in pa.ipc.open_stream(stream):
        for value in _values(batch):
            yield stream.tell(), number, _checked(value) if is_long and isinstance(value, dict) else value
            number += 1


class _Run:
    """Batches written as an Arrow stream as they come, so that none is held beside what is written of it."""

    def __init__(self) -> None:
        self._sink = io.BytesIO()
        self._writer: Any = None

    @property
    def size_bytes(self) -> int:
        return self._sink.tell()

    def add(self, batch: pa.RecordBatch) -> None:
        import pyarrow as pa

        self._writer = self._writer or pa.ipc.new_stream(self._sink, batch.schema)
        self._writer.write_batch(batch)

    def finished(self) -> bytes:
        import pyarrow as pa

        self._writer.close()
        pa.default_memory_pool().release_unused()  # which it does by itself only late, at several times what it needs
        return self._sink.getvalue()


def _values(batch: pa.RecordBatch) -> Iterator[dict[str, Any] | Fault]:
    try:
        rows = [_plain(row) for row in batch.to_pylist()]
    except Exception:
        # One value spoils the whole batch: text that is not UTF-8, a date before the year 1, an unknown time zone.
        for index in range(batch.num_rows):
            yield _value(batch.slice(index, 1))
    else:
        yield from rows


def _value(row: pa.RecordBatch) -> dict[str, Any] | Fault:
    found: dict[str, Any] = {}
    for name, column in zip(row.schema.names, row.columns, strict=True):
        try:
            found[name] = _plain(column[0].as_py())
        except UnicodeDecodeError:
            return Fault(f"has bytes that are not UTF-8 in `{printable(name)}`", printable(found))
        except Exception as error:  # whatever pyarrow and the calendar raise for a value that Python has none for
            reason = f"has a value in `{printable(name)}` that cannot be read: {quoted(error, 80)}"
            return Fault(reason, printable(found))
    return found


def _plain(value: Any) -> Any:
    """`value` as JSON would have it. Raises UnicodeDecodeError for bytes that are no text."""
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {str(key): _plain(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_plain(each) for each in value]
    if isinstance(value, tuple):  # a map's entry
        return [_plain(each) for each in value]
    if isinstance(value, bytes):
        return value.decode()
    return value.isoformat() if hasattr(value, "isoformat") else str(value)


def _checked(row: dict[str, Any]) -> dict[str, Any] | Fault:
    size = _characters(row)
    return Fault(too_long(size), "") if size > limits.MAX_ROW_BYTES else row


def _characters(value: Any) -> int:
    if isinstance(value, str):
        return len(value)
    if isinstance(value, dict):
        return sum(map(_characters, value.values()))
    return sum(map(_characters, value)) if isinstance(value, list) else 0
