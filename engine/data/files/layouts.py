"""What a file is, told from its first bytes, its name and what the person said."""

from __future__ import annotations

import csv
import io
from collections import Counter
from dataclasses import replace
from pathlib import Path

from engine.data.files.chunk import FoundFormat, Layout
from engine.data.files.csv_dialect import dialect_of, header_of, separator_line, unescaped
from engine.data.files.encodings import Encoding, encoding_of
from engine.data.files.json_plan import records_of
from engine.data.files.limits import HEAD_BYTES
from engine.data.files.packed import Unpacker, packing_of
from engine.data.files.signatures import refuse_other_kinds
from engine.data.files.sniffing import text_format_of
from engine.data.files.stored import StoredFile
from engine.data.rows import shown
from engine.data.source import Source
from profiles.problem import Problem, printable

_COLUMNAR: tuple[tuple[bytes, FoundFormat], ...] = (
    (b"PAR1", "parquet"),
    (b"ARROW1", "arrow"),
    (b"\xff\xff\xff\xff", "arrow"),
)
_PACKED_NAMES = (".gz", ".zst", ".zstd", ".bz2", ".xz")


def layout_of(stored: StoredFile, source: Source) -> tuple[Layout, tuple[str, ...]]:
    """How `stored` is to be read, and what is worth saying about that. Raises Problem."""
    if not stored.size_bytes:
        raise Problem(shown(stored.path), "is empty", "Give a file with at least one row.")
    packing = packing_of(stored.head(HEAD_BYTES))
    notes = [f"the file is packed ({packing}) and unpacked as it is read"] if packing else []
    head, is_whole = _unpacked_head(stored.path, packing) if packing else _head(stored)
    if not head:
        raise Problem(shown(stored.path), "is empty once it is unpacked", "Give a file with at least one row.")
    if inner := packing_of(head):
        raise Problem(shown(stored.path), f"holds another packed file ({inner})", "Unpack it and give what is inside.")
    found = next((name for magic, name in _COLUMNAR if head.startswith(magic)), None)
    if source.format in ("parquet", "arrow") and found != source.format:
        begins = printable(head[:8].decode("latin-1"))
        raise Problem(
            shown(stored.path),
            f"is said to be {source.format.title()}, but begins with {begins}",
            "Leave the source's format out.",
        )
    if found is not None and source.format in ("auto", found):
        return Layout(found, packing), tuple(notes)
    refuse_other_kinds(stored.path, head, bool(packing))
    encoding = encoding_of(stored, head, source.encoding)
    if encoding.note:
        notes.append(encoding.note)
    layout, more = _text_layout(stored.path, head, is_whole, packing, encoding, source)
    return layout, (*notes, *more)


def suffix_of(path: Path) -> str:
    """Of the name without what says that it is packed, in lower case: ".csv" for "Rows.CSV.gz"."""
    path = path.with_suffix("") if path.suffix.lower() in _PACKED_NAMES else path
    return path.suffix.lower()


def _text_layout(
    path: Path, head: bytes, is_whole: bool, packing: str, encoding: Encoding, source: Source
) -> tuple[Layout, list[str]]:
    layout = Layout("text", packing, encoding.name, encoding.skipped_bytes)
    text = _text(head, encoding)
    found = source.format
    if found == "auto":
        found = text_format_of(text, suffix_of(path), is_whole)
        if found == "text" and "\x00" in text:
            raise Problem(shown(path), "holds binary data of a kind that finetui does not know", "Give text or rows.")
    assert found not in ("auto", "parquet", "arrow")
    line_end = "\r" if "\r" in text.rstrip("\r") and "\n" not in text else "\n"
    if found == "jsonl":
        return replace(layout, format="jsonl"), []
    if found == "json":
        records = records_of(path, text.encode(errors="surrogatepass"), is_whole, source.records)
        where = [f"rows are taken from the list at {printable('.'.join(records))}"] if records else []
        return replace(layout, format="json", records=records), where
    if found == "csv":
        return _table(replace(layout, format="csv", line_end=line_end), text, is_whole, path, source)
    layout = replace(layout, format=found, line_end=line_end)
    front = _front_matter(text) if found == "markdown" else 0
    notes = ["front matter in Markdown is left out"] if front else []
    return replace(layout, header_lines=front), notes


