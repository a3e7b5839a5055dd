"""Every objective from a file of its rows to a tuned model: it learns, and what it learns depends on nothing else."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from objective_data import write_rows
from safetensors.torch import load_file
from training import build_setup, losses, make_spec, train

from engine.run.checkpoints.manifest import list_checkpoints
from engine.spec import RunSpec
from engine.train.probe import take_trial_step
from profiles.problem import Problem

# The name of a case, the objective, the rows it learns from, and the metric that tells how well.
CASES = {
    "dpo": ("dpo", "pairs", "preference_accuracy"),
    "orpo": ("orpo", "pairs", "preference_accuracy"),
    "simpo": ("simpo", "pairs", "preference_accuracy"),
    "kto": ("kto", "thumbs", "feedback_accuracy"),
    "classification": ("classification", "labels", "accuracy"),
    "several classes": ("classification", "several_labels", "micro_f1"),
    "embedding": ("embedding", "similar", "recall_at_1"),
}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("data")
    return {kind: write_rows(folder / f"{kind}.jsonl", kind, 60) for kind in {case[1] for case in CASES.values()}}


def spec_of(
    case: str, model: Path, files: dict[str, Path], attention: str = "auto", **sections: dict[str, Any]
) -> RunSpec:
    objective, kind, _ = CASES[case]
    sections["data"] = {"held_out_share": 0.2, **sections.get("data", {})}
    sections["objective"] = {"kind": objective, **sections.get("objective", {})}
    spec = make_spec(model, files[kind], **sections)
    return spec.model_copy(update={"model": spec.model.model_copy(update={"attention": attention})})


def evaluations(events: list[dict[str, Any]], when: str) -> list[dict[str, Any]]:
    return [event for event in events if event["kind"] == "evaluation" and event["when"] == when]


# Together every method, both layouts and several families; each alone with the adapter that most people train.
LEARNING = [(case, "lora", "llama", "auto") for case in CASES]
LEARNING += [("dpo", "full", "qwen3", "eager"), ("kto", "partial", "gpt2", "auto"), ("orpo", "qlora", "llama", "auto")]
LEARNING += [("classification", "full", "gemma3", "auto"), ("classification", "qlora", "qwen2", "eager")]
LEARNING += [("embedding", "full", "llama", "eager"), ("embedding", "qlora", "qwen3", "auto")]
EVERYTHING = [
    pytest.param(case, method, family, attention, marks=pytest.mark.slow)
    for case in CASES
    for method in ("lora", "qlora", "partial", "full")
    for family in ("llama", "gemma3", "gpt2", "mixtral")
    for attention in ("auto", "eager")
    if (method, family) != ("qlora", "gpt2")  # its layers are no linear ones, which bitsandbytes leaves as they are
]


@pytest.mark.parametrize(("case", "method", "family", "attention"), [*LEARNING, *EVERYTHING])
def test_every_objective_learns(
    tmp_path: Path, files: dict[str, Path], case: str, method: str, family: str, attention: str
) -> None:
    spec = spec_of(
        case,
        tiny.make_model(tmp_path / "model", family),
        files,
        attention,
        method={"kind": method, "rank": 8, "alpha": 16.0, "trained_layers": 2},
        optimizer={"learning_rate": 1e-2 if method.endswith("lora") else 2e-3},
        train={"max_steps": 24, "micro_batch": 2, "gradient_accumulation": 2},
        evaluation={"every_steps": 8, "answers": 2},
    )
    run, events = train(spec)
    found = losses(events)
    assert sum(found[-3:]) < 0.8 * sum(found[:3])
    (before,), (after,) = evaluations(events, "before"), evaluations(events, "after")
    assert after["held_out_loss"] < before["held_out_loss"]
    metric = CASES[case][2]
    assert after["metrics"][metric] >= before["metrics"][metric]
    assert all(metric in each["metrics"] for each in evaluations(events, "during"))
    if not spec.objective.writes:
        assert after["answers"] == 0
    assert (run.outputs / ("adapter" if spec.method.adapts else "model")).is_dir()


@pytest.mark.parametrize("case", CASES)
def test_micro_batches_and_layouts_change_nothing(llama: Path, files: dict[str, Path], case: str) -> None:
    """A step of 4 x 1 rows is one of 1 x 4, packed or padded, whatever a unit has to know of the step's others."""
    found = []
    for rows, accumulation, attention in ((1, 4, "auto"), (4, 1, "auto"), (2, 2, "eager")):
        spec = spec_of(
            case,
            llama,
            files,
            attention,
            data={"packing": False, "group_by_length": False},
            train={"max_steps": 6, "micro_batch": rows, "gradient_accumulation": accumulation},
        )
        _, events = train(spec)
        found.append((losses(events), evaluations(events, "after")[0]["held_out_loss"]))
    for other, held_out in found[1:]:
        assert other == pytest.approx(found[0][0], abs=2e-4, rel=1e-4)
        assert held_out == pytest.approx(found[0][1], abs=2e-4, rel=1e-3)
    assert len(set(found[0][0])) > 1


