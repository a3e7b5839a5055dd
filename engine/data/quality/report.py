"""The quality report: rows are looked at on all cores, then compared with each other."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import psutil
from numpy.typing import NDArray

from engine.data.crew import run_crew, worker_count
from engine.data.files import chunks_of, without_rows
from engine.data.preview import first_reading
from engine.data.quality.benchmarks import benchmark_texts
from engine.data.quality.chunk_work import TASK, Setup, Work
from engine.data.quality.client import work_root
from engine.data.quality.findings import (
    Duplicates,
    Leak,
    LengthUnit,
    Pair,
    PersonalKind,
    Place,
    QualityReport,
    Split,
)
from engine.data.quality.gather import Gathered
from engine.data.quality.judging import judge
from engine.data.quality.leaks import LeakIndex
from engine.data.quality.lengths import length_report
from engine.data.quality.options import ReportOptions
from engine.data.quality.progress import Progress, Tell
from engine.data.quality.repeats import duplicates, equal_groups, repeated_answers
from engine.data.quality.similar import near_duplicate_groups, similarity
from engine.data.quality.tallies import tally
from engine.data.quality.texts import EXCERPT_ARROW
from engine.data.source import Source
from engine.run.directory import disk_problem
from profiles.problem import printable

if TYPE_CHECKING:
    from engine.data.tokens.text_tokenizer import TextTokenizer

# A chunk is what progress moves by, and takes a process about a second.
_CHUNK_BYTES = 2**20
# Less than this one process has looked at before others have started.
_SMALL_BYTES = 2 * 2**20
# Some hundred thousand rows tell which languages there are.
_LANGUAGE_BYTES = 64 * 2**20
_PAIRS_SHOWN = 8
_EMPTY_WORDS = ("nothing to learn", "is empty", "an empty", "nothing in it")


def report(
    sources: Sequence[Source],
    held_out: Source | None = None,
    benchmarks: Sequence[Path] = (),
    options: ReportOptions | None = None,
    progress: Tell = lambda _: None,
    tokenizer: TextTokenizer | None = None,
) -> QualityReport:
    """What the rows of `sources` (trained on), `held_out` and `benchmarks` say.

    Lengths are in tokens of `tokenizer`, or of the model that `options` name. Takes some 370 bytes of disk in the cache
    folder for each row while it works. Raises Problem for a source that cannot be read or understood, and for a disk
    that is full.
    """
    options = options or ReportOptions()
    started = time.monotonic()
    if tokenizer is None and options.model is not None:
        from engine.data.tokens.loading import load_text_tokenizer

        tokenizer = load_text_tokenizer(options.model, options.chat_template)
    every = (*sources, *(() if held_out is None else (held_out,)))
    splits: list[Split] = ["train"] * len(sources)
    if held_out is not None:
        splits.append("held_out")
    readings = tuple(first_reading(source) for source in every)
    folder = _work_folder()
    try:
        leaks = _Benchmarks(benchmarks, folder)
        gathered = Gathered(every, tuple(splits), folder)
        with closing(gathered):
            _look(Setup(every, readings, options, tokenizer, leaks.index_folder), gathered, options, progress)
            return _told(gathered, leaks, options, "characters" if tokenizer is None else "tokens", started)
    except OSError as error:
        raise disk_problem(folder, error) from None
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _look(setup: Setup, gathered: Gathered, options: ReportOptions, progress: Tell) -> None:
    """Looks at the rows of all sources."""
    started = time.monotonic()
    share = None if options.rows is None else max(1, options.rows // len(setup.sources))
    readers = [chunks_of(source, _CHUNK_BYTES) for source in setup.sources]
    total_bytes = sum(reader.size_bytes for reader in readers)
    waiting: deque[Work] = deque()
    done_bytes = [0] * len(readers)

    def works() -> Iterator[Work]:
        for index, reader in enumerate(readers):
            found = gathered.sources[index]
            with closing(reader):
                for chunk in reader:
                    # Chunks that are on their way count as if they had no rows: a few too many may be read.
                    left = None if share is None else share - found.rows
                    if left is not None and left <= 0:
                        break
                    gathered.begin_chunk(index, chunk, reader.unit)
                    done_bytes[index] = reader.position_bytes
                    waiting.append(Work(index, chunk, left))
                    yield waiting[-1]
                else:
                    found.is_complete = share is None

    if share is None:
        setup = replace(setup, language_rows_apart=max(1, total_bytes // _LANGUAGE_BYTES))
    results = run_crew(TASK, setup, works(), _workers(options, total_bytes), doing="the data")
    with closing(results):
        for facts in results:
            work = waiting.popleft()
            gathered.add(work.source, facts)
            seconds = time.monotonic() - started
            progress(Progress(sum(done_bytes), total_bytes, gathered.rows, gathered.rows / max(seconds, 1e-3)))
    for found in gathered.sources:
        if not found.rows:
            raise without_rows(found.source.path, 0)
        # A limit that was never reached has seen everything.
        found.is_complete |= share is not None and found.rows < share
    progress(Progress(total_bytes, total_bytes, gathered.rows, 0.0, "comparing rows"))


def _workers(options: ReportOptions, total_bytes: int) -> int:
    if options.workers is not None:
        return options.workers if options.workers > 1 else 0
    is_small = total_bytes <= _SMALL_BYTES or (options.rows is not None and options.rows <= 2_000)
    if is_small:
        return 0 if options.model is None else 1  # a model's template may run wild, in a process of its own
    return worker_count()


def _told(
    gathered: Gathered,
    leaks: _Benchmarks,
    options: ReportOptions,
    unit: LengthUnit,
    started: float,
) -> QualityReport:
    digests = gathered.column("digest")
    firsts = equal_groups(digests)
    is_copy = firsts != np.arange(len(firsts))
    training_rows = gathered.training_rows
    exact = duplicates(firsts, training_rows, None, gathered.place, lambda *_: 1.0)
    attributes = tuple(tally(name, values) for name, values in gathered.attributes.items())
    found = QualityReport(
        sources=tuple(source.count() for source in gathered.sources),
        lengths=length_report(
            np.asarray(gathered.column("length")),
            np.asarray(gathered.column("divided")),
            unit,
            options.sequence_length,
            gathered.place,
        ),
        exact=exact,
        near=_near(gathered, is_copy) if options.near_duplicates else Duplicates(0, 0, 0, 0, (), ()),
        repeated_answers=repeated_answers(np.asarray(gathered.column("answer")), gathered.place, EXCERPT_ARROW),
        empty_rows=sum(
            count for reason, count in gathered.reasons.items() if any(words in reason for words in _EMPTY_WORDS)
        ),
        unusable=tally("reason", gathered.reasons),
        languages=tally("language", gathered.languages),
        labels=tally("label", gathered.labels) if gathered.labels else None,
        attributes=attributes,
        leaks=leaks.told(gathered),
        personal=_personal(gathered),
        personal_rows=gathered.personal_rows,
        findings=(),
        notes=(),
        seconds=time.monotonic() - started,
    )
    return judge(found, gathered.language_places, options)


def _near(gathered: Gathered, is_copy: NDArray[np.bool_]) -> Duplicates:
    signatures = gathered.column("signature")
    groups = near_duplicate_groups(signatures)

    def likeness(row: int, first: int) -> float:
        return similarity(signatures[row], signatures[first])

    return duplicates(groups, gathered.training_rows, is_copy, gathered.place, likeness)


def _personal(gathered: Gathered) -> tuple[PersonalKind, ...]:
    kinds = gathered.personal.most_common()
    return tuple(
        PersonalKind(kind, count, gathered.personal_kind_rows[kind], tuple(gathered.personal_places[kind]))
        for kind, count in kinds
    )


class _Benchmarks:
    """The benchmark files, as one index on disk that all processes look into."""

    def __init__(self, paths: Sequence[Path], folder: Path):
        self._paths = [str(path) for path in paths]
        self._texts: list[str] = []
        self._places: list[tuple[int, int]] = []
        for index, path in enumerate(paths):
            texts, numbers = benchmark_texts(path)
            self._texts += texts
            self._places += [(index, number) for number in numbers]
        self.index_folder = folder if paths else None
        if paths:
            LeakIndex.of(self._texts).save(folder)

    def told(self, gathered: Gathered) -> tuple[Leak, ...]:
        if not self._paths or not gathered.examined:
            return ()
        leaked = np.asarray(gathered.column("leak"))
        ours = np.flatnonzero(leaked >= 0)
        owners = np.array([file for file, _ in self._places])
        found = []
        for index, path in enumerate(self._paths):
            rows = ours[owners[leaked[ours]] == index]
            found.append(
                Leak(
                    path=path,
                    rows=int((owners == index).sum()),
                    leaked_rows=len(np.unique(leaked[rows])),
                    training_rows=int((rows < gathered.training_rows).sum()),
                    held_out_rows=int((rows >= gathered.training_rows).sum()),
                    pairs=tuple(self._pair(gathered, row, int(leaked[row])) for row in rows[:_PAIRS_SHOWN].tolist()),
                )
            )
        return tuple(found)

    def _pair(self, gathered: Gathered, row: int, benchmark_row: int) -> Pair:
        file, number = self._places[benchmark_row]
        text = printable(self._texts[benchmark_row], 120)
        return Pair(gathered.place(row), Place(self._paths[file], number, text, "row"), None)


def _work_folder() -> Path:
    """A folder for the columns, on the disk of the cache: /tmp is memory on many machines. Those that processes left
    behind which were killed are removed."""
    root = work_root()
    try:
        root.mkdir(parents=True, exist_ok=True)
        for folder in root.iterdir():
            owner = folder.name.partition("-")[0]
            if owner.isdecimal() and not psutil.pid_exists(int(owner)):
                shutil.rmtree(folder, ignore_errors=True)
        return Path(tempfile.mkdtemp(prefix=f"{os.getpid()}-", dir=root))
    except OSError as error:
        raise disk_problem(root, error) from None
