"""From numbers to what a person may want to change: one sentence each, with a fix."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from engine.data.personal.found import WORDS
from engine.data.quality.findings import Duplicates, Finding, Place, QualityReport
from engine.data.quality.languages import UNKNOWN
from engine.data.quality.options import MISSING, ReportOptions
from engine.data.rows import shown
from profiles.problem import printable

_REPEATED_SHARE = 0.01
# A language of fewer rows than this is a mistake more often than meant.
_STRAY_SHARE = 0.02
# One class in so many rows of the largest is seldom learnt.
_RARE_TO_FREQUENT = 10
_UNEVEN = 0.6


def judge(
    found: QualityReport, language_places: Mapping[str, Sequence[Place]], options: ReportOptions
) -> QualityReport:
    """`found` with its findings and notes."""
    findings = (
        *_leaks(found),
        *_duplicates(found),
        *_lengths(found, options),
        *_answers(found),
        *_personal(found),
        *_balance(found),
        *_languages(found, language_places),
    )
    return replace(found, findings=findings, notes=tuple(_notes(found, options)))


def _finding(
    found: QualityReport,
    key: str,
    count: int,
    what: str,
    fix: str,
    setting: tuple[str, str] | None = None,
    places: Sequence[Place] = (),
) -> Finding:
    return Finding(key, what, count, count / max(1, found.examined), fix, setting, tuple(places))


def _leaks(found: QualityReport) -> Iterator[Finding]:
    for leak in found.leaks:
        if leak.training_rows:
            yield _finding(
                found,
                "leak",
                leak.training_rows,
                f"{_rows(leak.training_rows)} to train on {_hold(leak.training_rows)} rows of {shown(Path(leak.path))} "
                f"({leak.leaked_rows:,} of its {leak.rows:,})",
                "Name the file in data.benchmarks, and those rows are set aside.",
                ("data.benchmarks", leak.path),
                [pair.row for pair in leak.pairs],
            )
    for name, each in (("exact copies", found.exact), ("near copies", found.near)):
        if each.across:
            yield _finding(
                found,
                "across",
                each.across,
                f"{_rows(each.across)} held out {'is' if each.across == 1 else 'are'} {name} of rows to train on",
                "Take them out of one of the two files: a loss on rows that were learnt says nothing.",
                None,
                [pair.row for pair in each.across_pairs],
            )


def _duplicates(found: QualityReport) -> Iterator[Finding]:
    kinds: tuple[tuple[str, str, str, Duplicates], ...] = (
        ("exact_duplicates", "the same as", "drop_exact", found.exact),
        ("near_duplicates", "nearly the same as", "drop_near", found.near),
    )
    for key, words, rule, each in kinds:
        if each.within:
            yield _finding(
                found,
                key,
                each.within,
                f"{_rows(each.within)} {'is' if each.within == 1 else 'are'} {words} an earlier row",
                f'Set data.duplicates to "{rule}", or leave them: they are learnt as often as they stand there.',
                ("data.duplicates", rule),
                [pair.row for pair in each.pairs],
            )


def _lengths(found: QualityReport, options: ReportOptions) -> Iterator[Finding]:
    cut = next((each for each in found.lengths.cuts if each.length == options.sequence_length), None)
    if cut is not None and cut.rows:
        enough = next(
            (each.length for each in found.lengths.cuts if each.rows <= cut.rows // 10), found.lengths.maximum
        )
        yield _finding(
            found,
            "cut",
            cut.rows,
            f"{_rows(cut.rows)} {'is' if cut.rows == 1 else 'are'} longer than {cut.length:,} tokens and would be cut "
            f"({_share(cut.lost_share)} of all tokens)",
            f"Raise data.sequence_length to {enough:,}, if memory allows.",
            ("data.sequence_length", str(enough)),
            found.lengths.longest,
        )


def _answers(found: QualityReport) -> Iterator[Finding]:
    if found.empty_rows:
        yield _finding(
            found,
            "empty",
            found.empty_rows,
            f"{_rows(found.empty_rows)} {'has' if found.empty_rows == 1 else 'have'} nothing to learn and "
            f"{'is' if found.empty_rows == 1 else 'are'} set aside",
            "Fill in the answers, or leave the rows out.",
        )
    for each in found.repeated_answers:
        if each.rows > _REPEATED_SHARE * found.examined:
            yield _finding(
                found,
                "repeated_answer",
                each.rows,
                f"{_rows(each.rows)} have the same answer: {each.text}",
                "Check that it is meant: a model learns to say it whatever it is asked.",
                None,
                each.places,
            )


def _personal(found: QualityReport) -> Iterator[Finding]:
    if found.personal:
        kinds = ", ".join(f"{each.findings:,} {WORDS[each.kind]}" for each in found.personal)  # type: ignore[index]
        yield _finding(
            found,
            "personal",
            found.personal_rows,
            f"{_rows(found.personal_rows)} {_hold(found.personal_rows)} personal data: {kinds}",
            'Set data.personal to "mask" or "pseudonymise"; the file itself is never changed.',
            ("data.personal", "mask"),
            [place for each in found.personal for place in each.places[:2]],
        )


def _balance(found: QualityReport) -> Iterator[Finding]:
    if found.labels is not None and found.labels.distinct > 1 and found.labels.distinct <= len(found.labels.values):
        (most, most_rows), (least, least_rows) = found.labels.values[0], found.labels.values[-1]
        if most_rows >= _RARE_TO_FREQUENT * least_rows:
            yield _finding(
                found,
                "classes",
                least_rows,
                f"the class {least} has {_rows(least_rows)}, {most} has {most_rows:,}",
                "Add rows of the rare classes, or put them into a source of their own with repeats.",
            )
    for each in found.attributes:
        if 1 < each.distinct <= len(each.values) and each.evenness < _UNEVEN:
            (most, most_rows), (least, least_rows) = each.values[0], each.values[-1]
            yield _finding(
                found,
                "attribute",
                most_rows,
                f"{each.name} is unevenly spread: {most} in {_share(most_rows / each.rows)} of rows, {least} in "
                f"{_share(least_rows / each.rows)}",
                "Check whether the model is to treat them alike; if so, add rows of the rare ones.",
            )


def _languages(found: QualityReport, places: Mapping[str, Sequence[Place]]) -> Iterator[Finding]:
    told = [pair for pair in found.languages.values if pair[0] != UNKNOWN]
    stray = [(name, count) for name, count in told[1:] if count < _STRAY_SHARE * found.languages.rows]
    if stray:
        count = sum(count for _, count in stray)
        names = ", ".join(f"{name} {count:,}" for name, count in stray[:6])
        yield _finding(
            found,
            "languages",
            count,
            f"{_rows(count)} {'is' if count == 1 else 'are'} in languages that few rows have: {names}",
            "Look at them: short and mixed texts are also taken for other languages.",
            None,
            [place for name, _ in stray for place in places.get(name, ())][:8],
        )


def _notes(found: QualityReport, options: ReportOptions) -> Iterator[str]:
    from engine.data.personal.presidio import presidio_state

    if not found.complete:
        yield f"only the first {found.rows:,} rows were looked at"
    if options.languages and found.languages.rows < found.examined:
        yield f"languages were found out of {found.languages.rows:,} rows, picked by their content"
    if options.personal:
        yield f"names are found {presidio_state()}; names in scripts other than Latin and Cyrillic are not"
    for each in found.attributes:
        if each.values == ((MISSING, each.rows),):
            yield f"no row has a column `{printable(each.name, 60)}`"
    if found.lengths.unit == "characters":
        yield "lengths are in characters; name a model to have them in tokens"


def _rows(count: int) -> str:
    return "1 row" if count == 1 else f"{count:,} rows"


def _hold(count: int) -> str:
    return "holds" if count == 1 else "hold"


def _share(share: float) -> str:
    """A share as finetui writes it everywhere: "12.5 %", "100 %"."""
    percent = round(100 * share, 1)
    return f"{percent:.0f} %" if percent == round(percent) else f"{percent:.1f} %"
