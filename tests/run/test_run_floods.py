"""A trainer that says more than any training has to say, of each kind: whoever asks is heard, what is kept stays within
bounds, and a trainer that is in order loses not a word."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import flooded
import psutil
import pytest
from recorded_runs import audit_of
from waiting import events_of, hold, told, wait_for_end, wait_until

from engine.modules import module_environment
from engine.run.control import ask
from engine.run.creating import create_run
from engine.run.directory import RunDirectory
from engine.run.evidence.lineage import read_lineage
from engine.run.launch import launch
from engine.run.processes.allowance import OFTEN, SAVES, SELDOM, Allowance
from engine.run.processes.recorded import recorded_processes
from engine.run.telemetry.folding import fold
from engine.run.telemetry.reading import read_state
from engine.spec import RunSpec

Script = Callable[..., None]

MOST = 300
_FLOOD = """
import itertools
for number in itertools.count():
    lines = [{line} for each in range(100)]
    worker.channel._connection.sendall("".join(lines).encode())
"""
_EVENT = '\'{{"kind":"{kind}",{fields}}}\\n\' % (number * 100 + each)'


def flood(kind: str, fields: str) -> str:
    """Code that says it for ever, with a number that rises."""
    return _FLOOD.format(line=_EVENT.format(kind=kind, fields=fields))


FLOODS = {
    "note": flood("note", '"text":"%d"'),
    "sample": flood("sample", '"index":%d,"prompt":"p","expected":"e","base":"b","tuned":"t"'),
    "evaluation": flood("evaluation", '"when":"during","step":%d,"held_out_loss":1,"exact_match":null'),
    "output": flood("output", '"name":"%d","path":"outputs/x"'),
    "plan": flood("plan", '"planned_steps":%d,"device":"cpu","predicted_peak_bytes":7'),
    "problem": flood("problem", '"where":"here","what":"%d","fix":""'),
    "checkpoint": flood("checkpoint", '"step":%d,"bytes":1,"seconds":0,"best":false,"held_out_loss":null'),
    "outcome": flood("outcome", '"outcome":"finished","why":"%d"'),
    "lineage": flood("lineage", '"data":{"rows":%d}'),
    "continued": flood("continued", '"step":1,"text":"","changes":[{"field":"%d","was":"","now":""}]'),
    "keep_shard": flood("keep_shard", '"shard":"aa/%d.safetensors"'),
    "no shard": flood("keep_shard", '"shard":"../%d"'),
    "not its own": flood("seal", '"number":%d'),
    "unheard of": flood("whatever", '"number":%d'),
    "no event": _FLOOD.format(line="'a row of somebody%d\\n' % each"),
}

QUICK = ("note", "checkpoint", "outcome", "continued", "no shard", "no event")
"""Each of a way of its own through the supervisor."""


@pytest.fixture
def start(spec: RunSpec, monkeypatch: pytest.MonkeyPatch) -> Callable[..., RunDirectory]:
    """Starts a run under a supervisor with these limits, in which so much of a kind ends the trainer."""

    def start_run(**limits: list[int]) -> RunDirectory:
        run = create_run(spec)
        monkeypatch.setenv("FLOOD_LIMITS", json.dumps(limits))
        subprocess.run(
            [sys.executable, flooded.__file__, str(run.path)], env=module_environment(), check=True, timeout=60
        )
        return run

    return start_run


@pytest.mark.parametrize(
    "name", [each if each in QUICK else pytest.param(each, marks=pytest.mark.slow) for each in FLOODS]
)
def test_a_trainer_that_floods_is_ended_and_little_of_it_is_kept(start: Any, script: Script, name: str) -> None:
    script(["execute", FLOODS[name]])
    limit = [100, 2_000, MOST]
    run = start(OFTEN=limit, SAVES=limit, SELDOM=limit)
    end = wait_for_end(run)
    assert (end["outcome"], end["cause"]) == ("failed", "fault")
    assert (
        f"the trainer sent {MOST + 1:,} messages, " in end["why"] and "more than any training has to say" in end["why"]
    )
    assert "begin again with" in end["remedy"] or "go on from" in end["remedy"]
    assert len(events_of(run)) < MOST + 50
    seconds = end["at"] - events_of(run)[0]["at"]
    assert len(audit_of(run)) < 20 + 2 * seconds, "of each once a second at most, and what is kept for good told once"
    assert len(read_lineage(run).get("continued", [])) <= 1
    assert run.log_path.stat().st_size < 1 << 17


@pytest.mark.parametrize(
    "name", ["note", *(pytest.param(each, marks=pytest.mark.slow) for each in ("checkpoint", "outcome"))]
)
def test_whoever_asks_is_heard_while_a_slow_disk_takes_in_a_flood(
    start: Any, script: Script, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    # What a socket holds takes half a minute of such a disk's time. The asking waits for five seconds.
    monkeypatch.setenv("SLOW_SYNC_SECONDS", "0.005")
    script(["execute", FLOODS[name]])
    run = start()
    wait_until(lambda: len(events_of(run)) > 20 or (name == "outcome" and told(run, "attempt")))
    assert [ask(run, "status")["worker_pid"] for _ in range(3)] == [read_state(run).worker_pid] * 3
    ask(run, "kill")
    end = wait_for_end(run)
    assert end["outcome"] in ("stopped", "finished")


def test_who_says_much_at_once_waits_and_loses_not_a_word(start: Any, script: Script) -> None:
    said = """
