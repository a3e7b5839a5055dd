"""An export carries no path of this machine and no name or hash of the person's data, unless they ask for it."""

from __future__ import annotations

import hashlib
import json
from importlib import metadata
from pathlib import Path

import pytest
from recorded_runs import audit_of, train_recorded

from engine.export.request import export_run
from engine.run.directory import RunDirectory
from engine.run.evidence.lineage import read_lineage
from engine.run.evidence.verifying import verify

_PLACE, _NAME = "marmots-of-murmansk", "quokkas-of-kuopio"


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base whose settings say where others of its makers had it, as older libraries wrote them."""
    import tiny

    model = tiny.make_model(tmp_path_factory.mktemp(_PLACE) / "small-base")
    for name, key in (("config.json", "_name_or_path"), ("tokenizer_config.json", "name_or_path")):
        settings = json.loads((model / name).read_text())
        (model / name).write_text(json.dumps({**settings, key: f"/home/{_PLACE}/models/parent"}))
    return model


@pytest.mark.parametrize(
    ("method", "to"), [("lora", "adapter"), ("lora", "merged"), ("full", "merged")], ids=["adapter", "merged", "full"]
)
def test_no_path_name_or_hash_leaves_with_the_files(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str, to: str
) -> None:
    monkeypatch.setenv("FINETUI_HOME", str(tmp_path / "home"))
    run, data = _learnt(base, tmp_path, method)
    into = export_run(run, to, tmp_path / "out")  # type: ignore[arg-type]
    files = [path for path in into.rglob("*") if path.is_file()]
    for canary in (_PLACE, _NAME, str(tmp_path), str(Path.home()) + "/", run.name, *_hashes(run, data)):
        assert [path.name for path in files if canary.encode() in path.read_bytes()] == [], canary
    card = (into / "README.md").read_text()
    assert "Conversations: 48 rows from 1 source (jsonl)" in card
    assert "these layers of the kernel: namespace, landlock." in card and "Missing: seccomp." in card
    assert "27 ways out were tried from within; all were refused" in card
    assert f"| torch | {metadata.version('torch')} |" in card
    assert f"`{audit_of(run)[-3]['hash']}`" in card  # the log's head before the export itself was recorded
    if to == "adapter":
        settings = json.loads((into / "adapter_config.json").read_text())
        assert settings["base_model_name_or_path"] == base.name


def test_what_was_exported_where_is_in_the_log_and_the_lineage(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FINETUI_HOME", str(tmp_path / "home"))
    run, data = _learnt(base, tmp_path, "lora")
    into = export_run(run, "adapter", tmp_path / "out", with_sources=True)
    card = (into / "README.md").read_text()
    assert all(text in card for text in (run.name, str(data), hashlib.sha256(data.read_bytes()).hexdigest()))
    exported, recorded = audit_of(run)[-2:]
    assert (exported["what"], recorded["what"]) == ("exported", "lineage")
    assert exported["facts"]["path"] == str(into) and exported["facts"]["with_sources"] is True
    weights = (into / "adapter_model.safetensors").read_bytes()
    said = exported["facts"]["files"]["adapter_model.safetensors"]
    assert said == {"bytes": len(weights), "sha256": hashlib.sha256(weights).hexdigest()}
    assert read_lineage(run)["exports"][0]["files"] == exported["facts"]["files"]
    assert verify(run).holds
    (into / "adapter_model.safetensors").write_bytes(weights[:-1] + bytes([weights[-1] ^ 1]))
    (found,) = verify(run).of("differs")
    assert found.where == str(into / "adapter_model.safetensors")


def _learnt(base: Path, place: Path, method: str) -> tuple[RunDirectory, Path]:
    """A run with evidence, and its data."""
    import training

    data = training.write_chats(place / f"{_NAME}.jsonl", 48)
    kind = {"kind": "lora", "rank": 4, "alpha": 8.0} if method == "lora" else {"kind": method}
    return train_recorded(base, data, name=_NAME, method=kind), data


def _hashes(run: RunDirectory, data: Path) -> list[str]:
    """Of the data, of what was prepared of it, and of the base's files."""
    found = [hashlib.sha256(data.read_bytes()).hexdigest()]
    found += [shard["sha256"] for shard in read_lineage(run)["data"]["shards"]]
    return found + [each["sha256"] for each in read_lineage(run)["base"]["files"].values()]
