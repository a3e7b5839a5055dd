"""The audit log: only ever added to, by several at once, and what was done to it since is noticed."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from fault_ledger import Ledger
from hypothesis import given, settings
from hypothesis import strategies as st
from recorded_runs import audit_of

from engine.modules import module_environment
from engine.run.checkpoints.manifest import FILES, MANIFEST, Manifest, checkpoint_path, saved_circumstances
from engine.run.checkpoints.sealed_file import write_sealed
from engine.run.checkpoints.verifying import damage
from engine.run.creating import create_run
from engine.run.directory import RunDirectory, runs_root
from engine.run.evidence import audit
from engine.run.evidence.audit import audit_path, read_audit, record
from engine.run.evidence.chain import Chain, read_chain
from engine.run.evidence.hashing import small_sha256
from engine.run.evidence.heads import head_path, read_head
from engine.run.evidence.keeping import AuditKeeper
from engine.run.evidence.lineage import read_lineage
from engine.run.evidence.verifying import verify
from engine.run.sealing.places import training_places
from engine.seal.sealing import start_sealed
from engine.spec import RunSpec

_WRITERS, _EACH = 4, 25
# However slow the disk is: all that wait for another are told off only after ten minutes.
_RECORD = (
    "import sys; from pathlib import Path; from engine.run.directory import RunDirectory; "
    "from engine.run.evidence import audit; from engine.run.evidence.audit import record; audit._LOCK_SECONDS = 600\n"
    "for number in range(int(sys.argv[2])): record(RunDirectory(Path(sys.argv[1])), 'noted', number=number)"
)


@pytest.fixture
def run(home: Path) -> RunDirectory:
    """A folder of a run, without a log."""
    made = RunDirectory(runs_root() / "20260101T000000Z-notes")
    made.path.mkdir(parents=True)
    return made


def test_an_entry_says_who_did_what_when_and_is_chained_to_the_one_before(spec: RunSpec) -> None:
    run = create_run(spec)
    record(run, "chatted", seal={"level": "best"})
    first, second = audit_of(run)
    assert (first["n"], first["what"], first["previous"]) == (1, "created", "0" * 64)
    assert set(first["facts"]) == {"spec_sha256", "environment_sha256", "host"}
    assert (second["n"], second["what"], second["previous"]) == (2, "chatted", first["hash"])
    assert second["who"]["uid"] == os.getuid() and second["pid"] == os.getpid()
    assert second["at"].endswith("Z") and second["facts"] == {"seal": {"level": "best"}}
    assert stat.S_IMODE(audit_path(run).stat().st_mode) == stat.S_IMODE(head_path(run).stat().st_mode) == 0o600
    head = read_head(run)
    assert head is not None and (head.n, head.hash) == (2, second["hash"])
    assert verify(run).holds


def test_several_writers_at_once_make_one_chain(run: RunDirectory) -> None:
    command = [sys.executable, "-c", _RECORD, str(run.path), str(_EACH)]
    writers = [subprocess.Popen(command, env=module_environment()) for _ in range(_WRITERS)]
    assert [writer.wait(600) for writer in writers] == [0] * _WRITERS
    chain = read_audit(run)
    assert not chain.faults and [entry.n for entry in chain.entries] == list(range(1, _WRITERS * _EACH + 1))
    by_writer: dict[int, list[int]] = {}
    for entry in chain.entries:
        by_writer.setdefault(entry.pid, []).append(entry.facts["number"])
    assert sorted(by_writer.values()) == [list(range(_EACH))] * _WRITERS


@pytest.mark.parametrize("left", [1, 40, -1], ids=["a byte", "a part", "all but its end"])
def test_a_line_that_a_power_cut_broke_off_is_closed_off_and_told(run: RunDirectory, left: int, ledger: Ledger) -> None:
    record(run, "started")
    record(run, "attempt")
    whole = audit_path(run).read_bytes()
    start = whole.index(b"\n") + 1
    audit_path(run).write_bytes(whole[:start] + whole[start:][:left])
    head_path(run).write_bytes(json.dumps({"run": "", "n": 1, "hash": audit_of_first(whole)}).encode())
    ledger.injected("an audit log's last line torn")
    record(run, "resumed")
    chain = read_audit(run)
    assert not chain.faults
    lost = left != -1  # a line that lacks nothing but its end is one
    assert [entry.what for entry in chain.entries] == ["started", "torn" if lost else "attempt", "resumed"]
    assert bool(chain.notes) is lost


def test_a_log_that_was_cut_short_or_taken_away_does_not_become_good_by_another_entry(run: RunDirectory) -> None:
    for number in range(4):
        record(run, "noted", number=number)
    lines = audit_path(run).read_bytes().splitlines(keepends=True)
    for left in (lines[:3], lines[:1], []):
        audit_path(run).write_bytes(b"".join(left))
        assert not verify(run).holds
        record(run, "noted", number=9)
        assert any("did not hold entry" in finding.means for finding in verify(run).of("differs"))
    audit_path(run).unlink()
    assert any("is gone" in finding.means for finding in verify(run).of("differs"))


def test_a_log_written_anew_with_its_head_is_noticed_by_whoever_wrote_the_head_down(run: RunDirectory) -> None:
    record(run, "started")
    record(run, "sealed", level="required")
    noted = read_audit(run).head
    record(run, "ended")
    assert verify(run, noted[:16]).holds
    for path in (audit_path(run), head_path(run)):
        path.unlink()
    for what in ("started", "ended"):
        record(run, what)
    assert verify(run).holds  # the limit that `finetui verify` tells of
    assert not verify(run, noted).holds


def test_a_sealed_trainer_reaches_neither_the_log_nor_its_head(spec: RunSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FINETUI_SEAL_WRITE")  # by which the tests' workers reach all of their folder
    run = create_run(spec)
    record(run, "sealed")
    places = training_places(run, spec)
    kept = {path: path.read_bytes() for path in (audit_path(run), head_path(run))}
    forging = """