for number in range(200):
    worker.channel.send("note", text=str(number))
    worker.channel.send("phase", phase="training", detail=str(number), done=0, total=0)
worker.channel.send("output", name="adapter", path="outputs/adapter")
"""
    script(["execute", said], ["finish"])
    run = start(SELDOM=[10, 400, 10_000])
    assert wait_for_end(run)["outcome"] == "finished"
    numbers = [int(event["text"]) for event in told(run, "note")]
    assert numbers == list(range(200)) and len(told(run, "output")) == 1
    assert len(told(run, "phase")) >= 200 and told(run, "stall") == []


def test_a_run_that_saves_after_each_step_is_asked_about_its_seal_once_a_second(
    start: Any, script: Script, tmp_path: Path
) -> None:
    go = tmp_path / "go"
    saving = f"""
import pathlib, time
for step in range(1, 41):
    worker._take_step(40)
    worker.save()
while not pathlib.Path({str(go)!r}).exists():
    time.sleep(0.01)
"""
    script(["execute", saving], ["finish"])
    run = start()
    if not wait_until(lambda: told(run, "seal"))[0]["evidence"]:
        pytest.skip("no layer holds on this machine")
    # The newest is always asked about, also where nothing comes after it.
    wait_until(lambda: any(check["step"] == 40 for check in told(run, "seal_check")))
    wait_until(lambda: 40 in [entry["facts"].get("step") for entry in audit_of(run) if entry["what"] == "checkpoint"])
    go.touch()
    assert wait_for_end(run)["outcome"] == "finished"
    saved, checks = told(run, "checkpoint"), told(run, "seal_check")
    seconds = saved[-1]["at"] - saved[0]["at"]
    assert [event["step"] for event in saved] == list(range(1, 41))
    assert len(checks) <= seconds + 4 and checks[-1]["when"] == "end"
    assert len([entry for entry in audit_of(run) if entry["what"] == "checkpoint"]) <= seconds + 3


def test_what_a_worker_left_behind_cannot_keep_its_run_from_ending(
    start: Any, script: Script, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FINETUI_SEAL_WITHOUT", "seccomp")  # with it nobody leaves the group
    left, heard = tmp_path / "left", tmp_path / "heard"
    leaving = f"""
import os, pathlib
left, heard = pathlib.Path({str(left)!r}), pathlib.Path({str(heard)!r})
if os.fork() == 0:
    os.setsid()  # out of the group that is ended with the worker
    left.write_text(str(os.getpid()))
    while not heard.exists():  # behind a flood the worker's own end would wait its turn
        pass
    try:
        {FLOODS["note"].replace(chr(10), chr(10) + "        ")}
    finally:
        os._exit(0)
while not left.exists():
    pass
worker.finish()
heard.touch()
"""
    script(["execute", leaving])
    run = start()
    assert wait_for_end(run)["outcome"] == "finished"
    untold = [event["text"] for event in told(run, "note") if "were not written down" in event["text"]]
    assert len(untold) <= 1 and len(told(run, "note")) < 100_000
    left_pid = int(wait_until(left.read_text))
    wait_until(lambda: not psutil.pid_exists(left_pid))  # nobody hears it any more


def test_a_log_that_is_printed_full_keeps_its_beginning_and_its_end(
    spec: RunSpec, script: Script, tmp_path: Path
) -> None:
    go, printed = tmp_path / "go", tmp_path / "printed"
    printing = f"""
