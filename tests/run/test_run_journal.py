"""The journal through its public face: what was written is read, whatever was torn, odd or missing in between."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from engine.run.directory import RunDirectory
from engine.run.telemetry.folding import Folding
from engine.run.telemetry.journal import JournalTail, JournalWriter, last_event
from engine.run.telemetry.reading import read_state
from engine.run.telemetry.recording import Recording

_JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda children: st.lists(children, max_size=3) | st.dictionaries(st.text(), children, max_size=3),
    max_leaves=8,
)


def read_all(path: Path, limit_bytes: int = 1 << 20) -> tuple[list[dict], int]:
    tail = JournalTail(path)
    events = [event for batch in iter(lambda: tail.read(limit_bytes), []) for event in batch]
    return events, tail.damaged


@settings(deadline=None)
@given(st.lists(st.dictionaries(st.sampled_from("abcd"), _JSON), max_size=6), st.integers(1, 300))
def test_every_value_comes_back_however_it_is_read(tmp_path_factory, records, limit_bytes):
    path = tmp_path_factory.mktemp("journal") / "events.jsonl"
    writer = JournalWriter(path)
    written = [writer.append("note", **record) for record in records]
    writer.close()
    events, damaged = read_all(path, limit_bytes)
    assert (events, damaged) == (written, 0)
    assert [{key: event[key] for key in record} for event, record in zip(events, records, strict=True)] == records


def test_numbers_that_are_none_are_null_and_the_file_is_strict_json(tmp_path: Path):
    writer = JournalWriter(tmp_path / "events.jsonl")
    writer.append("step", loss=math.nan, nested={"values": [1.5, -math.inf, (math.inf,)]}, path=tmp_path)
    line = (tmp_path / "events.jsonl").read_text()

    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    event = json.loads(line, parse_constant=refuse)
    assert (event["loss"], event["nested"], event["path"]) == (None, {"values": [1.5, None, [None]]}, str(tmp_path))


def test_lines_that_are_no_event_are_counted_and_passed_over(tmp_path: Path):
    path = tmp_path / "events.jsonl"
    writer = JournalWriter(path)
    first = writer.append("note", text="first")
    bad = [b"\xff\xfe", b"[]", b"{}", b'{"seq":"1","kind":"note"}', b'{"seq":9}', b"[" * 100_000, b"nonsense"]
    with path.open("ab") as file:
        file.write(b"\n\n" + b"\n".join(bad) + b"\n")
    last = writer.append("note", text="last")
    assert read_all(path) == ([first, last], len(bad))


def test_lines_of_format_1_are_read_and_later_formats_need_their_checksum(tmp_path: Path):
    path = tmp_path / "events.jsonl"
    old = {"v": 1, "seq": 1, "at": 1.0, "kind": "note", "text": "old"}
    odd = [{**old, "v": 2}, {**old, "v": 3}, {**old, "v": 2, "crc": "00000000"}, {**old, "crc": "00000000"}]
    path.write_text("".join(json.dumps(event, separators=(",", ":")) + "\n" for event in [old, *odd]))
    new = JournalWriter(path).append("note", text="new")
    assert new["seq"] == 2
    assert read_all(path) == ([old, new], len(odd))


def test_a_tail_waits_for_the_journal_and_for_the_rest_of_a_line(tmp_path: Path):
    path = tmp_path / "events.jsonl"
    tail = JournalTail(path)
    assert tail.read() == []
    line = b'{"v":1,"seq":1,"at":1.0,"kind":"note","text":"' + b"x" * 5000 + b'"}\n'
    path.write_bytes(line[:3000])
    assert tail.read(100) == [] and tail.offset == 0
    with path.open("ab") as file:
        file.write(line[3000:])
    (event,) = tail.read(100)
    assert len(event["text"]) == 5000 and tail.damaged == 0 and tail.read() == []


def test_the_newest_event_is_found_behind_a_long_torn_line(tmp_path: Path):
    path = tmp_path / "events.jsonl"
    writer = JournalWriter(path)
    step = writer.append("step", step=7)
    note = writer.append("note", text="y" * 200_000)
    with path.open("ab") as file:
        file.write(b'{"v":1,"seq":3,"kind":"' + b"z" * 300_000)
    assert last_event(path) == note
    assert last_event(path, kind="step") == step
    assert last_event(path, kind="end") is None
    assert JournalWriter(path).append("end")["seq"] == 3


def test_a_write_that_breaks_off_for_lack_of_room_is_told_and_costs_no_other_line(tmp_path: Path):
    """A limit on the file's size stands in for a full disk: the kernel writes what fits, then refuses."""
    code = """
import resource, sys
from pathlib import Path
from engine.run.telemetry.journal import JournalWriter
writer = JournalWriter(Path(sys.argv[1]))
writer.append("note", text="before")
resource.setrlimit(resource.RLIMIT_FSIZE, (writer.offset() + 30, resource.RLIM_INFINITY))
for _ in range(2):
    try:
        writer.append("note", text="does not fit")
    except OSError as error:
        print(error.strerror)
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
writer.append("note", text="after")
"""
    path = tmp_path / "events.jsonl"
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["File too large"] * 2
    events, damaged = read_all(path)
    assert [(event["seq"], event["text"]) for event in events] == [(1, "before"), (2, "after")]
    assert damaged == 0, "the half line was taken back"


def test_whatever_a_message_holds_it_is_written_or_told(tmp_path: Path):
    run = RunDirectory(tmp_path)
    recording = Recording(run, Folding())
    deep: list = []
    for _ in range(100_000):  # Python 3.13 writes 5,000
        deep = [deep]
    recording.add("hologram", self=1, fields=2, values=[math.nan, "\ud800"])
    recording.add("note", text=deep)
    recording.add_step({"step": 1, "tokens": "many", "seconds": math.inf})
    recording.add("note", text="x" * (17 << 20))
    recording.close()
    events, damaged = read_all(run.events_path)
    assert damaged == 0 and [event["kind"] for event in events] == ["hologram", "note", "step", "note"]
    assert events[0].items() >= {"self": 1, "fields": 2, "values": [None, "\ud800"]}.items()
    assert events[1]["text"] == "a note event was nested too deeply to be written"
    state = read_state(run)
    assert state == recording.state() and state.damaged == 1 and len(state.notes[-1]) == 4_000
