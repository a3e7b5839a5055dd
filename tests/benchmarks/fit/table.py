"""The accuracy table's rows and how they are printed."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

_MIB = 1 << 20
_LINE = "{:<74} {:>12} {:>12} {:>8} {:>12} {:>8}"


@dataclass(frozen=True)
class Row:
    """One configuration; bytes, None where there is no such number. Errors are against `truth`."""

    name: str
    measured: int | None
    closed_form: int
    replayed: int | None

    @property
    def truth(self) -> int:
        found = self.measured if self.measured is not None else self.replayed
        assert found is not None
        return found

    @property
    def closed_form_error(self) -> float:
        return self.closed_form / self.truth - 1

    @property
    def replay_error(self) -> float | None:
        return None if self.replayed is None or self.measured is None else self.replayed / self.measured - 1


def print_part(title: str, rows: Sequence[Row]) -> None:
    """A heading, a line for each row, and the median and worst errors."""
    print(f"\n{title}")
    print(_LINE.format("configuration", "measured MiB", "closed form", "error", "replay", "error"))
    for row in rows:
        error = row.replay_error
        print(
            _LINE.format(
                row.name[:74],
                _mib(row.measured),
                _mib(row.closed_form),
                f"{row.closed_form_error:+.2%}",
                _mib(row.replayed),
                "" if error is None else f"{error:+.2%}",
            )
        )
    print(_summary("closed form", [(row.name, row.closed_form_error) for row in rows]))
    replay_errors = [(row.name, error) for row in rows if (error := row.replay_error) is not None]
    if replay_errors:
        print(_summary("replay", replay_errors))


def _summary(what: str, errors: Sequence[tuple[str, float]]) -> str:
    name, worst = max(errors, key=lambda each: abs(each[1]))
    median = statistics.median(abs(error) for _, error in errors)
    return f"{what}: {len(errors)} rows, median {median:.2%}, worst {worst:+.2%} ({name})"


def _mib(size: int | None) -> str:
    return "" if size is None else f"{size / _MIB:,.1f}"
