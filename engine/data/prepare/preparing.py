"""A run's data, from the files that a spec names to the Dataset that training gets."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from engine.data.dataset import Dataset
from engine.data.files import open_rows
from engine.data.prepare.assembly import assemble
from engine.data.prepare.benchmarks import Benchmarks, read_benchmarks
from engine.data.prepare.cache import ShardKeeper, clean_up, prepared_root
from engine.data.prepare.gather import gather
from engine.data.prepare.kept import Kept, is_all_there, read_kept, require_unchanged
from engine.data.prepare.progress import Report
from engine.data.prepare.recipe import Recipe
from engine.data.prepare.stamps import stamp_of
from engine.data.preview import first_rows
from engine.data.rows import RejectedRow, Row, refusal, shown
from engine.data.shapes import KIND_WORDS, Reading, goes_with, reading_of
from engine.data.shapes.values import has_column, shown_names
from engine.data.source import Source
from engine.data.tokens.text_tokenizer import TextTokenizer
from engine.run.directory import disk_problem
from engine.run.endings.causes import ChangedSince
from profiles.problem import Problem, printable

if TYPE_CHECKING:
    from engine.spec import DataSection

# The share that is held out may be changed up to half of this without tokenising again.
_SAMPLED_SHARE = 0.25


def prepare(
    spec: DataSection,
    tokenizer: TextTokenizer,
    report: Report = lambda progress: None,
    workers: int | None = None,
    keep: Path | None = None,
    session: str = "",
    *,
    anyway: bool = False,
    anew: bool = False,
    link: Callable[[str], bool] | None = None,
) -> Dataset:
    """The data of `spec` for a model with `tokenizer`: read, tokenised, split, and an account of every row.

    What was prepared before is taken from the cache. With `keep`, a run's own folder, the run's shards are kept there,
    and a preparation that is complete there is used again: then a source that changed is told (see
    `require_unchanged`, which `session` is for), and what was lost or damaged is made again of those that did not.
    `anyway`: a person said to go on though things changed. Then what was prepared of a changed source is gone on with,
    and what was prepared for another tokenizer is not. With `anew` nothing of an earlier preparation is gone on with:
    the spec asks for another. `workers` are the processes to use; None chooses. `link` is ShardKeeper's `ask`.

    Raises Problem for sources that cannot be read, hold different kinds of rows or change meanwhile, when more rows
    than allowed are unusable, when none are left, and for a full disk.
    """
    sources = [section.source() for section in spec.sources]
    root = prepared_root()
    try:
        root.mkdir(mode=0o700, parents=True, exist_ok=True)
        kept = None if keep is None or anew else read_kept(keep)
        if kept is not None and (other := _not_of_this(kept, tokenizer, sources)):
            if not anyway:
                raise other
            kept = None
        if keep is not None and kept is not None:
            notes, changed = require_unchanged(keep, kept, sources, session, anyway=anyway)
            if is_all_there(keep, kept):
                if session != kept.session:
                    replace(kept, session=session).write(keep)
                dataset = assemble(
                    spec, tokenizer, kept.gathered, kept.readings, kept.benchmarks, keep, scratch=root, notes=notes
                )
                if changed:
                    return replace(dataset, made_by={**dataset.made_by, "changed_sources": changed})
                return dataset
            if notes:
                raise Problem(
                    shown(keep),
                    "has lost some of the prepared data that the run began with, and "
                    + "; ".join(note.partition(",")[0].partition(";")[0] for note in notes),
                    "Put the files back as they were, or start a new run.",
                )
        rows = [_first_rows(source) for source in sources]
        readings = _understood(sources, rows)
        _require_split_columns(spec, rows)
        stamps = [stamp_of(source) for source in sources]
        benchmarks = read_benchmarks(spec.benchmarks, root)
        recipes = _recipes(spec, tokenizer, sources, readings, benchmarks)
        in_use: set[Path] = set()
        keeper = ShardKeeper(root, keep, link) if keep is not None else None

        def use(shard: Path) -> None:
            in_use.add(shard)
            if keeper is not None:
                keeper.keep(shard)

        gathered = gather(recipes, root, report, workers, use, distrusted=kept is not None)
        if keep is not None:
            Kept(
                gathered=tuple(gathered),
                readings=tuple(readings),
                stamps=tuple(stamps),
                benchmarks=benchmarks.places,
                tokenizer_sha256=tokenizer.sha256,
                session=session,
            ).write(keep)
        clean_up(root, in_use)
        return assemble(spec, tokenizer, gathered, readings, benchmarks.places, keep or root, scratch=root, notes=())
    except OSError as error:
        raise disk_problem(root, error) from None


def _not_of_this(kept: Kept, tokenizer: TextTokenizer, sources: Sequence[Source]) -> ChangedSince | None:
    """Why what is kept is no preparation of `sources` for `tokenizer`; None where it is one."""
    if kept.tokenizer_sha256 != tokenizer.sha256:
        return ChangedSince(
            tokenizer.name,
            "has another tokenizer or chat template than when the run began",
            "Put the model's folder back as it was, or start a new run.",
        )
    if len(sources) != len(kept.gathered):
        return ChangedSince(
            "data",
            f"names {len(sources)} sources, and the run began with {len(kept.gathered)}",
            "Put the settings back as they were, or start a new run.",
        )
    return None


def _recipes(
    spec: DataSection,
    tokenizer: TextTokenizer,
    sources: Sequence[Source],
    readings: Sequence[Reading],
    benchmarks: Benchmarks,
) -> list[Recipe]:
    key = b""
    if spec.personal == "pseudonymise":
        from engine.data.personal.key import pseudonym_key

        key = pseudonym_key()
    return [
        Recipe(
            source=source,
            reading=reading,
            tokenizer=tokenizer,
            group_by=spec.group_by,
            stratify_by=spec.stratify_by,
            split_seed=spec.split_seed,
            sampled_share=_sampled_share(spec, number),
            personal=spec.personal,
            personal_key=key.hex(),
            with_signatures=spec.duplicates == "drop_near",
            leak_index=benchmarks.folder,
            leak_sha256=benchmarks.sha256,
        )
        for number, (source, reading) in enumerate(zip(sources, readings, strict=True))
    ]


def _sampled_share(spec: DataSection, source: int) -> float:
    """Of how many of a source's rows the texts are kept: of far more than are held out, where that can be foreseen."""
    is_held_out = source >= len(spec.train)
    is_by_content = spec.group_by is None and spec.stratify_by is None
    return 1.0 if is_held_out or not is_by_content or spec.held_out_share > _SAMPLED_SHARE / 2 else _SAMPLED_SHARE


