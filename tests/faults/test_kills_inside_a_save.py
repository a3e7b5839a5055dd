"""SIGKILL, a full disk and a failing one at any system call of a save: what was complete stays, the next save works."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import system_calls
import tiny
from fault_ledger import Ledger
from killing import a_spec, quiet_threads, result_of, undisturbed, wait_until
from scripts import told_by

from engine.run.creating import create_run
from engine.run.launch import resume
from engine.run.liveness import liveness
from engine.run.telemetry.reading import read_state

# The normal suite tries each eleventh call: a prime, so that it meets calls of all kinds. The full one tries all.
_SPREAD = 11


@pytest.fixture(scope="module")
def spread(tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    """The calls of a save, and what came of the trials at some of them."""
    return told_by("saves_under_faults.py", tmp_path_factory.mktemp("spread"), _SPREAD)


def test_whatever_happens_inside_a_save_nothing_complete_is_lost_and_the_next_one_works(
    spread: list[Any], ledger: Ledger
):
    _, *outcomes = spread
    _check(outcomes, ledger)


@pytest.mark.slow
def test_nothing_is_lost_at_any_call_of_a_save(tmp_path: Path, ledger: Ledger):
    _, *outcomes = told_by("saves_under_faults.py", tmp_path, 1)
    _check(outcomes, ledger)


def _check(outcomes: list[dict[str, Any]], ledger: Ledger) -> None:
    assert {each["ended"] for each in outcomes} == {"killed", "refused", "saved"}
    for each in outcomes:
        kind = "SIGKILL inside a save" if each["act"].startswith("kill") else f"{each['act']} inside a save"
        ledger.injected(kind)
        published = 4 in each["good"]
        # Of the ones before, the best (1) and the newest (3) are there; the one that has to go only once 4 is there.
        intact = {1, 3} <= set(each["good"]) and (published or 2 in each["good"])
        newest = 4 if published else 3
        after_next = ["step-000001", f"step-{newest:06d}", "step-000005"]
        survived = (
            intact
            and each["newest"] == newest
            and each["exact"]
            and each["after_next"] == after_next
            and each["next_exact"]
        )
        if not survived:
            ledger.lost(kind)
        elif each["ended"] == "killed":
            ledger.survived_inside_a_save()
        assert survived, each
        _check_what_was_told(each, published)


def _check_what_was_told(outcome: dict[str, Any], published: bool) -> None:
    if outcome["ended"] == "saved":
        assert published, outcome
    if outcome["ended"] == "refused":
        told = outcome["told"]
        assert told.startswith("the checkpoint of step 4 was not saved: "), outcome
        said = ["the disk is full"] if "ENOSPC" in outcome["act"] else ["the disk reported an error", "read back"]
        assert any(words in told for words in said), outcome
        # It may be there under its name, which was not brought onto the disk: then it is not counted on.
        assert not published or outcome["call"] in ("sync .", "open to read ."), outcome


def test_all_of_a_checkpoint_is_on_the_disk_before_it_is_seen_and_it_is_before_another_goes(spread: list[Any]):
    """What a power cut must not find otherwise; SIGKILL leaves the kernel's memory as it is, and cannot show it."""
    calls = [(name, path, other) for name, path, other in spread[0]]
    shown = next(at for at, (name, _, other) in enumerate(calls) if name == "rename" and other == "step-000004")
    staging = calls[shown][1]
    written = {path for name, path, _ in calls if name == "write" and path.startswith(f"{staging}/")}
    assert len(written) == 5
    for path in written:
        last_write = max(at for at, call in enumerate(calls) if call[:2] == ("write", path))
        assert calls[last_write + 1][:2] == ("sync", path)
    folder_synced = calls.index(("sync", staging, ""))
    assert max(at for at, call in enumerate(calls) if call[1] in written) < folder_synced < shown
    assert calls[shown + 1] == ("sync", ".", "")
    removals = [at for at, (name, path, _) in enumerate(calls) if path.startswith("step-") and name != "sync"]
    assert removals and min(removals) > shown + 1


@pytest.mark.parametrize("kills", [2, pytest.param(60, marks=pytest.mark.slow)])
def test_a_run_that_was_killed_inside_a_save_goes_on_to_the_same_bits(tmp_path: Path, ledger: Ledger, kills: int):
    ends = told_by("runs_under_faults.py", tmp_path, kills)
    assert len(ends) == kills
    for end in ends:
        ledger.injected("SIGKILL inside a save")
        ledger.survived_inside_a_save()
        ledger.resumed("SIGKILL inside a save", end["exact"])
        assert end["exact"], end


@pytest.mark.slow
@pytest.mark.parametrize("at", [5, 150, 400])
def test_the_real_engine_goes_on_from_a_kill_inside_a_save_to_the_same_bits(
    tmp_path: Path, ledger: Ledger, monkeypatch: pytest.MonkeyPatch, at: int
):
    monkeypatch.setenv("FINETUI_HOME", str(tmp_path / "home"))
    quiet_threads()
    spec = a_spec(tmp_path, tiny.make_model(tmp_path / "model"))
    expected = undisturbed(spec)
    run = create_run(spec)
    counter = tmp_path / "calls"
    for name, value in system_calls.environment(run.checkpoints, at, count_to=counter).items():
        monkeypatch.setenv(name, value)
    resume(run)
    wait_until(lambda: liveness(run) != "live", run)
    ledger.injected("SIGKILL inside a save")
    if read_state(run).outcome != "finished":  # else its supervisor has gone on by itself
        resume(run)
        wait_until(lambda: liveness(run) != "live", run)
    assert read_state(run).attempts >= 2 and system_calls.count_of(counter) > at
    ledger.survived_inside_a_save()
    result = result_of(run)
    ledger.resumed("SIGKILL inside a save", result == expected)
    assert result == expected
