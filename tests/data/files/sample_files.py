"""The same rows written in every format, packing and encoding that is read."""

from __future__ import annotations

import bz2
import csv
import gzip
import io
import json
import lzma
from collections.abc import Callable

import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet

Rows = list[dict[str, str]]
ROWS: Rows = [
    {"question": f"Was ist {n}? „äöü“", "answer": f'Es ist "{n}",\nja; ' + "weil | " * (n % 30)} for n in range(400)
]


def as_jsonl(rows: Rows) -> bytes:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


def as_csv(rows: Rows, delimiter: str = ",", end: str = "\r\n", quoting: int = csv.QUOTE_MINIMAL) -> bytes:
    text = io.StringIO()
    writer = csv.writer(text, delimiter=delimiter, lineterminator=end, quoting=quoting)
    writer.writerow(rows[0])
    writer.writerows(row.values() for row in rows)
    return text.getvalue().encode()


def as_parquet(rows: Rows) -> bytes:
    sink = io.BytesIO()
    pyarrow.parquet.write_table(pa.Table.from_pylist(rows), sink, row_group_size=150)
    return sink.getvalue()


def as_feather(rows: Rows) -> bytes:
    sink = io.BytesIO()
    pyarrow.feather.write_feather(pa.Table.from_pylist(rows), sink)
    return sink.getvalue()


def as_arrow(rows: Rows) -> bytes:
    table, sink = pa.Table.from_pylist(rows), io.BytesIO()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table, max_chunksize=70)
    return sink.getvalue()


def zstd(data: bytes) -> bytes:
    packed: bytes = pa.compress(data, "zstd", asbytes=True)
    return packed


def recoded(data: bytes, encoding: str) -> bytes:
    return data.decode().encode(encoding)


WRITERS: dict[str, Callable[[Rows], bytes]] = {
    "a.jsonl": as_jsonl,
    "list.json": lambda rows: json.dumps(rows).encode(),
    "spread.json": lambda rows: json.dumps(rows, indent=2).encode(),
    "nested.json": lambda rows: json.dumps({"version": [1], "data": {"count": 2, "items": rows}, "more": []}).encode(),
    "one-after-another.json": lambda rows: "\n".join(json.dumps(row, indent=1) for row in rows).encode(),
    "returns.json": lambda rows: as_jsonl(rows).replace(b"\n", b"\r"),
    "comma.csv": as_csv,
    "tab.tsv": lambda rows: as_csv(rows, "\t", "\n"),
    "semicolon.csv": lambda rows: as_csv(rows, ";"),
    "nameless": lambda rows: as_csv(rows, "|"),
    "all-quoted.csv": lambda rows: as_csv(rows, quoting=csv.QUOTE_ALL),
    "excel.csv": lambda rows: b"sep=;\r\n" + as_csv(rows, ";"),
    "marked.csv": lambda rows: b"\xef\xbb\xbf" + as_csv(rows),
    "wide.csv": lambda rows: recoded(as_csv(rows, ";"), "utf-16"),
    "unmarked.jsonl": lambda rows: recoded(as_jsonl(rows), "utf-16-le"),
    "unmarked.csv": lambda rows: recoded(as_csv(rows), "utf-16-be"),
    "widest.jsonl": lambda rows: recoded(as_jsonl(rows), "utf-32-be"),
    "windows.csv": lambda rows: recoded(as_csv(rows), "cp1252"),
    "a.parquet": as_parquet,
    "a.feather": as_feather,
    "a.arrow": as_arrow,
    "a.jsonl.gz": lambda rows: gzip.compress(as_jsonl(rows[:100])) + gzip.compress(as_jsonl(rows[100:])),
    "a.jsonl.zst": lambda rows: zstd(as_jsonl(rows[:100])) + zstd(as_jsonl(rows[100:])),
    "a.jsonl.bz2": lambda rows: bz2.compress(as_jsonl(rows)),
    "a.csv.xz": lambda rows: lzma.compress(as_csv(rows)),
    "a.csv.gz": lambda rows: gzip.compress(as_csv(rows)),
    "list.json.zst": lambda rows: zstd(json.dumps(rows).encode()),
    "wide.tsv.gz": lambda rows: gzip.compress(recoded(as_csv(rows, "\t"), "utf-16")),
    "a.parquet.zst": lambda rows: zstd(as_parquet(rows)),
    "a.arrow.gz": lambda rows: gzip.compress(as_arrow(rows)),
}
