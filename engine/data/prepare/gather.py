"""Makes the shards of all sources that are not in the cache yet, on all cores."""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from engine.data.crew import run_crew, worker_count
from engine.data.files import Chunk, Chunks, chunks_of
from engine.data.prepare.chunk_work import TASK, ChunkWork
from engine.data.prepare.progress import Progress, Report
from engine.data.prepare.recipe import Recipe
from engine.data.prepare.shards import Shard, ShardFacts
from engine.data.prepare.stamps import recall, remember, stamp_of
from engine.data.rows import Unit
from engine.data.tokens.templates import KNOWN_TEMPLATES

# Small enough that a file of some megabytes keeps all cores busy and that the end of a file that grew is soon tokenised
# again, large enough that 10 GB are no more than 5,000 shards.
TARGET_BYTES = 2 * 2**20
# Below this the crew's processes would take longer to start than to do the work.
_SMALL_BYTES = 2**20
# Each report may become an event of a run's journal.
_REPORT_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class PlacedShard:
    """A chunk of a source, as the shard that was made of it."""

    key: str
    """Of the chunk."""
    pieces: tuple[tuple[str, int], ...]
    """Of each piece its file within the source ("" for the source itself) and the number of its first row."""


@dataclass(frozen=True, slots=True)
class Gathered:
    """One source, wholly in shards. JSON types alone, so that a run can keep it."""

    path: str
    size_bytes: int
    sha256: str
    format: str
    unit: Unit
    notes: tuple[str, ...]
    recipe: str
    """Key of the recipe that its shards were made by."""
    shards: tuple[PlacedShard, ...]

    def shard_path(self, root: Path, shard: PlacedShard) -> Path:
        """Where a shard of it lies in a folder of shards."""
        return root / self.recipe / f"{shard.key}.safetensors"


