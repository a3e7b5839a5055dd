"""A run that was killed, resumed, stopped and resumed again ends with the very bits of one that was left alone."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from fault_ledger import Ledger
from objective_data import write_rows
from safetensors.torch import load_file
from scripts import told_by
from training import StoppingChannel, build_setup, make_spec, write_chats

from engine.run.checkpoints.manifest import list_checkpoints
from engine.run.creating import create_run
from engine.run.directory import RunDirectory
from engine.spec import RunSpec
from engine.train.recipe import Recipe

STEPS = 11


@dataclass(frozen=True)
class Case:
    """A kind of run: what its rows are, and its settings."""

    rows: str = "chats"
    sections: dict[str, dict[str, Any]] = field(default_factory=dict)
    model: str = "plain"
    precision: dict[str, str] = field(default_factory=dict)
    """Fields of the section `model`."""


# In these the random numbers, the order of rows and the state of the optimizer all matter, and everything is on.
LORA = {"kind": "lora", "dropout": 0.2}
UNPACKED = {"packing": False, "group_by_length": True}
CASES = {
    "lora, dropout, packed": Case(sections={"method": LORA}),
    "lora, dropout, by length": Case(sections={"method": LORA, "data": UNPACKED}),
    "lora, dropout, shuffled": Case(
        sections={"method": LORA, "data": {"packing": False, "group_by_length": False}},
    ),
    "lora, recomputing": Case(sections={"method": LORA, "train": {"gradient_checkpointing": 1}}),
    "lora, eager, dropout in the attention": Case(
        sections={"method": LORA}, model="with dropout", precision={"attention": "eager"}
    ),
    "lora, several weighted sources": Case("weighted", {"method": LORA}),
    "lora, sources that repeat": Case("repeated", {"method": LORA, "data": UNPACKED}),
    "lora, bf16": Case(sections={"method": LORA}, precision={"dtype": "bf16"}),
    "the best is not the last": Case(sections={"method": LORA, "optimizer": {"learning_rate": 0.3}}),
    "saved by the stop alone": Case(sections={"method": LORA, "checkpoint": {"every_steps": 0}}),
    "qlora": Case(sections={"method": {"kind": "qlora", "dropout": 0.2}}),
    "partial": Case(sections={"method": {"kind": "partial", "trained_layers": 1}}),
    "full, adamw": Case(sections={"method": {"kind": "full"}}),
    "full, adamw 8 bit": Case(sections={"method": {"kind": "full"}, "optimizer": {"kind": "adamw_8bit"}}),
    "full, paged adamw": Case(sections={"method": {"kind": "full"}, "optimizer": {"kind": "paged_adamw"}}),
    "full, paged adamw 8 bit": Case(sections={"method": {"kind": "full"}, "optimizer": {"kind": "paged_adamw_8bit"}}),
    "full, adafactor": Case(sections={"method": {"kind": "full"}, "optimizer": {"kind": "adafactor"}}),
    "lora, linear schedule": Case(sections={"method": LORA, "schedule": {"kind": "linear", "warmup_share": 0.3}}),
    "dpo": Case("pairs", {"method": LORA, "objective": {"kind": "dpo"}}),
    "orpo": Case("pairs", {"method": LORA, "objective": {"kind": "orpo"}}),
    "simpo": Case("pairs", {"method": LORA, "objective": {"kind": "simpo"}}),
    "kto": Case("thumbs", {"method": LORA, "objective": {"kind": "kto"}}),
    "classification": Case("labels", {"method": LORA, "objective": {"kind": "classification"}}),
    "several classes": Case("several_labels", {"method": LORA, "objective": {"kind": "classification"}}),
    "embedding": Case("similar", {"method": LORA, "objective": {"kind": "embedding"}}),
}
# Of the rest each differs from one of these in one thing only.
QUICK = ("lora, dropout, packed", "lora, sources that repeat", "full, adamw 8 bit", "kto")


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("FINETUI_HOME", str(tmp_path / "home"))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    plain = tiny.make_model(tmp_path_factory.mktemp("plain"))
    dropping = tiny.make_model(tmp_path_factory.mktemp("dropping"), "gpt2")  # has dropout in its config, of 0.1
    return {"plain": plain, "with dropout": dropping}


class Killed(BaseException):
    """Stands for SIGKILL between two steps: nothing is written any more."""


class Fatal(StoppingChannel):
    """A channel whose process is gone once step `at` was told."""

    def __init__(self, at: int):
        super().__init__()
        self.at = at

    def send(self, kind: str, **fields: Any) -> None:
        super().send(kind, **fields)
        if kind == "step" and fields["step"] >= self.at:
            raise Killed


def spec_of(case: Case, models: dict[str, Path], folder: Path) -> RunSpec:
    """Two epochs and a bit of few rows, measured and saved at steps of their own."""
    first, second = folder / "first.jsonl", folder / "second.jsonl"
    sections = {name: dict(values) for name, values in case.sections.items()}
    if case.rows in ("chats", "weighted", "repeated"):
        write_chats(first, 30)
        write_chats(second, 20, seed=1)
    else:
        write_rows(first, case.rows, 36)
    data: dict[str, Any] = {"sequence_length": 96, "held_out_share": 0.25, **sections.pop("data", {})}
    if case.rows == "weighted":
        data["train"] = [{"path": str(first), "weight": 3.0}, {"path": str(second), "weight": 1.0}]
    elif case.rows == "repeated":
        data["train"] = [{"path": str(first), "repeats": 0.7}, str(second)]
    spec = make_spec(
        models[case.model],
        first,
        data=data,
        optimizer={"learning_rate": 3e-3, **sections.pop("optimizer", {})},
        train={"max_steps": STEPS, "micro_batch": 2, "gradient_accumulation": 2, **sections.pop("train", {})},
        evaluation={"every_steps": 2, "answers": 2, "max_new_tokens": 4},
        checkpoint={"every_steps": 3, "keep": 1, **sections.pop("checkpoint", {})},
        **sections,
    )
    return spec.model_copy(update={"model": spec.model.model_copy(update=case.precision)})


def run_once(spec: RunSpec, run: RunDirectory, channel: StoppingChannel) -> list[dict[str, Any]]:
    """One process's work on a run, until it ends or dies; what it told."""
    # What else happened in a process before a run goes on must not matter, and how many threads a shell says neither.
    torch.set_num_threads(2 if list_checkpoints(run.checkpoints) else 1)
    torch.manual_seed(random.randrange(2**31))
    random.seed(torch.randint(2**31, ()).item())
    with suppress(Killed):
        Recipe(build_setup(spec), run, channel).train()
    return channel.events