@pytest.mark.parametrize("method", ["lora", "full"])
@pytest.mark.parametrize("case", [case for case in CASES if case not in ("orpo", "simpo")])
def test_a_resumed_run_is_bit_identical(llama: Path, files: dict[str, Path], case: str, method: str) -> None:
    spec = spec_of(
        case,
        llama,
        files,
        method={"kind": method, "dropout": 0.1 if method == "lora" else 0.0},
        train={"max_steps": 7, "gradient_accumulation": 2},
    )
    whole, whole_events = train(spec)
    parted, first = train(spec, stop_after=3)
    _, second = train(spec, parted)
    assert losses(first) + losses(second) == losses(whole_events)
    assert len(losses(first)) == 3
    for name in ("trainable", "optimizer", "random"):
        one, other = (
            load_file(list_checkpoints(run.checkpoints)[-1] / f"{name}.safetensors") for run in (whole, parted)
        )
        assert one.keys() == other.keys()
        assert all(torch.equal(one[key], other[key]) for key in one), name


def test_what_the_base_makes_of_the_rows_is_known_before_anything_is_learnt(
    llama: Path, files: dict[str, Path]
) -> None:
    """A run whose kept log-probabilities are lost takes them from the base again, not from what it has learnt."""
    spec = spec_of("dpo", llama, files, method={"kind": "full"}, train={"max_steps": 6})
    _, whole = train(spec)
    run, first = train(spec, stop_after=3)
    (run.evaluation / "references.safetensors").unlink()
    _, second = train(spec, run)
    assert losses(first) + losses(second) == losses(whole)


@pytest.mark.parametrize(
    ("objective", "kind", "found"),
    [
        ("next_token", "pairs", "next_token learns from conversations or plain text"),
        ("dpo", "thumbs", "but the data is answers with a thumb up or down"),
        ("embedding", "labels", "but the data is texts with labels"),
    ],
)
def test_rows_of_another_kind_are_told_with_the_objective_for_them(
    llama: Path, files: dict[str, Path], objective: str, kind: str, found: str
) -> None:
    with pytest.raises(Problem, match=found):
        build_setup(make_spec(llama, files[kind], objective={"kind": objective}))


def test_a_single_class_is_nothing_to_tell_apart(tmp_path: Path, llama: Path) -> None:
    path = tmp_path / "one.jsonl"
    path.write_text('{"text": "the rain", "label": "wet"}\n' * 3 + '{"text": "a street", "label": "wet"}\n')
    with pytest.raises(Problem, match="only one class"):
        build_setup(make_spec(llama, path, objective={"kind": "classification"}))


@pytest.mark.parametrize("case", ["dpo", "kto", "classification", "embedding"])
def test_a_trial_step_takes_the_widest_rows_and_changes_nothing(
    tmp_path: Path, llama: Path, files: dict[str, Path], case: str
) -> None:
    spec = spec_of(case, llama, files, train={"max_steps": 2, "micro_batch": 2, "gradient_accumulation": 2})
    setup = build_setup(spec)
    setup.objective.refer(
        tmp_path,
        token_budget=64,
        device=setup.device,
        autocast=setup.accelerator.autocast,
        progress=lambda done, total: None,
        keep=lambda size, write: write(),
    )
    before = {name: parameter.detach().clone() for name, parameter in setup.parameters.items()}
    random = torch.get_rng_state()
    trial = take_trial_step(setup, limit_seconds=math.inf)
    assert trial.tokens == setup.objective.collate(setup.plan.heaviest(padded=setup.forward.padded)).input_ids.numel()
    assert all(torch.equal(parameter, before[name]) for name, parameter in setup.parameters.items())
    assert torch.equal(torch.get_rng_state(), random)