import os, sys
for path in sys.argv[1:]:
    for change in (lambda: os.truncate(path, 0), lambda: os.unlink(path), lambda: open(path, "rb")):
        try: change()
        except OSError: pass
        else: sys.exit(4)
sys.exit(3)
"""
    command = [sys.executable, "-c", forging, *map(str, kept)]
    child, report = start_sealed(command, places, "best", env=module_environment())
    if not {"namespace", "landlock"} & set(report.held):
        child.wait(60)
        pytest.skip("no layer of the seal that this rests on can be had here")
    assert child.wait(60) == 3 and verify(run).holds
    assert {path: path.read_bytes() for path in kept} == kept


def test_a_full_disk_leaves_the_log_as_it_was(run: RunDirectory, ledger: Ledger) -> None:
    record(run, "started")
    whole = audit_path(run).read_bytes()
    limited = f"import resource; resource.setrlimit(resource.RLIMIT_FSIZE, ({len(whole) + 50},) * 2)\n{_RECORD}"
    ignored = f"import signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN); {limited}"
    done = subprocess.run(
        [sys.executable, "-c", ignored, str(run.path), "1"], env=module_environment(), capture_output=True, check=False
    )
    ledger.injected("an audit log's disk full")
    assert done.returncode == 1 and b"OSError" in done.stderr
    assert audit_path(run).read_bytes() == whole
    record(run, "ended")
    assert not read_audit(run).faults


def test_an_engine_that_cannot_write_the_log_says_so_once_and_goes_on(run: RunDirectory) -> None:
    audit_path(run).mkdir()  # which nobody, be it root, can write into as a file
    told: list[str] = []
    run.events_path.write_bytes(b"")
    keeper = AuditKeeper(run, told.append, lambda write: write())
    keeper.started(resumed=False, options=[])
    keeper.journalled("attempt", {"number": 1})
    keeper.journalled("checkpoint", {"step": "of a worker that lies"})
    keeper.journalled("end", {"outcome": "finished"})
    assert len(told) == 1 and told[0].startswith("the audit log lacks entries")


def test_what_a_worker_may_have_put_in_a_file_s_place_is_neither_waited_for_nor_read_whole(run: RunDirectory) -> None:
    """A pipe would stop the engine for good, and a file of a terabyte of nothing take all of the machine's memory."""
    told: list[str] = []
    keeper = AuditKeeper(run, told.append, lambda write: write())
    checkpoint = checkpoint_path(run.checkpoints, 1)
    checkpoint.mkdir(parents=True)
    os.mkfifo(checkpoint / MANIFEST)
    os.mkfifo(run.lineage_path)
    run.events_path.touch()
    assert (read_lineage(run), saved_circumstances(checkpoint), small_sha256(checkpoint / MANIFEST)) == ({}, {}, None)
    keeper.journalled("checkpoint", {"step": 1})
    assert audit_of(run)[-1]["facts"]["manifest_sha256"] is None and not told
    for path in (checkpoint / MANIFEST, run.lineage_path, audit_path(run)):
        path.unlink()
        path.touch()
        os.truncate(path, 1 << 40)
    assert (read_lineage(run), saved_circumstances(checkpoint), small_sha256(checkpoint / MANIFEST)) == ({}, {}, None)
    keeper.journalled("checkpoint", {"step": 1})
    keeper.look(everything=True)
    assert len(told) == 1 and audit_path(run).stat().st_size == 1 << 40