def told(events: list[dict[str, Any]]) -> dict[Any, tuple[Any, ...]]:
    """Every number that steps and planned measurements told, by step. Steps that were done again said the same."""
    found: dict[Any, tuple[Any, ...]] = {}
    for event in events:
        if event["kind"] == "step":
            key, names = ("step", event["step"]), ("loss", "gradient_norm", "learning_rate", "tokens", "epoch")
        elif event["kind"] == "evaluation" and event["when"] == "during" and event["step"] % 2 == 0:
            key, names = ("held-out", event["step"]), ("held_out_loss", "metrics")
        else:
            continue
        values = tuple(event.get(name) for name in names)
        assert found.setdefault(key, values) == values, key
    return found


def differences(one: RunDirectory, other: RunDirectory) -> list[str]:
    """What two runs have in their last checkpoints and outputs that is not the same to the bit."""
    found = []
    (*_, last), (*_, others_last) = (list_checkpoints(run.checkpoints) for run in (one, other))
    assert last.name == others_last.name
    for name in ("trainable", "optimizer", "random"):
        tensors, others = (load_file(path / f"{name}.safetensors") for path in (last, others_last))
        assert tensors and tensors.keys() == others.keys()
        found += [f"{name}: {key}" for key, value in tensors.items() if not torch.equal(value, others[key])]
    if (last / "state.json").read_bytes() != (others_last / "state.json").read_bytes():
        found.append("state.json")
    for path in sorted(one.outputs.rglob("*.safetensors")):
        if path.read_bytes() != (other.outputs / path.relative_to(one.outputs)).read_bytes():
            found.append(path.name)
    assert list(one.outputs.rglob("*.safetensors"))
    return found


