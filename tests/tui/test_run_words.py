"""A run that had to give up settings when memory ran out says so wherever it is looked at."""

from __future__ import annotations

import json
from pathlib import Path

from fake_run import make_run

from engine.run.directory import RunDirectory
from engine.run.summary import summarise
from engine.run.telemetry.folding import read_state
from tui.commands.show import as_dict
from tui.commands.wording import event_text
from tui.monitor_text import fact_lines, note_blocks, title_line
from tui.run_words import adjusted_words, out_of_memory_words, probe_words
from tui.snapshots import RunSnapshot
from tui.theme import make_look

LOOK = make_look()


def rung(number: int, field: str, old: int, new: int) -> dict[str, object]:
    text = f"memory ran out in a step: {field} {new} instead of {old}"
    changes = {field: [old, new]}
    return {"kind": "ladder", "number": number, "where": "step", "what": "out", "changes": changes, "text": text}


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
