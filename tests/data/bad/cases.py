"""Malformed inputs by name, each made afresh: bytes for most, a maker for what bytes in a file cannot be."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import os
import socket
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

GOOD = b'{"prompt": "What is 2 + 2?", "completion": "4"}\n'
ROWS = GOOD * 3
TABLE = b"question,answer\nWhat is 2 + 2?,4\nWhat is 3 + 3?,6\n"
LARGE_BYTES = 50 * 10**6

Maker = Callable[[Path], None]


def between(line: bytes) -> bytes:
    """A line among good ones."""
    return GOOD + line + b"\n" + GOOD


def parquet(table: pa.Table) -> bytes:
    sink = io.BytesIO()
    pq.write_table(table, sink)
    return sink.getvalue()


def arrow(table: pa.Table, is_file: bool = False) -> bytes:
    sink = io.BytesIO()
    with (pa.ipc.new_file if is_file else pa.ipc.new_stream)(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue()


def zstd(data: bytes) -> bytes:
    packed: bytes = pa.compress(data, "zstd", asbytes=True)
    return packed


def zipped() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("rows.jsonl", GOOD)
    return buffer.getvalue()


def tarred() -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("rows.jsonl"), io.BytesIO(b""))
    return buffer.getvalue()


def broken_text() -> pa.Table:
    """A column of text of which one value is no UTF-8, as some writers leave it."""
    offsets = pa.py_buffer(b"\x00\x00\x00\x00\x02\x00\x00\x00\x04\x00\x00\x00")
    column = pa.StringArray.from_buffers(2, offsets, pa.py_buffer(b"ok\xff\xfe"))
    return pa.table({"text": column})


def lying_offsets() -> bytes:
    good = arrow(pa.table({"text": ["aaaa", "bbbb"]}))
    return good.replace(b"\x04\x00\x00\x00\x08\x00\x00\x00", b"\x04\x00\x00\x00\xff\xff\xff\x7f")


PAIR = pa.table({"prompt": ["a", "b"] * 50, "completion": ["c", "d"] * 50})

FILES: dict[str, Callable[[], bytes]] = {
    # Not rows at all
    "empty.jsonl": lambda: b"",
    "blank-lines.jsonl": lambda: b"\n \n\t\r\n",
    "only-a-mark.jsonl": lambda: b"\xef\xbb\xbf",
    "zip.jsonl": zipped,
    "tar.jsonl": tarred,
    "pdf.txt": lambda: b"%PDF-1.7\n%\xe2\xe3\n",
    "sqlite.jsonl": lambda: b"SQLite format 3\x00" + bytes(84),
    "picture.txt": lambda: b"\x89PNG\r\n\x1a\n" + bytes(16),
    "pickle.jsonl": lambda: b"\x80\x04\x95\x10\x00\x00\x00\x00\x00\x00\x00]\x94.",
    "feather-1.feather": lambda: b"FEA1" + bytes(32) + b"FEA1",
    "error-page.jsonl": lambda: b"\n <!DOCTYPE html><html><body>404 Not Found</body></html>",
    "xml.json": lambda: b'<?xml version="1.0"?><Error/>',
    "git-lfs-pointer.jsonl": lambda: b"version https://git-lfs.github.com/spec/v1\noid sha256:ab\nsize 1\n",
    "program.txt": lambda: b"\x7fELF\x02\x01\x01" + bytes(20),
    "unknown-binary.dat": lambda: bytes(range(256)) * 4,
    # Packed
    "cut-off.jsonl.gz": lambda: gzip.compress(ROWS * 400, mtime=0)[:-40],
    "broken.jsonl.gz": lambda: gzip.compress(ROWS, mtime=0)[:-8] + bytes(8),
    "followed-by-garbage.jsonl.gz": lambda: gzip.compress(ROWS, mtime=0) + b"garbage",
    "nothing-inside.jsonl.gz": lambda: gzip.compress(b"", mtime=0),
    "packed-twice.jsonl.gz": lambda: gzip.compress(gzip.compress(ROWS, mtime=0), mtime=0),
    "zip-inside.jsonl.gz": lambda: gzip.compress(zipped(), mtime=0),
    "bomb.jsonl.gz": lambda: gzip.compress(bytes(3 * LARGE_BYTES), mtime=0),
    "bomb.jsonl.zst": lambda: zstd(bytes(3 * LARGE_BYTES)),
    "bomb-of-rows.jsonl.zst": lambda: zstd((b'{"prompt": "' + b"x" * 60_000 + b'", "completion": "4"}\n') * 2000),
    "cut-off.jsonl.zst": lambda: zstd(ROWS * 400)[:-20],
    "broken.jsonl.zst": lambda: zstd(ROWS)[:12] + b"\xff" * 40,
    "cut-off.csv.xz": lambda: lzma.compress(TABLE * 400)[:-60],
    "broken.csv.bz2": lambda: bz2.compress(TABLE)[:20] + bytes(60),
    # Lines
    "zero-byte.jsonl": lambda: between(b'{"prompt": "a\x00b", "completion": "c"}'),
    "zeros.jsonl": lambda: between(bytes(64)),
    "lone-surrogate.jsonl": lambda: between(b'{"prompt": "\\ud83d", "completion": "c"}'),
    "latin-1-byte.jsonl": lambda: between(b'{"prompt": "caf\xe9", "completion": "c"}'),
    "overlong-utf-8.jsonl": lambda: between(b'{"prompt": "\xc0\x80", "completion": "c"}'),
    "half-copied.jsonl": lambda: ROWS + b'{"prompt": "What is',
    "comma-too-many.jsonl": lambda: between(b'{"prompt": "a", "completion": "c",}'),
    "single-quotes.jsonl": lambda: between(b"{'prompt': 'a', 'completion': 'c'}"),
    "python-words.jsonl": lambda: between(b'{"prompt": None, "completion": "c"}'),
    "duplicate-keys.jsonl": lambda: between(b'{"prompt": "a", "prompt": "b", "completion": "c"}'),
    "not-a-number.jsonl": lambda: between(b'{"prompt": "a", "completion": "c", "score": NaN}'),
    "too-large-number.jsonl": lambda: between(b'{"prompt": "a", "completion": "c", "score": 1e999}'),
    "too-many-digits.jsonl": lambda: between(b'{"prompt": "a", "completion": ' + b"9" * 5000 + b"}"),
    "bare-text.jsonl": lambda: between(b'"just text"'),
    "bare-number.jsonl": lambda: between(b"12"),
    "list-line.jsonl": lambda: between(b"[1, 2]"),
    "two-on-a-line.jsonl": lambda: between(GOOD.strip() + b" " + GOOD.strip()),
    "raw-tab.jsonl": lambda: between(b'{"prompt": "a\tb", "completion": "c"}'),
    "bad-escape.jsonl": lambda: between(b'{"prompt": "C:\\path", "completion": "c"}'),
    "no-colon.jsonl": lambda: between(b'{"prompt" "a"}'),
    "control-codes.jsonl": lambda: between(b'\x1b]0;owned\x07{"prompt"'),
    "deep-lists.jsonl": lambda: between(b'{"prompt": ' + b"[" * 10_000 + b"]" * 10_000 + b"}"),
    "deep-objects.jsonl": lambda: between(b'{"a":' * 10_000),
    "long-line.jsonl": lambda: between(b'{"prompt": "' + b"x" * LARGE_BYTES + b'"}'),
    "utf-16-unmarked.jsonl": lambda: ROWS.decode().encode("utf-16-le"),
    "utf-16-cut-off.jsonl": lambda: ROWS.decode().encode("utf-16")[:-1],
    "utf-16-half-pair.jsonl": lambda: (
        b"\xff\xfe" + (ROWS + b'{"text": "').decode().encode("utf-16-le") + b"\x3d\xd8\n\x00"
    ),
    "carriage-returns.jsonl": lambda: ROWS.replace(b"\n", b"\r"),
    "line-separators.jsonl": lambda: between('{"prompt": "a\u2028b\x85c", "completion": "c"}'.encode()),
    # JSON documents
    "cut-off.json": lambda: b"[" + GOOD.strip() + b',\n{"prompt": "What',
    "list-not-closed.json": lambda: b"[" + GOOD.strip() + b",\n" + GOOD,
    "no-objects.json": lambda: b'[1, "two", null, [3]]',
    "empty-list.json": lambda: b"[]",
    "stray-bracket.json": lambda: b"[" + GOOD.strip() + b"]]",
    "missing-value.json": lambda: b'[{"prompt": , "completion": "c"}, ' + GOOD.strip() + b"]",
    "comments.json": lambda: b"// made by hand\n[" + GOOD.strip() + b"]",
    "deep.json": lambda: b"[" * 10_000 + b"]" * 10_000,
    "long-value.json": lambda: b'[{"prompt": "' + b"x" * LARGE_BYTES + b'"}, ' + GOOD.strip() + b"]",
    "by-columns.json": lambda: json.dumps({"prompt": ["a", "b"], "completion": ["c", "d"]}).encode(),
    "two-lists.json": lambda: b'{"train": [' + GOOD.strip() + b'], "test": [' + GOOD.strip() + b"]}",
    "bare-text.json": lambda: b'"just text"',
    # Tables
    "unclosed-quote.csv": lambda: TABLE + b'"What is 4 + 4?,8\nWhat is 5 + 5?,10\n',
    "quote-goes-on.csv": lambda: TABLE + b'"What" is 4 + 4?,8\nWhat is 5 + 5?,10\n',
    "ragged.csv": lambda: TABLE + b"only one\none,two,three\n",
    "same-name-twice.csv": lambda: b"text,text\na,b\n",
    "no-names.csv": lambda: b"What is 2 + 2?,4\nWhat is 3 + 3?,6\n",
    "names-only.csv": lambda: b"question,answer\n",
    "commas-only.csv": lambda: b",,,\n,,,\n",
    "zero-byte.csv": lambda: TABLE + b"a\x00b,c\n",
    "long-field.csv": lambda: TABLE + b'"' + (b"x" * 10**6 + b"\n") * 12 + b'",8\nWhat is 5 + 5?,10\n',
    "long-line.csv": lambda: TABLE + b"x" * LARGE_BYTES + b",8\nWhat is 5 + 5?,10\n",
    "lone-return.csv": lambda: TABLE + b"a\rb,c\nd,e\n",
    "windows-1252.csv": lambda: "question,answer\nOù est-il ?,À l'école\nÇa va ?,Très bien\n".encode("cp1252"),
    "mixed-encodings.csv": lambda: "question,answer\ngrün,blau\nöl,süß\n".encode() + b"caf\xe9,th\xe9\n",
    "utf-16-unmarked.csv": lambda: TABLE.decode().encode("utf-16-be"),
    # Columns
    "no-rows.parquet": lambda: parquet(PAIR.slice(0, 0)),
    "cut-off.parquet": lambda: parquet(PAIR)[:-30],
    "not-parquet.parquet": lambda: b"PAR1" + b"x" * 60 + b"PAR1",
    "broken-page.parquet": lambda: parquet(PAIR)[:12] + bytes(40) + parquet(PAIR)[52:],
    "bytes-only.parquet": lambda: parquet(pa.table({"image": [b"\xff\x00", b"\xfe\x01"]})),
    "no-columns.parquet": lambda: parquet(pa.table({})),
    "not-utf-8.parquet": lambda: parquet(broken_text()),
    "same-name-twice.parquet": lambda: parquet(pa.Table.from_arrays([pa.array(["a"])] * 2, names=["text", "text"])),
    "cut-off.parquet.gz": lambda: gzip.compress(parquet(PAIR), mtime=0)[:-20],
    "cut-off.arrow": lambda: arrow(PAIR)[:-200],
    "cut-off.feather": lambda: arrow(PAIR, is_file=True)[:-30],
    "no-batches.arrow": lambda: arrow(PAIR.slice(0, 0)),
    "lying-offsets.arrow": lying_offsets,
    # Text
    "zero-byte.txt": lambda: b"Some text\x00 and more.\n" * 3,
    "long-line.txt": lambda: b"A paragraph.\n\n" + b"word " * (LARGE_BYTES // 5) + b"\n\nAnother.\n",
    "front-matter-only.md": lambda: b"---\ntitle: x\n---\n\n",
}

ASKED = b'{"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]}\n'
CHOSEN = b'{"prompt": "Hi", "chosen": "Hello", "rejected": "No"}\n'


def talk(*messages: object) -> bytes:
    """A conversation among good ones."""
    return ASKED * 2 + json.dumps({"messages": messages}).encode() + b"\n" + ASKED


USER = {"role": "user", "content": "Hi"}
ANSWER = {"role": "assistant", "content": "Hello"}
OWN_TEMPLATE = {"shape": "template", "prompt_template": "{{ prompt }}"}
BUSY = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"

# What can be read and makes no sense: the bytes, and what else is said of the source.
MEANINGS: dict[str, tuple[bytes, dict[str, Any]]] = {
    "numbers-for-text.jsonl": (GOOD * 3 + b'{"prompt": "What is 2 + 2?", "completion": 4}\n', {}),
    "null-for-text.jsonl": (GOOD * 3 + b'{"prompt": null, "completion": "4"}\n', {}),
    "all-null.jsonl": (b'{"prompt": null, "completion": null}\n' * 3, {}),
    "empty-answer.jsonl": (GOOD * 3 + b'{"prompt": "What is 2 + 2?", "completion": "  "}\n', {}),
    "missing-field.jsonl": (GOOD * 3 + b'{"prompt": "What is 2 + 2?"}\n', {}),
    "other-shape.jsonl": (GOOD * 3 + CHOSEN, {}),
    "unknown-columns.jsonl": (b'{"colour": "red", "size": 4, "when": "now"}\n' * 3, {}),
    "one-message.jsonl": (talk(), {}),
    "message-not-in-a-list.jsonl": (ASKED + json.dumps({"messages": ANSWER}).encode() + b"\n", {}),
    "unknown-role.jsonl": (talk(USER, {"role": "wizard", "content": "Abracadabra"}), {}),
    "role-a-number.jsonl": (talk(USER, {"role": 7, "content": "Hello"}), {}),
    "no-content.jsonl": (talk(USER, {"role": "assistant"}), {}),
    "no-answer.jsonl": (talk(USER, USER), {}),
    "answer-nothing-asked.jsonl": (talk(ANSWER, ANSWER), {}),
    "picture-in-message.jsonl": (
        talk({"role": "user", "content": [{"type": "image_url", "image_url": "https://example.org/a.png"}]}, ANSWER),
        {},
    ),
    "preference-without-loser.jsonl": (CHOSEN * 3 + b'{"prompt": "Hi", "chosen": "Hello", "rejected": null}\n', {}),
    "no-such-column.jsonl": (GOOD * 3, {"shape": "pair", "columns": {"question": "ask", "answer": "completion"}}),
    "template-with-fault.jsonl": (GOOD * 3, {**OWN_TEMPLATE, "answer_template": "{% if %}"}),
    "template-that-raises.jsonl": (GOOD * 3, {**OWN_TEMPLATE, "answer_template": "{{ 1 / 0 }}"}),
    "template-of-absent-column.jsonl": (GOOD * 3, {**OWN_TEMPLATE, "answer_template": "{{ reply }}"}),
    "template-that-reaches-out.jsonl": (
        GOOD * 3,
        {**OWN_TEMPLATE, "answer_template": "{{ prompt.__class__.__mro__[1].__subclasses__() }}"},
    ),
    "template-that-swells.jsonl": (GOOD * 3, {**OWN_TEMPLATE, "answer_template": "{{ prompt * 99999999999 }}"}),
    "template-that-loops.jsonl": (GOOD, {**OWN_TEMPLATE, "answer_template": BUSY}),
}
# A chat template that rejects an order of roles, and a tokenizer with more tokens than its model has embeddings, are
# in tests/data/tokens, where there is a tokenizer to show them with.


def fifo(path: Path) -> None:
    os.mkfifo(path)


def bound_socket(path: Path) -> None:
    here = Path.cwd()
    os.chdir(path.parent)  # since a socket's name may be no longer than 107 bytes
    try:
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(path.name)
    finally:
        os.chdir(here)


def folder_of(**files: bytes) -> Maker:
    """A folder of files; `__` in a keyword stands for the dot."""

    def make(path: Path) -> None:
        path.mkdir()
        for name, data in files.items():
            (path / name.replace("__", ".")).write_bytes(data)

    return make


def looping_folder(path: Path) -> None:
    path.mkdir()
    (path / "a.jsonl").write_bytes(ROWS)
    (path / "again").symlink_to(path)


def folder_with(special: Callable[[Path], None], name: str) -> Maker:
    def make(path: Path) -> None:
        path.mkdir()
        (path / "a.jsonl").write_bytes(ROWS)
        special(path / name)

    return make


def without_permission(path: Path) -> None:
    path.write_bytes(ROWS)
    path.chmod(0)


def closed_folder(path: Path) -> None:
    path.mkdir()
    (path / "a.jsonl").write_bytes(ROWS)
    path.chmod(0)


PLACES: dict[str, Maker] = {
    "absent.jsonl": lambda path: None,
    "fifo": fifo,
    "socket": bound_socket,
    "dangling-link.jsonl": lambda path: path.symlink_to("nowhere"),
    "looping-link.jsonl": lambda path: path.symlink_to(path.name),
    "escape\x1b[31m\n.jsonl": lambda path: path.touch(),
    "no-permission.jsonl": without_permission,
    "closed-folder": closed_folder,
    "empty-folder": lambda path: path.mkdir(),
    "folder-with-loop": looping_folder,
    "folder-with-fifo": folder_with(fifo, "pipe.jsonl"),
    "folder-with-dangling-link": folder_with(lambda path: path.symlink_to("nowhere"), "b.jsonl"),
    "folder-of-many-kinds": folder_of(a__jsonl=ROWS, b__csv=TABLE),
    "folder-of-pictures": folder_of(a__png=b"\x89PNG\r\n\x1a\n"),
    "folder-with-bad-file": folder_of(a__jsonl=ROWS, b__jsonl=b"{'prompt': 'a'}\n", c__jsonl=b""),
}
NEEDS_A_USER = ("no-permission.jsonl", "closed-folder")
"""What root is allowed all the same."""


NAMES = (*FILES, *PLACES, *MEANINGS)


def make(folder: Path, name: str) -> Path:
    """The input called `name`, made in `folder`."""
    path = folder / name
    if name in MEANINGS:
        path.write_bytes(MEANINGS[name][0])
    elif name in FILES:
        path.write_bytes(FILES[name]())
    else:
        PLACES[name](path)
    return path