def interrupt_and_compare(spec: RunSpec, moments: random.Random) -> tuple[list[str], list[int]]:
    """The differences of a run that was killed and stopped from one that was not, and the steps when that was."""
    whole, parted = create_run(spec), create_run(spec)
    wanted = told(run_once(spec, whole, StoppingChannel()))
    killed_at = moments.randint(1, STEPS - 3)
    stopped_at = moments.randint(killed_at, STEPS - 1)
    events = run_once(spec, parted, Fatal(killed_at))
    events += run_once(spec, parted, StoppingChannel(stopped_at))
    events += run_once(spec, parted, StoppingChannel())
    found = differences(whole, parted)
    if told(events) != wanted:
        found.append("what was told of steps and held-out rows")
    return found, [killed_at, stopped_at]


@pytest.mark.parametrize(
    "name", [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in CASES]
)
def test_a_run_that_is_killed_and_stopped_ends_with_the_same_bits(
    name: str, models: dict[str, Path], tmp_path: Path, ledger: Ledger
):
    spec = spec_of(CASES[name], models, tmp_path)
    found, moments = interrupt_and_compare(spec, random.Random(name))
    ledger.injected("end between two steps", 2)
    ledger.resumed("end between two steps", exact=not found)
    ledger.resumed("end between two steps", exact=not found)
    assert not found, f"killed and stopped after steps {moments}"


def test_a_stop_between_two_saves_does_not_decide_what_is_handed_over_in_the_end(
    models: dict[str, Path], tmp_path: Path
):
    for rate in (0.3, 0.1, 0.5, 0.2, 1.0, 0.05):  # high enough for the loss to go up and down
        case = Case(sections={"method": LORA, "optimizer": {"learning_rate": rate}})
        spec = spec_of(case, models, tmp_path)
        spec = spec.model_copy(update={"evaluation": spec.evaluation.model_copy(update={"every_steps": 1})})
        whole = create_run(spec)
        losses = held_out(run_once(spec, whole, StoppingChannel()))
        saved = {3, 6, 9, STEPS}
        best = min(losses, key=lambda step: losses[step])
        if best not in saved:
            break
    else:
        pytest.fail("no run was better between two saves than at any of them")
    parted = create_run(spec)
    run_once(spec, parted, StoppingChannel(best))
    learnt = load_file(list_checkpoints(parted.checkpoints)[-1] / "trainable.safetensors")
    handed_over = load_file(parted.outputs / "adapter" / "adapter_model.safetensors")
    assert all(
        torch.equal(value, learnt[name.replace(".weight", ".default.weight")]) for name, value in handed_over.items()
    )
    run_once(spec, parted, StoppingChannel())
    assert differences(whole, parted) == []


def held_out(events: list[dict[str, Any]]) -> dict[int, float]:
    """Held-out loss by step, of the measurements between the first and the last."""
    during = [event for event in events if event["kind"] == "evaluation" and event["when"] == "during"]
    return {event["step"]: event["held_out_loss"] for event in during}


REAL = ("qlora", "full, adamw 8 bit", "partial", "dpo", "kto", "classification", "embedding")
KILLS_A_RUN = 3


@pytest.mark.slow
def test_real_workers_that_are_killed_end_with_the_same_bits(
    models: dict[str, Path], tmp_path: Path, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
):
    """Processes of their own, killed by the kernel at moments of chance: in a step, a save, or while they start."""
    specs = tmp_path / "specs"
    specs.mkdir()
    for number, name in enumerate(REAL):
        (folder := tmp_path / f"rows-{number}").mkdir()
        spec = spec_of(CASES[name], models, folder)
        spec = spec.model_copy(update={"train": spec.train.model_copy(update={"max_steps": 60, "probe": False})})
        (specs / f"{name}.toml").write_text(spec.to_toml())
    seed = random.SystemRandom().randrange(1 << 32)
    print(f"seed {seed}")
    ends = told_by("workers_under_kills.py", tmp_path, KILLS_A_RUN, seed)
    assert sorted(end["name"] for end in ends) == sorted(REAL)
    for end in ends:
        ledger.injected("SIGKILL of the worker", end["kills"])
        for _ in range(end["inside"]):
            ledger.survived_inside_a_save()
        ledger.resumed("SIGKILL", exact=end["exact"])
        assert end["exact"] and end["kills"] > 0, end
