"""Models that classify or embed, exported and loaded by the libraries that people use them with."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from objective_data import CLASSES, write_rows
from training import make_spec, train

from engine.export.request import export_run
from engine.run.telemetry.journal import JournalWriter
from profiles.problem import Problem


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FINETUI_HOME", str(tmp_path / "home"))
    torch.set_num_threads(2)


def trained(tmp_path: Path, objective: str, kind: str, method: str, family: Any = "llama", **settings: Any) -> Any:
    """A finished run, its held-out rows, and what it said of them at its end."""
    model = tiny.make_model(tmp_path / "base", family)
    rows, held_out = (write_rows(tmp_path / f"{name}.jsonl", kind, 24, seed) for seed, name in enumerate(("a", "b")))
    spec = make_spec(
        model,
        rows,
        held_out,
        method={"kind": method, "rank": 8, "trained_layers": 1},
        objective={"kind": objective, **settings},
        optimizer={"learning_rate": 5e-3},
        train={"max_steps": 12},
    )
    run, events = train(spec)
    journal = JournalWriter(run.events_path)  # as the supervisor would: the card tells what it says
    for event in events:
        if event["kind"] == "evaluation":
            journal.append("evaluation", **{name: value for name, value in event.items() if name != "kind"})
    journal.close()
    (after,) = [event for event in events if event["kind"] == "evaluation" and event["when"] == "after"]
    return run, [json.loads(line) for line in held_out.read_text().splitlines()], after["metrics"]


@pytest.mark.parametrize(
    ("kind", "method", "family", "to"),
    [
        ("labels", "lora", "llama", "adapter"),
        pytest.param("labels", "qlora", "qwen3", "merged", marks=pytest.mark.slow),
        ("several_labels", "lora", "gemma3", "merged"),
        ("several_labels", "partial", "gpt2", "merged"),
        ("labels", "full", "llama", "merged"),
    ],
)
def test_a_classifier_says_elsewhere_what_it_said_in_the_run(
    tmp_path: Path, kind: str, method: str, family: str, to: Any
) -> None:
    from peft import PeftModel
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    run, rows, metrics = trained(tmp_path, "classification", kind, method, family)
    into = export_run(run, to, tmp_path / "exported")
    if to == "adapter":
        classes = json.loads((into / "classes.json").read_text())
        base = AutoModelForSequenceClassification.from_pretrained(
            run.spec().model.path, id2label=dict(enumerate(classes["labels"])), pad_token_id=classes["padding_id"]
        )
        model = PeftModel.from_pretrained(base, into)
    else:
        model = AutoModelForSequenceClassification.from_pretrained(into)
        problem = {"labels": "single_label_classification", "several_labels": "multi_label_classification"}[kind]
        assert model.config.problem_type == problem
    names = [model.config.id2label[index] for index in range(len(CLASSES))]
    assert names == sorted(CLASSES)
    tokenizer = AutoTokenizer.from_pretrained(into)
    # All together, so that padding matters.
    batch = tokenizer([row["text"] for row in rows], return_tensors="pt", padding=True)
    with torch.no_grad():
        logits = model.eval()(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
    right = 0
    for row, scores in zip(rows, logits, strict=True):
        if kind == "labels":
            right += names[int(scores.argmax())] == row["label"]
        else:
            right += {name for name, score in zip(names, scores, strict=True) if score > 0} == set(row["labels"])
    slack = 1 if method == "qlora" else 0  # merged into weights that were not quantised
    assert right == pytest.approx(metrics["accuracy"] * len(rows), abs=slack + 1e-6)
    assert "AutoModelForSequenceClassification" in (card := (into / "README.md").read_text()) or "pipeline(" in card
    assert "| Accuracy | " in card


@pytest.mark.parametrize(
    ("method", "to", "pooling"),
    [
        ("lora", "adapter", "mean"),
        ("lora", "merged", "last"),
        pytest.param("qlora", "merged", "mean", marks=pytest.mark.slow),
        ("full", "merged", "mean"),
    ],
)
def test_vectors_are_elsewhere_what_they_were_in_the_run(tmp_path: Path, method: str, to: Any, pooling: str) -> None:
    run, rows, metrics = trained(tmp_path, "embedding", "similar", method, pooling=pooling)
    into = export_run(run, to, tmp_path / "exported")
    encode = sentence_encoder(run.spec().model.path, into, adapter=to == "adapter")
    anchors, positives = (encode([row[part] for row in rows]) for part in ("anchor", "positive"))
    candidates = torch.cat((positives, encode([row["negative"] for row in rows if "negative" in row])))
    found = (anchors @ candidates.T).argmax(1) == torch.arange(len(rows))
    slack = 1 if method == "qlora" else 0
    assert float(found.sum()) == pytest.approx(metrics["recall_at_1"] * len(rows), abs=slack + 1e-4)
    card = (into / "README.md").read_text()
    assert "SentenceTransformer(" in card
    assert "| Recall at 1 | " in card


def sentence_encoder(base: Path, folder: Path, *, adapter: bool) -> Callable[[list[str]], torch.Tensor]:
    """What sentence-transformers makes of a folder: the modules that modules.json lists, in order."""
    from peft import PeftModel
    from transformers import AutoModel, AutoTokenizer

    types = [module["type"].rpartition(".")[2] for module in json.loads((folder / "modules.json").read_text())]
    assert types == ["Transformer", "Pooling", "Normalize"]
    pooling = json.loads((folder / "1_Pooling" / "config.json").read_text())
    assert [name for name, value in pooling.items() if value is True and name != "include_prompt"] in (
        ["pooling_mode_mean_tokens"],
        ["pooling_mode_lasttoken"],
    )
    longest = json.loads((folder / "sentence_bert_config.json").read_text())["max_seq_length"]
    model = AutoModel.from_pretrained(base if adapter else folder)
    model = PeftModel.from_pretrained(model, folder) if adapter else model
    assert model.config.hidden_size == pooling["word_embedding_dimension"]
    tokenizer = AutoTokenizer.from_pretrained(folder)

    @torch.no_grad()
    def encode(texts: list[str]) -> torch.Tensor:
        batch = tokenizer(texts, return_tensors="pt", padding=True, truncation=True, max_length=longest)
        mask = batch["attention_mask"]
        states = model.eval()(input_ids=batch["input_ids"], attention_mask=mask).last_hidden_state
        if pooling["pooling_mode_mean_tokens"]:
            vectors = (states * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
        else:
            vectors = states[torch.arange(len(texts)), (mask * torch.arange(mask.shape[1])).argmax(1)]
        return torch.nn.functional.normalize(vectors, dim=1)

    return encode


def test_a_model_that_does_not_write_is_not_talked_with(tmp_path: Path) -> None:
    from engine.serve.session import ChatSession

    run, _, _ = trained(tmp_path, "classification", "labels", "lora")
    with pytest.raises(Problem, match="does not write answers"), ChatSession(run) as session:
        session.start()


def test_an_adapter_without_its_classes_is_not_merged(tmp_path: Path) -> None:
    run, _, _ = trained(tmp_path, "classification", "labels", "lora")
    (run.outputs / "adapter" / "classes.json").unlink()
    with pytest.raises(Problem, match="no readable list of classes"):
        export_run(run, "merged", tmp_path / "merged")
    assert not (tmp_path / "merged").exists()
