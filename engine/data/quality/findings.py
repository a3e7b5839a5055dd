"""What a quality report says. Light: the app holds these without the libraries that found them."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

from engine.data.rows import Unit

Split = Literal["train", "held_out"]
LengthUnit = Literal["tokens", "characters"]


@dataclass(frozen=True, slots=True)
class Place:
    """A row that a finding is about. `excerpt` is safe on a terminal."""

    source: str
    line: int
    excerpt: str
    unit: Unit = "line"

    def __str__(self) -> str:
        return f"{self.source}, {self.unit} {self.line:,}"


@dataclass(frozen=True, slots=True)
class Pair:
    """A row and the earlier one (or the training or benchmark row) that it repeats."""

    row: Place
    of: Place
    similarity: float | None
    """Share of word triples in common, from 0 to 1; None where one contains a part of the other."""


@dataclass(frozen=True, slots=True)
class SourceCount:
    """One source. `examined` and `unusable` add up to `rows`, the rows that were read."""

    path: str
    split: Split
    rows: int
    examined: int
    unusable: int
    complete: bool
    """False when only its first rows were read."""


@dataclass(frozen=True, slots=True)
class Cut:
    """What a sequence length would cut off, in rows and as a share of all tokens (or characters)."""

    length: int
    rows: int
    lost_share: float


@dataclass(frozen=True, slots=True)
class LengthReport:
    unit: LengthUnit
    mean: float
    median: int
    p90: int
    p99: int
    maximum: int
    edges: tuple[int, ...]
    """The histogram's bars: the n-th counts rows of at least edges[n] and fewer than edges[n + 1]."""
    counts: tuple[int, ...]
    cuts: tuple[Cut, ...]
    """tokens: at usual sequence lengths. Text for continued pretraining is divided instead, and not counted here."""
    longest: tuple[Place, ...]


@dataclass(frozen=True, slots=True)
class Duplicates:
    """Rows of the training sources that repeat an earlier one, and held-out rows that repeat a training row."""

    within: int
    within_held_out: int
    across: int
    groups: int
    """Sets of rows that are the same."""
    pairs: tuple[Pair, ...]
    across_pairs: tuple[Pair, ...]


@dataclass(frozen=True, slots=True)
class Repeated:
    """A text that is the answer of many rows."""

    text: str
    rows: int
    places: tuple[Place, ...]


@dataclass(frozen=True, slots=True)
class Tally:
    """How rows divide over the values of something (their language, class or a chosen column), most first."""

    name: str
    values: tuple[tuple[str, int], ...]
    others: int
    """Rows of the values that are not listed."""
    distinct: int
    rows: int
    """Rows that were looked at."""

    @property
    def evenness(self) -> float:
        """1 when all values are equally frequent, 0 when there is one: entropy over its largest possible value."""
        import math

        if self.distinct < 2:
            return 0.0
        shares = [count / self.rows for _, count in self.values if count]
        return -sum(share * math.log(share) for share in shares) / math.log(self.distinct)


@dataclass(frozen=True, slots=True)
class Leak:
    """One benchmark file. `training_rows` and `held_out_rows` have at least half of one of its rows in them."""

    path: str
    rows: int
    leaked_rows: int
    """Rows of the benchmark that were found among ours; each of ours counts for one of them."""
    training_rows: int
    held_out_rows: int
    pairs: tuple[Pair, ...]


@dataclass(frozen=True, slots=True)
class PersonalKind:
    """One kind of personal data: how often, in how many rows, and where first."""

    kind: str
    findings: int
    rows: int
    places: tuple[Place, ...]
    """Their excerpts show what stands around the finding, and the finding masked."""


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that a person may want to change, in one sentence. `share` is of the rows examined."""

    key: str
    what: str
    count: int
    share: float
    fix: str
    setting: tuple[str, str] | None = None
    """A setting of the spec and the value that would take care of it, if there is one."""
    places: tuple[Place, ...] = ()


@dataclass(frozen=True, slots=True)
class QualityReport:
    sources: tuple[SourceCount, ...]
    lengths: LengthReport
    exact: Duplicates
    near: Duplicates
    """Exact copies are not counted here."""
    repeated_answers: tuple[Repeated, ...]
    empty_rows: int
    """Rows that cannot be used because they have nothing to learn."""
    unusable: Tally
    """Why rows cannot be used."""
    languages: Tally
    labels: Tally | None
    attributes: tuple[Tally, ...]
    leaks: tuple[Leak, ...]
    personal: tuple[PersonalKind, ...]
    personal_rows: int
    """Rows with personal data of any kind."""
    findings: tuple[Finding, ...]
    notes: tuple[str, ...]
    seconds: float

    @property
    def rows(self) -> int:
        """Rows read, usable or not."""
        return sum(source.rows for source in self.sources)

    @property
    def examined(self) -> int:
        return sum(source.examined for source in self.sources)

    @property
    def complete(self) -> bool:
        return all(source.complete for source in self.sources)

    def as_dict(self) -> dict[str, Any]:
        """For --json and for the way out of a child process; `from_dict` reads it back."""
        return {"rows": self.rows, "examined": self.examined, "complete": self.complete, **asdict(self)}

    @classmethod
    def from_dict(cls, value: dict[str, Any]) -> QualityReport:
        return cls(
            sources=tuple(SourceCount(**each) for each in value["sources"]),
            lengths=_lengths(value["lengths"]),
            exact=_duplicates(value["exact"]),
            near=_duplicates(value["near"]),
            repeated_answers=tuple(
                Repeated(each["text"], each["rows"], _places(each["places"])) for each in value["repeated_answers"]
            ),
            empty_rows=value["empty_rows"],
            unusable=_tally(value["unusable"]),
            languages=_tally(value["languages"]),
            labels=_tally(value["labels"]) if value["labels"] else None,
            attributes=tuple(map(_tally, value["attributes"])),
            leaks=tuple(Leak(**{**each, "pairs": _pairs(each["pairs"])}) for each in value["leaks"]),
            personal=tuple(PersonalKind(**{**each, "places": _places(each["places"])}) for each in value["personal"]),
            personal_rows=value["personal_rows"],
            findings=tuple(_finding(each) for each in value["findings"]),
            notes=tuple(value["notes"]),
            seconds=value["seconds"],
        )


def _places(values: list[dict[str, Any]]) -> tuple[Place, ...]:
    return tuple(Place(**each) for each in values)


def _pairs(values: list[dict[str, Any]]) -> tuple[Pair, ...]:
    return tuple(Pair(Place(**each["row"]), Place(**each["of"]), each["similarity"]) for each in values)


def _lengths(value: dict[str, Any]) -> LengthReport:
    return LengthReport(
        **{
            **value,
            "edges": tuple(value["edges"]),
            "counts": tuple(value["counts"]),
            "cuts": tuple(Cut(**each) for each in value["cuts"]),
            "longest": _places(value["longest"]),
        }
    )


def _duplicates(value: dict[str, Any]) -> Duplicates:
    pairs, across = _pairs(value["pairs"]), _pairs(value["across_pairs"])
    return Duplicates(**{**value, "pairs": pairs, "across_pairs": across})


def _tally(value: dict[str, Any]) -> Tally:
    return Tally(**{**value, "values": tuple((name, count) for name, count in value["values"])})


def _finding(value: dict[str, Any]) -> Finding:
    setting = tuple(value["setting"]) if value["setting"] else None
    return Finding(**{**value, "setting": setting, "places": _places(value["places"])})