def _table(layout: Layout, text: str, is_whole: bool, path: Path, source: Source) -> tuple[Layout, list[str]]:
    if source.delimiter != "auto" and (len(source.delimiter) != 1 or source.delimiter in "\0\r\n\"'"):
        raise Problem(
            f"the delimiter of {shown(path)}", f"is {printable(source.delimiter)!r}, not one character", "Try , or ;."
        )
    if layout.line_end == "\r":
        text = text.replace("\r", "\n")
    dialect = dialect_of(text, is_whole, source.delimiter)
    lines = io.StringIO(text, newline="\n")
    skipped = 1 if separator_line(text) else 0
    if skipped:
        lines.readline()
    reader = csv.reader(
        (unescaped(line) if dialect.has_backslashed_quotes else line for line in lines),
        delimiter=dialect.delimiter,
        quotechar=dialect.quote,
    )
    try:
        first = next((record for record in reader if any(cell.strip() for cell in record)), [])
    except csv.Error as error:
        raise Problem(shown(path), f"has a first line that is no table's: {error}", "Correct its quotes.") from None
    if not first:
        raise Problem(shown(path), "begins with no fields that hold anything", "Give it a first line with names.")
    is_header = header_of(first)
    names = tuple((cell.strip() if is_header else "") or f"column {index}" for index, cell in enumerate(first, 1))
    if twice := [name for name, count in Counter(names).items() if count > 1]:
        raise Problem(shown(path), f"has two columns called {printable(twice[0], 40)}", "Rename one of them.")
    # Whatever stands before the header, blank lines and all, is passed over with it.
    header_lines = skipped + (reader.line_num if is_header else 0)
    names_of = {",": "commas", "\t": "tabs", ";": "semicolons", "|": "bars", "\x01": "the character 0x01"}
    notes = [f"fields are divided by {names_of.get(dialect.delimiter, printable(dialect.delimiter))}"]
    if not is_header:
        notes.append('the first line looks like a row; columns are called "column 1" and so on')
    if dialect.has_backslashed_quotes:
        notes.append("quotes within fields are written with a backslash")
    return replace(
        layout,
        delimiter=dialect.delimiter,
        quote=dialect.quote,
        has_backslashed_quotes=dialect.has_backslashed_quotes,
        header=names,
        header_lines=header_lines,
    ), notes


def _front_matter(text: str) -> int:
    """Lines of the settings that some Markdown begins with, between two lines of dashes; 0 for none."""
    lines = text.split("\n")
    if lines[0].rstrip() != "---":
        return 0
    return next((number for number, line in enumerate(lines[1:], 2) if line.rstrip() in ("---", "...")), 0)


def _head(stored: StoredFile) -> tuple[bytes, bool]:
    head = stored.head(HEAD_BYTES)
    return head, len(head) == stored.size_bytes


def _unpacked_head(path: Path, packing: str) -> tuple[bytes, bool]:
    stored = StoredFile(path)
    try:
        unpacker = Unpacker(stored, packing)
        parts: list[bytes] = []
        size = 0
        while size < HEAD_BYTES and (data := unpacker.read(HEAD_BYTES - size)):
            parts.append(data)
            size += len(data)
        return b"".join(parts), size < HEAD_BYTES
    finally:
        stored.close()


def _text(head: bytes, encoding: Encoding) -> str:
    """`head` as far as its encoding can read it, without its byte-order mark."""
    return head.decode(encoding.name, errors="replace").removeprefix("\ufeff")