def test_no_link_that_a_worker_left_is_followed_and_no_file_of_holes_read(run: RunDirectory, tmp_path: Path) -> None:
    """A hash of a person's file would be in a log that is handed on; a file of terabytes would keep the engine."""
    secret = tmp_path / "secret"
    secret.mkdir()
    for name in (MANIFEST, "adapter_model.safetensors"):
        (secret / name).write_text("a person's own")
    told: list[str] = []
    keeper = AuditKeeper(run, told.append, lambda write: write())
    run.events_path.touch()
    for folder in (run.checkpoints, run.outputs, run.data):
        folder.mkdir()
    checkpoint_path(run.checkpoints, 1).symlink_to(secret)
    (run.outputs / "adapter").symlink_to(secret)
    (run.data / "rows.jsonl").symlink_to(secret / MANIFEST)
    keeper.journalled("checkpoint", {"step": 1})
    keeper.journalled("end", {"outcome": "finished"})
    checkpoint, ended = audit_of(run)
    assert checkpoint["facts"]["manifest_sha256"] is None and ended["facts"]["outputs"] == {}
    assert ended["facts"]["kept"]["bytes"] == 0 and not told
    assert hashlib.sha256(b"a person's own").hexdigest() not in audit_path(run).read_text()

    (run.outputs / "model").mkdir()
    (run.outputs / "model" / "model.safetensors").touch()
    os.truncate(run.outputs / "model" / "model.safetensors", 1 << 40)
    keeper.journalled("end", {"outcome": "finished"})
    assert audit_of(run)[-1]["facts"]["unread"] == "it is made of holes" and not told
    (found,) = (each for each in verify(run).of("unchecked") if each.where == "outputs")
    assert "could not be recorded" in found.means


def test_what_was_saved_within_a_second_has_one_entry_that_vouches_for_all_that_is_left(run: RunDirectory) -> None:
    now = [0.0]
    keeper = AuditKeeper(run, lambda text: None, lambda write: write(), lambda: now[0])
    run.events_path.touch()
    for step in range(1, 6):
        folder = checkpoint_path(run.checkpoints, step)
        folder.mkdir(parents=True)
        sealed = {name: write_sealed(folder / name, b"of a step") for name in FILES}
        (folder / MANIFEST).write_bytes(Manifest(step, {}, sealed).to_bytes())
        keeper.journalled("checkpoint", {"step": step})
        now[0] += 0.1
    shutil.rmtree(checkpoint_path(run.checkpoints, 3))
    keeper.look()
    assert [entry["facts"]["step"] for entry in audit_of(run)] == [1]
    now[0] += 1.0
    keeper.look()
    keeper.look(everything=True)
    first, second = audit_of(run)
    assert second["facts"]["step"] == 5 and second["facts"]["others"].keys() == {"2", "4"} != first["facts"].keys()
    found = [each for each in verify(run).findings if each.where.startswith("checkpoints/")]
    assert len(found) == 4 and {each.means for each in found} == {"is as it was saved"}