def _understood(sources: Sequence[Source], first_rows: Sequence[list[dict]]) -> list[Reading]:
    """How each source's rows are understood. Raises Problem for sources that cannot be learnt from together."""
    readings: list[Reading] = []
    for source, rows in zip(sources, first_rows, strict=True):
        reading = reading_of(source, rows)
        if readings and not goes_with(reading.kind, readings[0].kind):
            raise Problem(
                shown(source.path),
                f"holds {KIND_WORDS[reading.kind]}, and {shown(sources[0].path)} holds {KIND_WORDS[readings[0].kind]}",
                "Give each kind of rows a run of its own.",
            )
        readings.append(reading)
    return readings


def _require_split_columns(spec: DataSection, first_rows: Sequence[list[dict]]) -> None:
    """Raises Problem for a column that none of the first rows has: a slip of the pen would let the split leak."""
    for field, column in (("data.group_by", spec.group_by), ("data.stratify_by", spec.stratify_by)):
        rows = [row for its_rows in first_rows for row in its_rows]
        if column is not None and not any(has_column(row, column) for row in rows):
            names = shown_names(dict.fromkeys(name for row in rows for name in row), 20)
            what = f"names the column `{printable(column, 40)}`, which the rows do not have"
            raise Problem(field, what, f"The columns: {names}.")


def _first_rows(source: Source) -> list[dict]:
    """The rows that a preview decides its reading from, so that a run reads what a person saw; where none of them can
    be read, the first that can."""
    with open_rows(source) as reader:
        first = first_rows(reader)
        rows = [row.value for row in first if isinstance(row, Row)]
        rejected = [row for row in first if isinstance(row, RejectedRow)]
        count = len(rejected)
        for row in () if rows else reader:
            if isinstance(row, Row):
                rows.append(row.value)
                break
            count += 1
    if not rows and (problem := refusal(rejected, count, count, 0.0)):
        raise problem
    return rows
