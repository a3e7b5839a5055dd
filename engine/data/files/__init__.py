"""Bytes to rows, whatever the format, packing and encoding, in bounded memory.

layouts (what a file is) -> members (the files of a source) -> formats (each cut into runs of whole records, and
parsed) -> reading (rows in order, or chunks for several processes). Imports neither torch nor anything heavy; pyarrow
only where a file needs it.
"""

from engine.data.files.chunk import Chunk
from engine.data.files.limits import CHUNK_BYTES, MAX_ROW_BYTES
from engine.data.files.reading import Chunks, RowReader, chunks_of, open_rows, read_chunk, without_rows
from engine.data.files.stdin import spool_stdin

__all__ = [
    "CHUNK_BYTES",
    "MAX_ROW_BYTES",
    "Chunk",
    "Chunks",
    "RowReader",
    "chunks_of",
    "open_rows",
    "read_chunk",
    "spool_stdin",
    "without_rows",
]
