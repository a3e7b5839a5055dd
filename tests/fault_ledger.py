"""What the fault tests inflicted and what became of it, summed up at the end of a test session.

Counts travel with each test's report, so that they add up over test processes too.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator

import pytest

_PROPERTY = "faults"
_sums: Counter[str] = Counter()


class Ledger:
    """Counts for one test."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()

    def injected(self, kind: str, times: int = 1) -> None:
        """A fault of `kind` was brought about."""
        self.counts[f"injected|{kind}"] += times

    def lost(self, kind: str) -> None:
        """After a fault of `kind` a run, or something of it that was complete, was lost."""
        self.counts[f"lost|{kind}"] += 1

    def resumed(self, kind: str, exact: bool) -> None:
        """A run was resumed after a fault of `kind`; `exact`: to the same bits as one that was left alone."""
        self.counts["resumed|tried"] += 1
        self.counts["resumed|exact"] += exact
        self.counts[f"resumed {kind}|{'exact' if exact else 'not exact'}"] += 1

    def survived_inside_a_save(self) -> None:
        """The trainer was killed while it wrote a checkpoint, and what was there before still loads."""
        self.counts["survived|inside a save"] += 1


@pytest.fixture
def ledger(request: pytest.FixtureRequest) -> Iterator[Ledger]:
    """Where a test counts its faults; the sums of all tests are printed at the end."""
    counted = Ledger()
    yield counted
    request.node.user_properties.append((_PROPERTY, json.dumps(counted.counts)))


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if report.when == "teardown":
        for name, value in report.user_properties:
            if name == _PROPERTY:
                _sums.update(json.loads(str(value)))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if not _sums:
        return
    terminalreporter.write_sep("-", "faults injected, runs lost")
    kinds = sorted({key.partition("|")[2] for key in _sums if key.startswith(("injected|", "lost|"))})
    for kind in kinds:
        injected, lost = _sums[f"injected|{kind}"], _sums[f"lost|{kind}"]
        terminalreporter.write_line(f"{kind:<60} {injected:>6,} injected {lost:>4,} lost")
    every = sum(count for key, count in _sums.items() if key.startswith("injected|"))
    lost = sum(count for key, count in _sums.items() if key.startswith("lost|"))
    terminalreporter.write_line(f"{'all':<60} {every:>6,} injected {lost:>4,} lost")
    terminalreporter.write_line(
        f"resumed to the same bits: {_sums['resumed|exact']:,} of {_sums['resumed|tried']:,}; "
        f"kills inside a save survived: {_sums['survived|inside a save']:,}"
    )
