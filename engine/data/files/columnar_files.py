"""Parquet and Arrow files opened, and their rows some at a time, however large the groups they are stored in."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.data.files.chunk import Layout
from engine.data.files.limits import BLOCK_BYTES
from engine.data.files.opening import open_regular
from engine.data.files.packed import Unpacker
from engine.data.files.stored import StoredFile
from engine.data.rows import shown
from engine.seal.policy.caches import scratch
from profiles.problem import Problem, printable

if TYPE_CHECKING:
    import pyarrow as pa

# What is decoded at once: 4 MiB of rows as stored, and at most 1,024 of them, since a dictionary may make each row of
# a small file as long as its longest.
_BATCH_BYTES = 4 * 2**20
_BATCH_ROWS = 1024
# A column of bytes is taken for text when its first values are.
_VALUES_LOOKED_AT = 64
_REDO = "Download or export the file again."


@dataclass(frozen=True)
class Table:
    schema: pa.Schema
    batches: Callable[[list[str]], Iterator[pa.RecordBatch]]
    """Of these columns."""
    done: Callable[[], float]
    """Share of the file that has been read."""


@contextmanager
def opened(stored: StoredFile, layout: Layout) -> Iterator[Table]:
    """The table in a file; a packed one is unpacked to a nameless file in the cache's folder, since both formats keep
    their index at the end. Raises Problem when it is broken."""
    with ExitStack() as stack:
        file = stack.enter_context(_unpacked(stored, layout.packing) if layout.packing else open_regular(stored.path))
        with told(stored):
            table = _parquet(file) if layout.format == "parquet" else _arrow(stored, layout, file, stack)
        yield table


@contextmanager
def told(stored: StoredFile) -> Iterator[None]:
    """What pyarrow raises for a broken file becomes a Problem."""
    import pyarrow as pa

    try:
        yield
    except MemoryError:
        raise Problem(shown(stored.path), "asks for more memory than there is, as broken files do", _REDO) from None
    except (pa.ArrowException, OSError, ValueError, KeyError, IndexError) as error:
        reason = printable(str(error).split("\n")[0].split(". ")[0].rstrip("."), 160)
        raise Problem(shown(stored.path), f"is broken or cut off: {reason}", _REDO) from None


def readable_columns(stored: StoredFile, table: Table) -> tuple[list[str], list[str]]:
    """The columns that hold text, numbers or lists of them, and a note on those left out. Raises Problem."""
    with told(stored):
        names = list(table.schema.names)
        in_doubt = [field.name for field in table.schema if _has_bytes(field.type)]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise Problem(shown(stored.path), f"has two columns called {printable(twice[0], 40)}", "Rename one of them.")
    left_out: list[str] = []
    if in_doubt:
        with told(stored):
            first = next(table.batches(in_doubt), None)
            values = [] if first is None else first.slice(0, _VALUES_LOOKED_AT).to_pylist()
        left_out = [name for name in in_doubt if not all(_is_text(row[name]) for row in values)]
    columns = [name for name in names if name not in left_out]
    if not columns:
        raise Problem(shown(stored.path), "has no column of text or numbers", "Give a table with text.")
    told_names = ", ".join(printable(name, 40) for name in left_out)
    return columns, [f"columns of bytes that hold no text are left out: {told_names}"] if left_out else []


def batches_of(stored: StoredFile, table: Table, columns: list[str]) -> Iterator[pa.RecordBatch]:
    """All rows, some at a time; the stored file is hashed in step. Raises Problem when it is broken or changes."""
    batches = table.batches(columns)
    while True:
        # A file that is mapped and became shorter would end the process.
        stored.refuse_if_changed()
        with told(stored):
            batch = next(batches, None)
        if batch is None:
            return
        while stored.position_bytes < table.done() * stored.size_bytes and stored.read(BLOCK_BYTES):
            pass
        if batch.num_rows:
            yield batch


def _parquet(file: Any) -> Table:
    import pyarrow.parquet as pq

    # Buffered, so that a column is decoded page by page; a row group may be larger than memory.
    parquet = pq.ParquetFile(file, buffer_size=BLOCK_BYTES, pre_buffer=False)
    metadata = parquet.metadata
    rows, done = max(1, metadata.num_rows), 0
    groups = [metadata.row_group(index) for index in range(metadata.num_row_groups)]
    row_bytes = max((group.total_byte_size / max(1, group.num_rows) for group in groups), default=1.0)
    batch_rows = max(1, min(_BATCH_ROWS, int(_BATCH_BYTES / max(1.0, row_bytes))))

    def batches(columns: list[str]) -> Iterator[pa.RecordBatch]:
        nonlocal done
        done = 0
        wanted = None if len(columns) == len(parquet.schema_arrow.names) else columns
        for batch in parquet.iter_batches(batch_rows, columns=wanted, use_threads=False):
            done += batch.num_rows
            yield batch

    return Table(parquet.schema_arrow, batches, lambda: done / rows)


def _arrow(stored: StoredFile, layout: Layout, file: Any, stack: ExitStack) -> Table:
    import pyarrow as pa

    # Mapped, since some programs write one batch of any size. What was unpacked has no name to be mapped by.
    source = pa.PythonFile(file, mode="r") if layout.packing else pa.memory_map(os.fsdecode(stored.path))
    stack.enter_context(source)
    is_file = file.read(6) == b"ARROW1"
    file.seek(0)
    opened_file = pa.ipc.open_file(source) if is_file else None
    schema = opened_file.schema if opened_file else pa.ipc.open_stream(source).schema
    done = 0.0

    def whole() -> Iterator[pa.RecordBatch]:
        nonlocal done
        if opened_file:
            for index in range(opened_file.num_record_batches):
                yield opened_file.get_batch(index)
                done = (index + 1) / opened_file.num_record_batches
            return
        source.seek(0)
        for batch in pa.ipc.open_stream(source):
            yield batch
            done = source.tell() / max(1, stored.size_bytes)

    def batches(columns: list[str]) -> Iterator[pa.RecordBatch]:
        for batch in whole():
            batch.validate(full=True)  # Arrow trusts what it reads, and offsets that lie would be followed anywhere
            chosen = batch.select(columns)
            rows = max(1, min(_BATCH_ROWS, _BATCH_BYTES * chosen.num_rows // max(1, chosen.nbytes)))
            for start in range(0, chosen.num_rows, rows):
                yield chosen.slice(start, rows)

    return Table(schema, batches, lambda: min(1.0, done))


@contextmanager
def _unpacked(stored: StoredFile, packing: str) -> Iterator[Any]:
    folder, unpacker = scratch(), Unpacker(stored, packing)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 (it is handed on)
    except OSError as error:
        raise _no_room(folder, stored, error) from None
    with file:
        while data := unpacker.read(BLOCK_BYTES):
            try:
                file.write(data)
            except OSError as error:
                raise _no_room(folder, stored, error) from None
        file.seek(0)
        yield file


def _no_room(folder: Path, stored: StoredFile, error: OSError) -> Problem:
    what = f"cannot hold what {shown(stored.path)} unpacks to: {error.strerror}"
    return Problem(shown(folder), what, "Make room, or unpack the file yourself.")


def _has_bytes(kind: pa.DataType) -> bool:
    import pyarrow as pa

    types = pa.types
    if any(check(kind) for check in (types.is_binary, types.is_large_binary, types.is_fixed_size_binary)):
        return True
    if types.is_binary_view(kind):
        return True
    if types.is_dictionary(kind):
        return _has_bytes(kind.value_type)
    return any(_has_bytes(kind.field(index).type) for index in range(kind.num_fields))


def _is_text(value: Any) -> bool:
    if isinstance(value, bytes):
        try:
            return "\x00" not in value.decode()
        except UnicodeDecodeError:
            return False
    if isinstance(value, dict):
        return all(map(_is_text, value.values()))
    return all(map(_is_text, value)) if isinstance(value, list | tuple) else True
