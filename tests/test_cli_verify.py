"""`finetui verify`: all of a run is read again; whatever was changed since is found and told, and is never a fault."""

from __future__ import annotations

import gzip
import json
import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from command import Finetui
from fault_ledger import Ledger
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from recorded_runs import at_home, audit_of, copy_home, train_recorded

from engine.export.request import export_run
from engine.run.directory import RunDirectory
from engine.run.evidence import own_files, verifying
from engine.run.evidence.audit import read_audit, record
from engine.run.evidence.chain import Chain
from engine.run.evidence.verifying import Verdict, verify
from engine.run.telemetry.events import Evaluation
from engine.run.telemetry.folding import Folding
from engine.run.telemetry.journal import JournalTail, JournalWriter
from engine.run.telemetry.reading import open_journal, read_state
from engine.run.telemetry.snapshot import save_snapshot

# What a run's folder holds that nothing was written down of: no change there is found, which the command says.
_UNVOUCHED = {"lock", "engine.log", "pid.json", ".ballast"}


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with one run that learnt, ended and was exported once; beside it its base, a file and a folder of data."""
    import tiny
    import training

    place = tmp_path_factory.mktemp("recorded")
    model = tiny.make_model(place / "base")
    rows, more = training.write_chats(place / "rows.jsonl", 48), place / "more"
    more.mkdir()
    training.write_chats(more / "first.jsonl", 8, seed=1)
    packed = gzip.compress(training.write_chats(place / "unpacked.jsonl", 8, seed=2).read_bytes())
    (more / "second.jsonl.gz").write_bytes(packed)
    with at_home(place / "home"):
        run = train_recorded(model, rows, data={"train": [str(rows), str(more)]})
        export_run(run, "adapter", run.path / "exports" / "adapter")
        assert _told(verify(run)) == []
    return place


@pytest.fixture
def run(recorded: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunDirectory:
    """A copy of it, in FINETUI_HOME."""
    monkeypatch.setenv("FINETUI_HOME", str(tmp_path / "home"))
    return copy_home(recorded / "home", tmp_path / "home")


def test_a_run_that_nobody_touched_matches_and_says_what_it_was(run: RunDirectory, finetui: Finetui) -> None:
    done = finetui("verify", run.name)
    assert done.status == 0, done.stdout + done.stderr
    assert "none differ" in done.stdout and "differs" not in done.stdout
    told = finetui("verify", run.name, "--json").json()
    assert told["holds"] and told["entries"] == len(audit_of(run))
    matching = {finding["where"] for finding in told["findings"] if finding["kind"] == "matches"}
    assert {"audit.jsonl", "spec.toml", "environment.json", "events.jsonl", "checkpoints/step-000004"} <= matching
    assert {f"lineage.json, {name}" for name in ("data", "base", "environment", "seal", "exports")} <= matching
    assert any(where.endswith("rows.jsonl") for where in matching) and any(w.endswith("/more") for w in matching)
    assert any(where.endswith("base/model.safetensors") for where in matching)
    assert any("adapter_model.safetensors" in where and "outputs" in where for where in matching)
    assert any("adapter_model.safetensors" in where and "exports" in where for where in matching)
    assert finetui("verify", run.name, "--expect", told["head"][:12]).status == 0
    assert finetui("verify", run.name, "--expect", "0" * 64).status == 1
    assert finetui("verify", run.name, "--expect", "what").status == 2


@pytest.mark.parametrize("folder", ["outputs/adapter", "exports/adapter"])
def test_a_file_of_code_that_was_added_to_what_was_handed_over_is_found(
    run: RunDirectory, finetui: Finetui, folder: str
) -> None:
    (run.path / folder / "modeling.py").write_text("import os\n")
    done = finetui("verify", run.name)
    assert done.status == 1
    assert f"{folder}/modeling.py" in done.stdout and "was added after" in done.stdout


def test_what_changed_outside_is_told_apart_from_what_is_gone(run: RunDirectory, recorded: Path) -> None:
    rows, packed = recorded / "rows.jsonl", recorded / "more" / "second.jsonl.gz"
    weights, aside = recorded / "base" / "model.safetensors", recorded / "aside"
    before = {path: path.read_bytes() for path in (rows, packed)}
    try:
        rows.write_bytes(before[rows].replace(b"fever", b"colds", 1))
        packed.write_bytes(before[packed] + b"\0")
        weights.rename(aside)
        found = verify(run)
    finally:
        for path, content in before.items():
            path.write_bytes(content)
        aside.rename(weights)
    assert not found.holds
    assert [finding.where for finding in found.of("differs")] == [str(rows), str(packed.parent)]
    assert all(finding.was != finding.now and "learnt from" in finding.means for finding in found.of("differs"))
    assert [finding.where for finding in found.of("gone")] == [str(weights)]


def test_a_copy_on_another_machine_says_what_it_cannot_check_there(
    run: RunDirectory, tmp_path: Path, finetui: Finetui
) -> None:
    copy = tmp_path / "elsewhere" / run.name
    shutil.copytree(run.path, copy)
    with at_home(tmp_path / "another home"):
        found = verify(RunDirectory(copy))
    assert found.holds
    assert any("head" in finding.where for finding in found.of("unchecked"))
    other = finetui.with_environment(FINETUI_HOME=str(tmp_path / "another home"))
    done = other("verify", copy)
    assert done.status == 0 and "none is kept here for this folder" in done.stdout
    with (copy / "spec.toml").open("a") as file:
        file.write("# of mine\n")
    assert other("verify", copy).status == 1


def test_a_checkpoint_that_a_live_run_removes_meanwhile_is_no_change(run: RunDirectory) -> None:
    first, second = sorted(run.checkpoints.glob("step-*"))

    def read(what: str, count: int) -> None:
        if what == first.name:
            shutil.rmtree(second, ignore_errors=True)

    assert verify(run, read=read).holds and not second.exists()


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_file_that_is_flipped_cut_or_gone_is_found(
    recorded: Path, tmp_path: Path, ledger: Ledger, data: st.DataObject
) -> None:
    home = tmp_path / "home"
    shutil.rmtree(home, ignore_errors=True)
    run = copy_home(recorded / "home", home)
    path = data.draw(st.sampled_from(_files(run)))
    content = path.read_bytes()
    damage = data.draw(st.sampled_from(["flip", "cut", "delete", "other", "pipe"]))
    path.unlink()
    if damage == "flip":
        at = data.draw(st.integers(0, len(content) - 1))
        path.write_bytes(content[:at] + bytes([content[at] ^ data.draw(st.integers(1, 255))]) + content[at + 1 :])
    elif damage == "cut":
        path.write_bytes(content[: data.draw(st.integers(0, len(content) - 1))])
    elif damage == "other":
        path.write_bytes(data.draw(st.sampled_from([b"", b"{}", b"[]", b"null", b"\xff\xfe", b"[" * 5000, b"0"])))
    elif damage == "pipe":
        os.mkfifo(path)
    ledger.injected("a recorded file damaged")
    with at_home(home):
        found = verify(run)
    assert not found.holds, (path, damage)


def test_the_command_finds_a_run_whose_spec_is_gone(run: RunDirectory, finetui: Finetui) -> None:
    run.spec_path.unlink()
    done = finetui("verify", run.name)
    assert done.status == 1 and "spec.toml: is gone" in done.stdout and "Traceback" not in done.stderr


def test_an_older_lineage_put_back_is_found(run: RunDirectory) -> None:
    sections = json.loads(run.lineage_path.read_bytes())
    sections["exports"] = []
    run.lineage_path.write_text(json.dumps(sections))
    (found,) = verify(run).of("differs")
    assert found.where == "lineage.json, exports"


def test_a_snapshot_that_tells_another_story_than_the_journal_is_found(run: RunDirectory) -> None:
    folding, tail = open_journal(run)
    save_snapshot(run, folding.state(), folding.recent, tail.offset)
    assert "snapshot.json" in [finding.where for finding in verify(run).of("matches")]
    better = replace(folding.state(), evaluations=(Evaluation("after", 4, 0.001, 1.0, 6),))
    save_snapshot(run, better, folding.recent, tail.offset)
    assert read_state(run).evaluation("after") == better.evaluations[0]  # so `finetui show` would tell it
    (found,) = verify(run).of("differs")
    assert found.where == "snapshot.json" and "evaluations" in found.means


def test_what_a_live_run_adds_while_it_is_looked_at_is_no_change(
    run: RunDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    folding, tail = open_journal(run)
    save_snapshot(run, folding.state(), folding.recent, tail.offset)

    def read_log(run: RunDirectory) -> Chain:
        chain = read_audit(run)
        record(run, "noted")
        return chain

    def open_and_go_on(run: RunDirectory) -> tuple[Folding, JournalTail]:
        opened = open_journal(run)
        JournalWriter(run.events_path).append("evaluation", when="during", step=9, held_out_loss=1.0)
        return opened

    monkeypatch.setattr(verifying, "read_audit", read_log)
    monkeypatch.setattr(own_files, "open_journal", open_and_go_on)
    found = verify(run)
    assert found.holds and read_state(run).evaluations[-1].step == 9
    assert "snapshot.json" in [finding.where for finding in found.of("matches")]


def test_a_run_of_an_earlier_finetui_is_no_run_that_was_changed(run: RunDirectory) -> None:
    (run.path / "audit.jsonl").unlink()
    shutil.rmtree(run.path.parents[1] / "heads")
    found = verify(run)
    assert found.holds
    assert any("earlier finetui" in finding.means for finding in found.of("unchecked"))


def _files(run: RunDirectory) -> list[Path]:
    """Those that something was written down of and that hold anything, in an order that is always the same."""
    found = [path for path in sorted(run.path.rglob("*")) if path.is_file() and path.stat().st_size]
    return [path for path in found if path.name not in _UNVOUCHED]


def _told(verdict: Verdict) -> list[dict[str, Any]]:
    return [finding.as_dict() for kind in ("differs", "gone", "unchecked") for finding in verdict.of(kind)]
