"""How much is held at once. Together they keep a reader under 64 MiB whatever the file, but for rows of megabytes that
hold characters outside of Unicode's first plane: Python takes four bytes for each character of those (150 MiB at most).
"""

BLOCK_BYTES = 2**20
"""Read from disk at once: large enough for full speed, small beside everything else."""

HEAD_BYTES = 2**18
"""Looked at to tell what a file is. A first record longer than this is still read, only less is known beforehand."""

MAX_ROW_BYTES = 8 * 2**20
"""The longest record that is parsed: some two million tokens, past what any model reads at once. Longer ones are
passed over in blocks, since a parser may take several times a record's size in memory."""

CHUNK_BYTES = 8 * 2**20
"""What a worker takes at once: a second or so of tokenising, so that starting and handing over costs nothing."""

READER_CHUNK_BYTES = 2**20
"""What a sequential reader parses at once, so that the first rows of a large file are there at once."""

EXCERPT_BYTES = 400
"""Of a record, kept to show which one it was."""
