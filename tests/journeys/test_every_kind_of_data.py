"""Each kind of content from its own sample file to a model that other libraries load, with everything proposed."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from command import REPOSITORY, Finetui
from peft import PeftModel
from training import build_setup
from transformers import (
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PreTrainedModel,
)

from engine.propose import propose
from engine.run.creating import create_run
from engine.run.processes.channel import MemoryChannel
from engine.spec import SourceSection
from engine.train.recipe import Recipe
from profiles.hardware import probe

SAMPLES = REPOSITORY / "tests" / "data" / "samples"
TOLD = tomllib.loads((SAMPLES / "samples.toml").read_text())
DEMO_MODEL = REPOSITORY / "engine" / "demo" / "scribe-2m"
# One of each kind, in six formats.
OF_EACH_KIND = (
    *("tool_calls.jsonl", "handbook", "preference.parquet", "feedback.csv", "topics.tsv", "searches.arrow"),
)
METRICS = {
    "next_token": set(),
    "dpo": {"preference_accuracy", "reward_margin"},
    "kto": {"feedback_accuracy", "reward_margin"},
    "classification": {"macro_f1", "accuracy"},
    "embedding": {"recall_at_1"},
}
AUTO = {"classification": AutoModelForSequenceClassification, "embedding": AutoModel}


@pytest.mark.parametrize("name", OF_EACH_KIND)
def test_each_kind_of_content_is_learnt_as_proposed(
    name: str, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FINETUI_HOME", str(tmp_path / "home"))
    told, objective = TOLD[name], TOLD[name]["objective"]
    assert {TOLD[each]["kind"] for each in OF_EACH_KIND} == {each["kind"] for each in TOLD.values()}
    model = tiny.make_model(tmp_path / "base", "qwen3")
    asked = {"train": {"max_steps": 3, "probe": False}, "evaluation": {"answers": 0}}
    proposal = propose(model, [SAMPLES / name], None, probe(tmp_path), asked)
    assert proposal.spec.objective.kind == objective
    # The model's own template leaves tool calls out, which the plan notices before any row is set aside.
    template = proposal.spec.data.chat_template
    assert template == told.get("chat_template", "model") and ("data.chat_template" in proposal.reasons) == (
        template != "model"
    )

    setup = build_setup(proposal.spec)
    (source,) = setup.dataset.sources
    assert source.rows == told["rows"] == source.trained + source.held_out and not source.set_aside
    run, channel = create_run(proposal.spec), MemoryChannel()
    Recipe(setup, run, channel).train()
    before, after = (
        next(each for each in channel.events if each["kind"] == "evaluation" and each["when"] == when)
        for when in ("before", "after")
    )
    assert set(after.get("metrics", {})) == METRICS[objective]
    assert after["held_out_loss"] < before["held_out_loss"]

    base: Any = AUTO.get(objective, AutoModelForCausalLM)
    labels = {"num_labels": 4} if objective == "classification" else {}
    tuned = PeftModel.from_pretrained(base.from_pretrained(model, **labels), run.outputs / "adapter")
    _answers(tuned, run.outputs / "adapter")
    if objective == "classification":
        classes = json.loads((run.outputs / "adapter" / "classes.json").read_text())
        assert classes["labels"] == ["account", "fee", "loan", "room"]


@pytest.mark.slow
@pytest.mark.parametrize("name", TOLD)
def test_every_sample_goes_from_the_command_line_to_a_merged_model(name: str, finetui: Finetui) -> None:
    told, objective = TOLD[name], TOLD[name]["objective"]
    data = [{"path": str(SAMPLES / name), **told.get("source", {})}]
    section = SourceSection(**data[0])
    args: tuple[object, ...]
    if told.get("source"):
        spec = finetui.home.parent / "spec.toml"
        spec.write_text(propose(DEMO_MODEL, [section], None, probe(spec.parent), {}, name="walk").spec.to_toml())
        args = (spec,)
    else:
        args = ("--model", DEMO_MODEL, "--data", SAMPLES / name, "--name", "walk")
    done = finetui("train", *args, "--set", "train.max_steps=12", "--wait")
    assert done.status == 0, done.stdout + done.stderr
    shown = finetui("show", "walk", "--json").json()
    (source,) = shown["lineage"]["data"]["sources"]
    assert source["rows"] == told["rows"] == source["trained"] + source["held_out"] + source["set_aside"]
    first, last = shown["evaluations"][0], shown["evaluations"][-1]
    assert METRICS[objective] <= set(last["metrics"])
    assert last["held_out_loss"] < first["held_out_loss"]
    words = finetui("show", "walk").stdout
    assert f"learns   {objective}, from " in words and f"{told['rows']} rows: " in words
    for to in ("adapter", "merged"):
        written = finetui("export", "walk", "--to", to, "--json")
        assert written.status == 0, written.stdout + written.stderr
    merged = Path(shown["path"]) / "exports" / "merged"
    _answers(AUTO.get(objective, AutoModelForCausalLM).from_pretrained(merged), merged)


def _answers(model: PreTrainedModel | PeftModel, folder: Path) -> None:
    """The model takes a text of its tokenizer and gives numbers."""
    ids = AutoTokenizer.from_pretrained(folder)("Is a study room free on Monday?", return_tensors="pt").input_ids
    with torch.no_grad():
        assert torch.isfinite(model.eval()(input_ids=ids)[0]).all()