def test_a_lock_that_a_worker_holds_for_good_keeps_the_engine_waiting_once(
    run: RunDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audit, "_LOCK_SECONDS", 0.0)
    told: list[str] = []
    keeper = AuditKeeper(run, told.append, lambda write: write())
    keeper.started(resumed=False, options=[])
    with audit_path(run).open("rb") as log:
        fcntl.flock(log, fcntl.LOCK_EX)
        keeper.journalled("restart", {"number": 1})
    assert len(told) == 1 and "another process holds it" in told[0]
    keeper.journalled("restart", {"number": 2})  # not tried: it may be held still
    run.events_path.touch()
    keeper.journalled("end", {"outcome": "finished"})
    assert [entry["what"] for entry in audit_of(run)] == ["started", "ended"]


def test_an_engine_s_events_are_recorded_whatever_their_fields_are_called(run: RunDirectory) -> None:
    run.events_path.write_bytes(b"")
    told: list[str] = []
    keeper = AuditKeeper(run, told.append, lambda write: write())
    keeper.journalled("ladder", {"number": 1, "what": "out of memory", "run": "x", "text": "words for people"})
    keeper.journalled("step", {"step": 1})
    (entry,) = audit_of(run)
    assert entry["what"] == "adjusted"
    assert entry["facts"] == {"number": 1, "what": "out of memory", "run": "x"} and not told


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_no_change_to_the_log_goes_unnoticed(data: st.DataObject) -> None:
    """Flipped bytes, lines taken out, doubled or moved: each is found, whatever stands in the entries."""
    facts = st.dictionaries(
        st.text(max_size=8), st.text() | st.integers() | st.none() | st.lists(st.floats()), max_size=3
    )
    content = _chain_of(data.draw(st.lists(facts, min_size=3, max_size=6)))
    before = read_chain(content)
    assert not before.faults
    lines = content.splitlines(keepends=True)
    at = data.draw(st.integers(0, len(lines) - 2))
    match data.draw(st.sampled_from(["flip", "take out", "double", "swap"])):
        case "flip":
            place = data.draw(st.integers(0, len(content) - len(lines[-1]) - 1))
            changed = bytearray(content)
            changed[place] ^= data.draw(st.integers(1, 255))
        case "take out":
            changed = bytearray(b"".join(lines[:at] + lines[at + 1 :]))
        case "double":
            changed = bytearray(b"".join(lines[: at + 1] + lines[at:]))
        case _:
            changed = bytearray(b"".join([*lines[:at], lines[at + 1], lines[at], *lines[at + 2 :]]))
    assert read_chain(bytes(changed)).faults


def _chain_of(facts: list[dict[str, Any]]) -> bytes:
    from engine.run.evidence.chain import make_line

    chain, content = Chain(), b""
    for number, each in enumerate(facts, 1):
        fields = {"n": number, "at": "", "who": {}, "pid": 1, "what": "noted", "facts": each, "previous": chain.head}
        entry, line = make_line(fields)
        chain.entries.append(entry)
        content += line
    return content


def audit_of_first(whole: bytes) -> str:
    return str(json.loads(whole.splitlines()[0])["hash"])


@pytest.mark.parametrize("what", ["a pipe", "a device", "a link"])
def test_what_stands_in_a_checkpoint_s_place_is_neither_waited_for_nor_followed(run: RunDirectory, what: str) -> None:
    folder = checkpoint_path(run.checkpoints, 1)
    folder.mkdir(parents=True)
    sealed = {name: write_sealed(folder / name, b"") for name in FILES}
    (folder / MANIFEST).write_bytes(Manifest(1, {}, sealed).to_bytes())
    assert damage(folder) is None
    (folder / FILES[0]).unlink()
    if what == "a pipe":
        os.mkfifo(folder / FILES[0])
    else:
        (folder / FILES[0]).symlink_to("/dev/zero" if what == "a device" else folder / FILES[1])
    assert FILES[0] in str(damage(folder))
    assert [each.kind for each in verify(run).findings if each.where.startswith("checkpoints/")] == ["differs"]
