"""What a person sees of a run that waits for memory, took less of it, or waits for room on the disk."""

from __future__ import annotations

from collections.abc import Callable

from waiting import wait_until

from engine.run.launch import launch, stop
from engine.run.summary import summarise
from engine.run.telemetry.reading import read_state
from engine.spec import RunSpec
from tui.commands.wording import event_text, progress_text

PAUSED = "the checkpoint of step 7 needs 3.2 GiB, 1.1 GiB free on the disk of runs: free some space, or stop"


def test_a_paused_run_says_what_it_waits_for_and_a_second_stop_reaches_its_worker(
    spec: RunSpec, script: Callable[..., None]
):
    script(["await_stop"], ["send", "phase", {"phase": "paused", "detail": PAUSED}], ["await_stop"])
    run = launch(spec)
    wait_until(lambda: read_state(run).attempts)
    stop(run)
    wait_until(lambda: read_state(run).phase == "paused")
    assert progress_text(read_state(run)) == f"paused: {PAUSED}"
    assert (summarise(run).state, summarise(run).why) == ("running", PAUSED)
    stop(run)
    wait_until(lambda: summarise(run).state == "failed")  # this worker leaves without a word


def test_waiting_and_rungs_are_told_in_words():
    text = "needs 8.1 GiB of GPU 0, 3.2 GiB are free: python (alice, pid 4711) holds 6.1 GiB"
    assert event_text({"kind": "queued", "seq": 1, "text": text}) == f"queued: {text}"
    assert event_text({"kind": "ladder", "seq": 1, "text": "memory ran out"}) == "memory ran out"
