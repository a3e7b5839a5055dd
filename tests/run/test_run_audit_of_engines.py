"""What engines write into the audit log of a run that is started, asked, killed and gone on with; all of it holds."""

from __future__ import annotations

import signal
from collections.abc import Callable
from typing import Any

from fault_ledger import Ledger
from recorded_runs import audit_of
from waiting import end_of, events_of, wait_until

from engine.run.directory import RunDirectory
from engine.run.evidence.lineage import read_lineage
from engine.run.evidence.verifying import verify
from engine.run.launch import launch, resume, stop
from engine.run.liveness import liveness
from engine.run.processes.recorded import recorded_processes
from engine.spec import RunSpec

Script = Callable[..., None]
LONG = ["train", 100_000, 0.01]


def whats(run: RunDirectory) -> list[str]:
    return [entry["what"] for entry in audit_of(run)]


def test_a_run_that_is_started_and_stopped_says_so(spec: RunSpec, script: Script) -> None:
    script(LONG)
    run = launch(spec)
    wait_until(lambda: any(event["kind"] == "step" for event in events_of(run)))
    live = verify(run)
    assert live.holds and any("is live" in finding.means for finding in live.of("note"))
    stop(run)
    assert end_of(run)["outcome"] == "stopped"
    wait_until(lambda: "ended" in whats(run))
    entries = {entry["what"]: entry["facts"] for entry in audit_of(run)}
    assert whats(run)[:3] == ["created", "started", "attempt"] and whats(run)[-1] == "ended"
    assert {"sealed", "asked"} <= entries.keys()
    assert entries["asked"]["command"] == "stop" and entries["ended"]["outcome"] == "stopped"
    assert entries["ended"]["journal"]["bytes"] == run.events_path.stat().st_size
    (seal,) = read_lineage(run)["seal"]
    assert seal["level"] == "best" and {layer["layer"] for layer in seal["layers"]} >= set(held(entries["sealed"]))
    wait_until(lambda: liveness(run) == "ended")
    assert changed(run) == []


def test_a_run_that_was_killed_again_and_again_is_no_run_that_was_changed(
    spec: RunSpec, script: Script, ledger: Ledger
) -> None:
    """Each time everything of it is killed at another moment: none of what that leaves looks like somebody's doing."""
    script(LONG)
    run = launch(spec)
    moments = ("attempt", "sealed", "lineage", "step")
    for number, moment in enumerate(moments, 1):
        began = "resumed" if number > 1 else "started"
        wait_until(lambda began=began, moment=moment: reached(run, began, moment))
        for process in recorded_processes(run).values():
            process.send(signal.SIGKILL)
            assert process.wait(60)
        ledger.injected("an audited engine killed")
        if changed(run):
            ledger.lost("an audited engine killed")
        assert changed(run) == []
        resume(run, anyway=number % 2 == 0)
    wait_until(lambda: reached(run, "resumed", "step"))
    stop(run)
    wait_until(lambda: whats(run)[-1] == "ended" and liveness(run) == "ended")
    assert [entry["facts"]["options"] for entry in audit_of(run) if entry["what"] == "resumed"] == [
        *(["--resume"], ["--resume", "--anyway"]),
        *(["--resume"], ["--resume", "--anyway"]),
    ]
    # Those that were killed before they had learnt a step may not have come to the lineage.
    assert 0 <= whats(run).count("sealed") - len(read_lineage(run)["seal"]) < len(moments)
    assert changed(run) == []


def reached(run: RunDirectory, began: str, moment: str) -> bool:
    """Whether the newest engine came so far: to an entry of the log, or to a step."""
    entries = whats(run)
    since = entries[len(entries) - entries[::-1].index(began) :] if began in entries else []
    if moment != "step":
        return moment in since
    kinds = [event["kind"] for event in events_of(run)]
    return "attempt" in since and "step" in kinds[len(kinds) - kinds[::-1].index("attempt") :]


def changed(run: RunDirectory) -> list[Any]:
    """What verify finds to differ; but the checkpoints, which this worker makes without anything in them."""
    found = verify(run).of("differs")
    return [finding for finding in found if not finding.where.startswith("checkpoints/")]


def held(sealed: dict[str, Any]) -> list[str]:
    return [layer["layer"] for layer in sealed["layers"] if layer["held"]]
