"""A run that had to give up settings when memory ran out says so wherever it is looked at."""

from __future__ import annotations

import json
from pathlib import Path

from fake_run import CONTINUED, NOT_FINITE, NOT_FINITE_END, RESTART, STALL, THROTTLE, make_run

from engine.run.directory import RunDirectory
from engine.run.summary import ending_of, summarise
from engine.run.telemetry.reading import read_state
from tui.commands.show import as_dict
from tui.commands.wording import event_text
from tui.ending_lines import ending_lines
from tui.monitor_text import fact_lines, note_blocks, progress_line, result_blocks, title_line
from tui.run_words import adjusted_words, key_remedy, out_of_memory_words, probe_words, why_words
from tui.snapshots import RunSnapshot
from tui.theme import make_look

LOOK, PLAIN = make_look(), make_look(ascii=True, no_color=True)


def rung(number: int, field: str, old: int, new: int) -> dict[str, object]:
    text = f"memory ran out in a step: {field} {new} instead of {old}"
    changes = {field: [old, new]}
    return {"kind": "ladder", "number": number, "where": "step", "what": "out", "changes": changes, "text": text}


def run_with(root: Path, *events: dict[str, object], **options: object) -> RunDirectory:
    return RunDirectory(make_run(root, "tickets", then=events, **options))


def run_down_the_ladder(root: Path, *rungs: dict[str, object]) -> RunDirectory:
    folder = make_run(root, "tickets")
    journal = folder / "events.jsonl"
    seq = len(journal.read_text().splitlines())
    with journal.open("a") as file:
        for number, event in enumerate(rungs, start=seq + 1):
            file.write(json.dumps({"v": 1, "seq": number, "at": 1_800_000_000.0, **event}) + "\n")
    return RunDirectory(folder)


def test_what_was_given_up_is_in_the_title_the_facts_and_the_notes(tmp_path: Path) -> None:
    rungs = (("train.micro_batch", 8, 4), ("train.micro_batch", 4, 2), ("train.loss_chunk", 9, 5))
    run = run_down_the_ladder(tmp_path, *(rung(number, *each) for number, each in enumerate(rungs, start=1)))
    state = read_state(run)
    snapshot = RunSnapshot(run, state, "live", run.spec())
    assert "ran out of memory 3 times" in title_line(snapshot, 80, LOOK).plain
    facts = "\n".join(line.plain for line in fact_lines(snapshot, 80, LOOK))
    assert "micro-batch 2, loss chunk 5" in facts
    notes = "\n".join(line.plain for block in note_blocks(snapshot, 200, LOOK) for line in block)
    assert notes.count("memory ran out in a step") == 3
    shown = as_dict(run, summarise(run), state)
    assert shown["adjusted"] == {"train.micro_batch": 2, "train.loss_chunk": 5} and len(shown["ladder"]) == 3


def test_a_run_that_never_ran_short_says_nothing_of_it(tmp_path: Path) -> None:
    state = read_state(run_down_the_ladder(tmp_path))
    assert (out_of_memory_words(state), adjusted_words(state)) == ("", "")


def test_the_trial_step_is_held_against_the_prediction(tmp_path: Path) -> None:
    state = read_state(run_down_the_ladder(tmp_path))
    assert probe_words(state.probe).endswith("predicted (-2.0 %)")
    event = {"kind": "probe", "seq": 1, "predicted": 5, "measured": None, "seconds": 1.0, "tokens": 8}
    assert event_text(event) == "the trial step on 8 tokens could not be measured"


def test_all_that_came_over_a_live_run_is_in_its_title(tmp_path: Path) -> None:
    run = run_with(tmp_path, RESTART, THROTTLE, CONTINUED, STALL)
    snapshot = RunSnapshot(run, read_state(run), "live", run.spec())
    title = title_line(snapshot, 200, LOOK).plain
    for words in ("● running ▲ stalled", "GPU 0 throttled at 91 °C", "restarted once", "continued with 1 change"):
        assert words in title
    assert "* running ! stalled" in title_line(snapshot, 200, PLAIN).plain
    for width in (60, 80):
        assert progress_line(snapshot, None, width, LOOK).plain.startswith(
            "nothing was heard of the trainer for 5 min 12"
        )
        assert title_line(snapshot, width, LOOK).cell_len <= width
    notes = "\n".join(line.plain for block in note_blocks(snapshot, 200, LOOK) for line in block)
    assert all(str(event["text"]) in notes for event in (RESTART, THROTTLE, CONTINUED, STALL))
    over = {"kind": "phase", "phase": "training"}
    state = read_state(run_with(tmp_path / "over", STALL, {**THROTTLE, "on": False}, over))
    assert not state.stall and not state.throttled


def test_a_failed_run_tells_cause_why_and_remedy_in_four_lines(tmp_path: Path) -> None:
    run = run_with(tmp_path, NOT_FINITE, NOT_FINITE_END)
    state = read_state(run)
    snapshot = RunSnapshot(run, state, "ended", run.spec(), ending=ending_of(run, "ended", state))
    assert "✗ failed · not a number" in title_line(snapshot, 80, LOOK).plain
    told = [line.plain.split() for block in result_blocks(snapshot, 78, 4, LOOK) for line in block]
    assert told[0][:5] == ["failed", "the", "loss", "of", "step"] and told[2][:3] == ["remedy", "Go", "on"]
    shown = as_dict(run, summarise(run), state)
    assert (shown["cause"], shown["not_finite"]["lower_rate"]) == ("not_finite", 6.7e-5)
    assert shown["why"] == NOT_FINITE_END["why"] and "finetui resume" in shown["remedy"]
    assert "remedy: Go on from step 400" in str(event_text({"seq": 1, **NOT_FINITE_END}))


def test_the_word_for_a_cause_is_added_where_the_reason_does_not_say_it() -> None:
    assert why_words("disk_full", "step 400 was not saved") == "disk full: step 400 was not saved"
    assert why_words("disk_full", "a file could not be written, since the disk is full") == (
        "a file could not be written, since the disk is full"
    )
    assert (why_words("device_lost", ""), why_words("stopped", "on request")) == ("GPU lost", "on request")


def test_a_remedy_names_the_key_where_there_is_one() -> None:
    remedy = "Go on from step 8 with `finetui resume a.b --anyway`, or see `dmesg`."
    assert key_remedy(remedy, "a.b") == "Go on from step 8 with r, or see `dmesg`."
    lower = "Go on with `finetui resume a.b --learning-rate 1e-05`, a third."
    assert key_remedy(lower, "a.b") == "Go on with r at a learning rate of 1e-05, a third."
    assert key_remedy("Or train: `finetui resume a.b --seal best`.", "a.b") == "Or train: r, then b."
    assert key_remedy(remedy, "axb") == remedy


def test_why_and_remedy_share_the_lines_there_are() -> None:
    long = "word " * 60

    def drawn(why: str, remedy: str, most: int) -> list[str]:
        return [line.plain for line in ending_lines(why, remedy, 40, most, LOOK, "")]

    assert drawn("short", "do this", 3) == ["short", "Remedy: do this"]
    assert drawn("short", "", 3) == ["short"]
    both = drawn(long, long, 3)
    assert len(both) == 3 and both[0].endswith("…") and both[1].startswith("Remedy: ") and both[2].endswith("…")
    assert max(map(len, both)) <= 40
