"""The trial step: it measures, tells and remembers, and leaves no trace in what is learnt."""

from __future__ import annotations

import json
import math
import mmap
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from safetensors.torch import load_file
from training import build_setup, losses, make_spec, write_chats

from engine.fit.memory_rows import Expected, predict_for_tokens, read_rows
from engine.propose import settings_of
from engine.run.checkpoints.manifest import list_checkpoints
from engine.run.creating import create_run
from engine.run.processes.channel import MemoryChannel
from engine.run.telemetry.folding import fold
from engine.spec import RunSpec
from engine.train.probe import take_trial_step
from engine.train.recipe import Recipe
from profiles.geometry import read_geometry
from profiles.hardware import Hardware, probe
from profiles.memory import estimate


@pytest.fixture(scope="module")
def chats(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_chats(tmp_path_factory.mktemp("data") / "chats.jsonl", 64)


@pytest.fixture(scope="module")
def held_out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_chats(tmp_path_factory.mktemp("held-out") / "chats.jsonl", 8, seed=9)


@pytest.fixture(scope="module")
def hardware(tmp_path_factory: pytest.TempPathFactory) -> Hardware:
    return replace(probe(tmp_path_factory.mktemp("runs")), gpus=())


def _expected(spec: RunSpec, hardware: Hardware) -> Expected:
    geometry = read_geometry(spec.model.path)
    settings = settings_of(spec, geometry, hardware)
    return Expected(geometry, settings, estimate(geometry, settings), "cpu")


def _train(spec: RunSpec, expected: Expected | None) -> tuple[Any, list[dict[str, Any]]]:
    run, channel = create_run(spec), MemoryChannel()
    Recipe(build_setup(spec), run, channel, expected=expected).train()
    return run, channel.events


@pytest.mark.parametrize(
    ("method", "optimizer"),
    [
        *(("lora", "adamw"), ("full", "adamw"), ("partial", "adafactor"), ("qlora", "adamw")),
        *(("full", "adamw_8bit"), ("lora", "adafactor")),
    ],
)
def test_a_run_learns_the_same_with_and_without_a_trial(
    llama: Path, chats: Path, held_out: Path, hardware: Hardware, method: str, optimizer: str
):
    spec = make_spec(
        llama,
        chats,
        held_out,
        method={"kind": method, "dropout": 0.1 if method == "lora" else 0.0, "trained_layers": 1},
        optimizer={"kind": optimizer, "weight_decay": 0.1},
        train={"max_steps": 4, "gradient_accumulation": 2, "micro_batch": 2},
    )
    found = []
    for expected in (None, _expected(spec, hardware)):
        run, events = _train(spec, expected)
        assert sum(event["kind"] == "probe" for event in events) == (expected is not None)
        newest = list_checkpoints(run.checkpoints)[-1]
        files = {name: load_file(newest / f"{name}.safetensors") for name in ("trainable", "optimizer", "random")}
        found.append((losses(events), files))
    (plain_losses, plain), (tried_losses, tried) = found
    assert len(plain_losses) == 4
    assert tried_losses == plain_losses
    for name, tensors in plain.items():
        assert tensors.keys() == tried[name].keys()
        assert all(torch.equal(tensor, tried[name][key]) for key, tensor in tensors.items()), name


@pytest.mark.parametrize("optimizer", ["adamw", "adamw_8bit", "paged_adamw", "adafactor"])
def test_a_trial_leaves_every_state_as_it_was(llama: Path, chats: Path, held_out: Path, optimizer: str):
    fields = {"kind": "lora", "dropout": 0.3}
    spec = make_spec(llama, chats, held_out, method=fields, optimizer={"kind": optimizer, "weight_decay": 0.5})
    setup = build_setup(spec)
    before = {name: parameter.detach().clone() for name, parameter in setup.model.named_parameters()}
    random, training = torch.get_rng_state(), setup.model.training
    take_trial_step(setup)
    assert torch.equal(torch.get_rng_state(), random)
    assert setup.model.training == training
    assert all(torch.equal(parameter, before[name]) for name, parameter in setup.model.named_parameters())
    assert all(parameter.grad is None for parameter in setup.parameters.values())
    states = [state for state in setup.optimizer.state.values() if state]
    assert len(states) == len(setup.parameters)
    for state in states:
        moments = {key: value for key, value in state.items() if not key.startswith("qmap")}
        assert all(not torch.as_tensor(value).any() for value in moments.values())
        assert all(value.any() for key, value in state.items() if key.startswith("qmap"))


def test_a_trial_takes_the_heaviest_rows_whatever_the_layout(llama: Path, chats: Path, held_out: Path):
    for packing in (True, False):
        data = {"packing": packing, "sequence_length": 64}
        setup = build_setup(make_spec(llama, chats, held_out, data=data, train={"micro_batch": 3}))
        tried = take_trial_step(setup, limit_seconds=math.inf).tokens
        steps = [batch for step in range(setup.plan.steps_per_epoch) for batch in setup.plan.micro_batches(step)]
        assert tried >= max(setup.forward.collate(batch).input_ids.numel() for batch in steps)
        assert tried <= 3 * 64
        padded = [setup.plan.heaviest(padded=True) for _ in range(2)]
        sizes = [len(batch) * max(len(each.input_ids) for each in batch) for batch in (padded[0], *steps)]
        assert sizes[0] == max(sizes)
        assert [each.row for each in padded[0]] == [each.row for each in padded[1]]


def test_a_slow_machine_tries_fewer_tokens(llama: Path, chats: Path, held_out: Path):
    setup = build_setup(make_spec(llama, chats, held_out, train={"micro_batch": 4, "gradient_accumulation": 2}))
    whole = take_trial_step(setup, limit_seconds=math.inf)  # however busy this machine is just now
    cut = take_trial_step(setup, limit_seconds=0.0)
    assert cut.tokens < whole.tokens


def test_the_peak_of_a_trial_is_measured_told_and_remembered(
    tmp_path: Path, chats: Path, held_out: Path, hardware: Hardware
):
    model = tiny.make_model(tmp_path / "model", hidden=256, layers=4)
    spec = make_spec(model, chats, held_out, method={"kind": "full"}, train={"max_steps": 3, "micro_batch": 8})
    expected = _expected(spec, hardware)
    _, events = _train(spec, expected)
    (told,) = (event for event in events if event["kind"] == "probe")
    prediction = predict_for_tokens(expected, told["tokens"], steps_only=True)
    assert told["predicted"] == prediction.believed_bytes == prediction.process_bytes
    assert told["allocated"] is None
    # What learns is there four times over: weights, gradients and two moments.
    parameters = sum(tensor.numel() for tensor in load_file(model / "model.safetensors").values())
    assert told["measured"] > 16 * parameters
    assert told["seconds"] > 0
    rows = list(read_rows())
    assert [row["outcome"] for row in rows] == ["ok", "ok"]  # the trial, and the whole run
    assert rows[0]["process_bytes"] == told["measured"]
    assert rows[1]["process_bytes"] >= told["measured"]
    assert rows[0]["device"] == "cpu"
    assert (rows[0]["method"], rows[0]["micro_batch"]) == ("full", 8)
    # A process of the tests is none of training alone, so the estimate is off, and a person is told.
    off = told["measured"] / told["predicted"] - 1
    notes = [event["text"] for event in events if event["kind"] == "note"]
    assert any("trial step took" in note for note in notes) == (abs(off) > expected.estimate.error_share)
    state = fold({"v": 1, "seq": seq, "at": 0.0, **event} for seq, event in enumerate(events))
    assert state.probe == {name: told[name] for name in ("predicted", "measured", "allocated", "seconds", "tokens")}
    assert json.loads(json.dumps(dict(state.probe))) == dict(state.probe)


def test_a_trial_can_be_left_out_and_is_never_taken_by_a_resumed_run(
    llama: Path, chats: Path, held_out: Path, hardware: Hardware
):
    spec = make_spec(llama, chats, held_out, train={"max_steps": 4, "probe": False})
    assert not any(event["kind"] == "probe" for event in _train(spec, _expected(spec, hardware))[1])
    spec = make_spec(llama, chats, held_out, train={"max_steps": 4}, checkpoint={"every_steps": 2})
    run, _ = _train(spec, None)
    channel = MemoryChannel()
    Recipe(build_setup(spec), run, channel, expected=_expected(spec, hardware)).train()
    assert not any(event["kind"] == "probe" for event in channel.events)


def test_the_peak_of_a_run_outlives_a_mark(llama: Path, chats: Path):
    setup = build_setup(make_spec(llama, chats))
    with mmap.mmap(-1, 64 << 20) as held:  # not the heap's, which may keep it
        held.write(bytes(64 << 20))
    peak = setup.memory.peak_bytes()
    assert setup.memory.mark()
    assert setup.memory.peak_since_mark_bytes() < peak
    assert setup.memory.peak_bytes() == peak