import os, pathlib, time
while not pathlib.Path({str(go)!r}).exists():
    time.sleep(0.01)
block = b"once more\\n" * (1 << 16)
for _ in range(130):
    os.write(2, block)
os.write(2, b"the last words\\n")
pathlib.Path({str(printed)!r}).touch()
"""
    script(["execute", printing], ["await_stop"], ["finish"])
    run = launch(spec)
    log = run.log_path
    wait_until(lambda: told(run, "attempt"))
    supervisor = recorded_processes(run)["supervisor"]
    hold(supervisor)  # else it may cut while there is more to come, of which it loses some
    go.touch()
    wait_until(printed.exists)
    supervisor.send(signal.SIGCONT)
    wait_until(lambda: b"the last words\n" in _end_of_file(log) and log.stat().st_size < 1 << 22)
    content = log.read_bytes()
    assert b"--- attempt 1" in content[:4096] and b"bytes of this log" in content
    ask(run, "stop")
    assert wait_for_end(run)["outcome"] == "finished"


def _end_of_file(path: Path) -> bytes:
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - 4096))
        return file.read(4096)


def test_a_state_stays_small_whatever_a_journal_holds(start: Any, script: Script) -> None:
    wild = """
worker.channel.send("plan", planned_steps=["x"] * 1000)
worker.channel.send("phase", phase="x" * 100_000, detail="", done=0, total=0)
worker.channel.send("phase", phase="training", detail="", done=0, total=0)
worker.channel.send("note", text="x" * 100_000)
"""
    script(["execute", wild], ["await_stop"], ["finish"])
    run = start()
    state = wait_until(lambda: read_state(run).notes and read_state(run))
    assert (state.phase, state.planned_steps, len(state.notes[0])) == ("training", None, 4_000)
    answer = ask(run, "status")
    assert (answer["phase"], answer["planned_steps"]) == ("training", None)
    ask(run, "stop")
    wait_for_end(run)

    kinds: dict[str, Callable[[int], dict[str, Any]]] = {
        "sample": lambda number: {"index": number, "prompt": "p", "expected": "e", "base": "b", "tuned": "t"},
        "output": lambda number: {"name": str(number), "path": "outputs/x"},
        "evaluation": lambda number: {"when": "during", "step": number, "held_out_loss": 1.0},
        "note": lambda number: {"text": str(number)},
    }
    more = fold({"seq": n, "at": 1.0, "kind": kind, **make(n)} for kind, make in kinds.items() for n in range(6_000))
    assert (len(more.samples), len(more.outputs), len(more.evaluations)) == (1_000, 100, 4_096)
    assert [each.step for each in more.evaluations[:2]] == [0, 6_000 - 4_095]
    assert more.notes == tuple(map(str, range(5_000, 6_000)))


def test_an_allowance_lets_every_training_of_ours_pass_and_slows_down_a_flood() -> None:
    now = [0.0]
    honest = Allowance(lambda: now[0])
    for step in range(100_000):  # of a tiny model, which saves and measures after each tenth
        now[0] += 1 / 300
        honest.take("step", 350)
        honest.take("phase", 150)
        if step % 10 == 0:
            honest.take("checkpoint", 120)
            honest.take("evaluation", 400) if step % 20 == 0 else None
        assert honest.wait_seconds() == 0
    assert not honest.excess

    wild = {"step": OFTEN, "checkpoint": SAVES, "note": SELDOM, "": SELDOM}
    for kind, limits in wild.items():
        allowance, taken, began = Allowance(lambda: now[0]), 0, now[0]
        while not allowance.excess and now[0] < began + 3_600:
            now[0] += allowance.wait_seconds() + 1e-9
            taken += 1
            allowance.take(kind, 1 << 14)
        most = min(limits.messages.at_once + 3_600 * limits.messages.per_second, limits.messages.most)
        most_bytes = limits.bytes.at_once + 3_600 * limits.bytes.per_second
        assert taken <= most + 1 and taken << 14 <= most_bytes + (1 << 15), kind
