"""A loss that is no number: told with its step and rows, never saved, and gone on from before it at a lower rate."""

from __future__ import annotations

import json
import math
import re
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from command import Finetui
from fault_ledger import Ledger
from safetensors.torch import load_file
from training import build_setup, losses, make_spec, train, write_chats
from transformers import AutoModelForCausalLM, AutoTokenizer
from waiting import events_of, wait_until

from engine.run.checkpoints.manifest import list_checkpoints
from engine.run.control import ask
from engine.run.creating import create_run
from engine.run.directory import RunDirectory
from engine.run.endings.causes import Ending
from engine.run.launch import launch, resume
from engine.run.liveness import liveness
from engine.run.processes.channel import MemoryChannel
from engine.run.summary import summarise
from engine.run.telemetry.reading import read_state
from engine.spec import RunSpec
from engine.train.recipe import Recipe
from engine.train.saving import Saving
from engine.train.setup import Setup
from profiles.problem import Problem

PATIENCE_SECONDS = 240
"""A bound for waiting, not a measurement: a loaded machine takes tens of seconds to import the training libraries."""


@pytest.fixture(autouse=True)
def _threads(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    torch.set_num_threads(2)


@pytest.fixture(scope="module")
def overflowing(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base with a token, "Z", whose embedding overflows when it is squared."""
    path = tiny.make_model(tmp_path_factory.mktemp("overflowing"), tied=False)
    model, tokenizer = AutoModelForCausalLM.from_pretrained(path), AutoTokenizer.from_pretrained(path)
    with torch.no_grad():
        model.model.embed_tokens.weight[tokenizer.convert_tokens_to_ids("Z")] = 3e38
    model.save_pretrained(path)
    return path


def of_kind(events: list[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    return [event for event in events if event["kind"] == kind]


def assert_saved_numbers_only(run: RunDirectory) -> None:
    for checkpoint in list_checkpoints(run.checkpoints):
        for name in ("trainable", "optimizer"):
            tensors = load_file(checkpoint / f"{name}.safetensors").values()
            assert all(tensor.isfinite().all() for tensor in tensors), checkpoint


def train_to_its_end(spec: RunSpec, setup: Setup | None = None) -> tuple[RunDirectory, Ending, list[dict[str, Any]]]:
    run, channel = create_run(spec), MemoryChannel()
    ending = Recipe(setup or build_setup(spec), run, channel).train()
    assert (ending.outcome, ending.cause) == ("failed", "not_finite")
    return run, ending, channel.events


@pytest.mark.parametrize(("what", "micro_batch"), [("gradient norm", 1), ("loss", 1), ("loss", 4)])
def test_a_row_that_makes_no_number_is_named_with_those_beside_it(
    tmp_path: Path, overflowing: Path, monkeypatch: pytest.MonkeyPatch, ledger: Ledger, what: str, micro_batch: int
):
    rows = [("is it here or there", "here")] * 30
    rows.insert(17, ("is it Z or is it not, they ask themselves", "not"))
    data = tmp_path / "rows.jsonl"
    # A blank line and a row that is set aside: it is the lines of the file that are told.
    lines = [json.dumps({"prompt": prompt, "completion": answer}) for prompt, answer in rows]
    data.write_text("\n".join(["", "no json", *lines]) + "\n")
    spec = make_spec(
        overflowing,
        data,
        data={"packing": False, "max_rejected_share": 0.5},
        train={"micro_batch": micro_batch, "gradient_accumulation": 4 // micro_batch, "epochs": 1.0},
        checkpoint={"every_steps": 1, "keep": 100},
    )
    setup = build_setup(spec)
    if what == "loss":
        # The token's embedding overflows in the backward pass; here its loss is no number either.
        add_gradients, z = setup.add_gradients, setup.tokenizer.convert_tokens_to_ids("Z")

        def lose(batch: Any, *others: Any) -> torch.Tensor:
            return add_gradients(batch, *others) * (math.nan if (batch.input_ids == z).any() else 1.0)

        monkeypatch.setattr(setup, "add_gradients", lose)
    run, ending, events = train_to_its_end(spec, setup)
    (told,) = of_kind(events, "not_finite")
    step, last = told["step"], of_kind(events, "step")[-1]
    assert (told["what"], told["checkpoint_step"]) == (what, step - 1 or None)
    assert last["step"] == step and last[what.replace(" ", "_")] is None
    first, *others = told["rows"]
    named = [[int(number) for number in re.findall(r"\d+", text.partition(" of ")[0])] for text in (first, *others)]
    assert 20 in named[0] and first.endswith(f" of {data}")
    in_step = [example.row for batch in setup.plan.micro_batches(step - 1) for example in batch]
    assert sorted(chain.from_iterable(named)) == sorted(row + 2 for row in in_step), (
        "each row of the step once, by its line"
    )
    # Of a loss it is known which micro-batch's it was; where that is a single row, it is that row.
    assert (first == f"line 20 of {data}") == (what == "loss" and micro_batch == 1)
    assert ending.why == f"the {what} was not a number at step {step:,}, which learnt from {first}"
    saved = [path.name for path in list_checkpoints(run.checkpoints)]
    assert saved == [f"step-{number:06d}" for number in range(1, step)]
    assert_saved_numbers_only(run)
    assert not run.outputs.exists()
    ledger.injected(f"not a number: {what}")


def test_a_run_whose_rate_is_too_high_goes_on_at_a_third_from_before_it(
    tmp_path: Path, llama: Path, finetui: Finetui, ledger: Ledger
):
    """As a person lives it: launch, look, type what the remedy says."""
    # Adapters scaled so far up that weights moved by a rate of 1 overflow within a few steps.
    spec = make_spec(
        llama,
        write_chats(tmp_path / "chats.jsonl", 40),
        method={"alpha": 1e19},
        optimizer={"learning_rate": 1.0},
        schedule={"kind": "constant", "warmup_share": 0.25},
        train={"max_steps": 8, "probe": False},
        checkpoint={"every_steps": 2},
    )
    run = launch(spec)
    wait_until(lambda: liveness(run) != "live", PATIENCE_SECONDS)
    summary, state = summarise(run), read_state(run)
    assert (summary.state, summary.cause) == ("failed", "not_finite"), summary.why
    assert len(of_kind(events_of(run), "attempt")) == 1, "a number of the run's own making comes again"
    assert (state.not_finite["step"], state.not_finite["checkpoint_step"]) == (state.step, 2)
    assert summary.remedy == (
        f"Look at these rows, and go on from step 2 with `finetui resume {run.name} --learning-rate 0.33`, "
        "a third of the rate that it had."
    )
    shown = finetui("show", run.name, "--json").json()
    assert (shown["cause"], shown["remedy"]) == ("not_finite", summary.remedy)

    with pytest.raises(Problem, match=r"optimizer\.learning_rate"):
        resume(run, learning_rate=-1.0)
    finetui("resume", run.name, "--learning-rate", "1e-3")
    wait_until(lambda: liveness(run) != "live", PATIENCE_SECONDS)
    summary = summarise(run)
    assert (summary.state, summary.cause, summary.step) == ("finished", "finished", 8)
    (adjusted,) = of_kind(events_of(run), "adjusted")
    assert adjusted["changes"] == {"optimizer.learning_rate": [1.0, 1e-3]}
    again = [event for event in of_kind(events_of(run), "step") if event["seq"] > adjusted["seq"]]
    assert [event["step"] for event in again] == list(range(3, 9))
    assert {event["learning_rate"] for event in again} == {1e-3}
    assert read_state(run).adjusted == {"optimizer.learning_rate": 1e-3} and run.spec() == spec
    assert_saved_numbers_only(run)
    ledger.injected("loss that is not a number: the rate")


def test_a_lower_rate_stays_in_force_over_later_resumes(spec: RunSpec, script: Any):
    script(["tell_adjusted"], ["save_at", 3], ["hang"])
    run = launch(spec)
    wait_until(lambda: read_state(run).notes.count("hanging") == 1)
    for number, rate in enumerate((1e-5, None, 1e-5, 2e-5), start=2):
        ask(run, "kill")
        wait_until(lambda: liveness(run) != "live")
        resume(run, learning_rate=rate)
        wait_until(lambda number=number: read_state(run).notes.count("hanging") == number)
    notes = [json.loads(note[9:]) for note in read_state(run).notes if note.startswith("adjusted {")]
    assert [each.get("optimizer.learning_rate") for each in notes] == [None, 1e-5, 1e-5, 1e-5, 2e-5]
    changes = [event["changes"]["optimizer.learning_rate"] for event in of_kind(events_of(run), "adjusted")]
    assert changes == [[spec.optimizer.learning_rate, 1e-5], [1e-5, 2e-5]]


@pytest.mark.parametrize("place", ["loss of the last step", "weights at a save", "held-out loss"])
def test_nothing_is_made_of_weights_that_are_no_numbers(
    tmp_path: Path, llama: Path, monkeypatch: pytest.MonkeyPatch, ledger: Ledger, place: str
):
    spec = make_spec(
        llama,
        write_chats(tmp_path / "chats.jsonl", 24),
        write_chats(tmp_path / "held-out.jsonl", 6, seed=9),
        train={"max_steps": 4, "gradient_accumulation": 2},
        evaluation={"every_steps": 2, "answers": 0},
        checkpoint={"every_steps": 2},
    )
    setup = build_setup(spec)
    add_gradients, update = setup.add_gradients, setup.update
    taken: list[int] = []

    def spoil_the_last(batch: Any, targets: Any, tally: Any = None) -> torch.Tensor:
        loss = add_gradients(batch, targets, tally)
        return loss * math.nan if len(taken) == 3 else loss

    def update_and_spoil() -> torch.Tensor:
        norm = update()
        taken.append(1)
        if place == "weights at a save" and len(taken) == 4:
            with torch.no_grad():
                next(iter(setup.parameters.values())).view(-1)[0] = math.inf
        return norm

    monkeypatch.setattr(setup, "update", update_and_spoil)
    if place == "loss of the last step":
        monkeypatch.setattr(setup, "add_gradients", spoil_the_last)
    run, channel = create_run(spec), MemoryChannel()
    recipe = Recipe(setup, run, channel)
    if place == "held-out loss":
        monkeypatch.setattr(recipe.measuring, "loss_at", lambda step: math.nan)
    ending = recipe.train()
    if place == "held-out loss":
        assert ending.cause == "finished"
        assert [(event["step"], event["best"]) for event in of_kind(channel.events, "checkpoint")] == [
            *((2, False), (4, False)),
        ]
        return
    (told,) = of_kind(channel.events, "not_finite")
    assert ending.cause == "not_finite" and (told["step"], told["checkpoint_step"]) == (4, 2)
    name = next(iter(setup.parameters))
    assert told["what"] == ("loss" if place == "loss of the last step" else name)
    assert told["rows"] and "from step 2" in ending.remedy and "--learning-rate 0.00033" in ending.remedy
    assert [path.name for path in list_checkpoints(run.checkpoints)] == ["step-000002"]
    assert_saved_numbers_only(run)
    assert not run.outputs.exists()
    ledger.injected(f"not a number: {place}")


def test_a_checkpoint_from_which_no_number_comes_is_told_to_be_spoilt(
    tmp_path: Path, llama: Path, monkeypatch: pytest.MonkeyPatch, ledger: Ledger
):
    spec = make_spec(llama, write_chats(tmp_path / "chats.jsonl", 24), train={"max_steps": 4})
    run, _ = train(spec, stop_after=2)
    spoilt = next(iter(list_checkpoints(run.checkpoints)))
    restore = Saving.restore

    def restore_huge(self: Saving, path: Path) -> Any:
        progress = restore(self, path)
        with torch.no_grad():
            for parameter in self._setup.parameters.values():
                parameter.fill_(1e30)  # finite, so that it could be saved, and past all use
        return progress

    monkeypatch.setattr(Saving, "restore", restore_huge)
    channel = MemoryChannel()
    ending = Recipe(build_setup(spec), run, channel).train()
    assert ending.cause == "not_finite" and ending.remedy == (
        f"The checkpoint of step 2 is spoilt already: move {spoilt} away, then "
        f"`finetui resume {run.name} --learning-rate 0.00033`."
    )
    assert spoilt.is_dir(), "it is a person's to move"
    ledger.injected("not a number: from a checkpoint on")


def test_the_first_loss_of_all_blames_the_rows_and_the_base(tmp_path: Path, overflowing: Path, ledger: Ledger):
    data = tmp_path / "rows.jsonl"
    data.write_text(json.dumps({"prompt": "is it Z", "completion": "not"}) + "\n")
    run, ending, events = train_to_its_end(make_spec(overflowing, data, train={"max_steps": 2}))
    assert of_kind(events, "not_finite")[0]["rows"] == [f"line 1 of {data}"]
    assert "not to blame" in ending.remedy and f"finetui inspect {overflowing}" in ending.remedy
    assert not list_checkpoints(run.checkpoints) and len(losses(events)) == 1
    ledger.injected("not a number: the first of all")