def gather(
    recipes: Sequence[Recipe],
    root: Path,
    report: Report,
    workers: int | None = None,
    use: Callable[[Path], None] = lambda shard: None,
    *,
    distrusted: bool = False,
) -> list[Gathered]:
    """Every recipe's source as shards below `root`, made where they are not there yet.

    A preparation that was killed goes on where it was when it is asked for again. `use` is called with each shard as
    soon as it is there, before a clean-up elsewhere could remove it. With `distrusted` the shards that are there are
    read first, and made again where they are damaged. Raises Problem for sources that cannot be read
    or change meanwhile, a full disk, and processes that die.
    """
    with ExitStack() as stack:
        # Opened all before the first is read, so that a bad path is told at once.
        is_there = is_intact if distrusted else is_whole
        work = [_Source(at, recipe, root, stack, is_there) for at, recipe in enumerate(recipes)]
        total_bytes = sum(each.size_bytes for each in work)
        if workers is None:
            # A template or tokenizer that is not ours may run wild, and belongs into a process of its own.
            is_tame = all(_is_tame(recipe) for recipe in recipes)
            is_small = total_bytes <= _SMALL_BYTES
            workers = 0 if is_small and is_tame else worker_count(-(-total_bytes // TARGET_BYTES))
        run = _Run(work, _Pace(total_bytes, report), use, is_there)
        doing = ", ".join(str(recipe.source.path) for recipe in recipes)
        for facts in stack.enter_context(closing(run_crew(TASK, tuple(recipes), run.missing(), workers, doing=doing))):
            run.made(facts)
        return [each.gathered() for each in work]


def _is_tame(recipe: Recipe) -> bool:
    """Whether no template that came with a model or from a person is rendered for it."""
    tokenizer = recipe.tokenizer
    has_own = tokenizer.chat_template is not None and tokenizer.template_name not in KNOWN_TEMPLATES
    return not has_own and not recipe.source.answer_template


class _Source:
    """One source: known from before, or being cut into chunks."""

    def __init__(self, number: int, recipe: Recipe, root: Path, stack: ExitStack, is_there: Callable[[Path], bool]):
        self.number = number
        self._recipe, self._root = recipe, root
        self._stamp = stamp_of(recipe.source)
        self._gathered = _known(recipe, root, is_there)
        self._placed: list[PlacedShard] = []
        self._chunks: Chunks | None = None
        if self._gathered is None:
            self._chunks = stack.enter_context(chunks_of(recipe.source, TARGET_BYTES))
            self.size_bytes = self._chunks.size_bytes
        else:
            self.size_bytes = self._gathered.size_bytes

    def known_shards(self) -> Iterator[Path]:
        """Of a source that is known from before."""
        if self._gathered is not None:
            yield from (self._gathered.shard_path(self._root, shard) for shard in self._gathered.shards)

    def chunks(self) -> Iterator[tuple[Chunk, Path, int]]:
        """Of a source that is not: each chunk, the place of its shard, and the bytes of the source read by then."""
        if self._chunks is None:
            return
        for chunk in self._chunks:
            pieces = tuple((piece.file, piece.first_line) for piece in chunk.pieces)
            self._placed.append(PlacedShard(chunk.key, pieces))
            path = self._root / self._recipe.key / f"{chunk.key}.safetensors"
            yield chunk, path, self._chunks.position_bytes
        self._gathered = Gathered(
            path=str(self._recipe.source.path),
            size_bytes=self._chunks.size_bytes,
            sha256=self._chunks.sha256,
            format=self._chunks.format,
            unit=self._chunks.unit,
            notes=self._chunks.notes(),
            recipe=self._recipe.key,
            shards=tuple(self._placed),
        )
        remember(self._root, self._recipe.source, self._stamp, asdict(self._gathered))

    def gathered(self) -> Gathered:
        assert self._gathered is not None
        return self._gathered


class _Run:
    """Hands out the chunks that are still to do, and keeps account of what is done."""

    def __init__(
        self, work: Sequence[_Source], pace: _Pace, use: Callable[[Path], None], is_there: Callable[[Path], bool]
    ):
        self._work, self._pace, self._use, self._is_there = work, pace, use, is_there
        self._under_way: deque[tuple[Path, int]] = deque()
        """Shards that are being made, in order, and the bytes of all sources that are done with each."""
        self._handed_out: set[Path] = set()

    def missing(self) -> Iterator[ChunkWork]:
        before = 0
        self._pace.tell(0)
        for source in self._work:
            for path in source.known_shards():
                self._reuse(path)
            for chunk, path, position in source.chunks():
                if path in self._handed_out or self._is_there(path):
                    self._reuse(path)
                    if not self._under_way:
                        self._pace.tell(before + position)
                else:
                    self._handed_out.add(path)
                    self._under_way.append((path, before + position))
                    yield ChunkWork(source.number, chunk, path)
            before += source.size_bytes
        if not self._under_way:
            self._pace.finish()

    def made(self, facts: ShardFacts) -> None:
        path, position = self._under_way.popleft()
        self._use(path)
        self._pace.add(facts.rows)
        self._pace.tell(position)
        if not self._under_way and position == self._pace.total_bytes:
            self._pace.finish()

    def _reuse(self, path: Path) -> None:
        if path not in self._handed_out:
            with suppress(OSError):
                os.utime(path)  # the clean-up removes what was not used for longest
            self._use(path)


class _Pace:
    """Tells how far it is, a few times a second."""

    def __init__(self, total_bytes: int, report: Report):
        self.total_bytes = total_bytes
        self._report = report
        self._rows = 0
        self._began = time.monotonic()
        self._told: float | None = None
        self._is_finished = False

    def add(self, rows: int) -> None:
        self._rows += rows

    def tell(self, done_bytes: int) -> None:
        now = time.monotonic()
        if self._told is None or now - self._told >= _REPORT_SECONDS:
            self._told = now
            rate = self._rows / max(now - self._began, 1e-3)
            self._report(Progress(done_bytes, self.total_bytes, self._rows, rate))

    def finish(self) -> None:
        if not self._is_finished:
            self._is_finished, self._told = True, None
            self.tell(self.total_bytes)


def is_whole(path: Path) -> bool:
    """Whether a shard is there, of this version and of its full length."""
    try:
        Shard(path)
    except (OSError, ValueError):
        return False
    return True


def is_intact(path: Path) -> bool:
    """The same, and that its records are what was written."""
    try:
        return Shard(path).is_intact()
    except (OSError, ValueError):
        return False


def _known(recipe: Recipe, root: Path, is_there: Callable[[Path], bool]) -> Gathered | None:
    """What was gathered from a source that was not touched since, when all of its shards are still there."""
    cut = recall(root, recipe.source)
    if cut is None:
        return None
    # The same file may have been called otherwise then.
    known = gathered_from({**cut, "recipe": recipe.key, "path": str(recipe.source.path)})
    return known if all(is_there(known.shard_path(root, shard)) for shard in known.shards) else None


def gathered_from(values: dict) -> Gathered:
    """What `asdict` wrote, from JSON."""
    shards = tuple(
        PlacedShard(shard["key"], tuple((file, line) for file, line in shard["pieces"])) for shard in values["shards"]
    )
    return Gathered(**{**values, "notes": tuple(values["notes"]), "shards": shards})
