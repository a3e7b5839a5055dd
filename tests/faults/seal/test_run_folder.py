"""A hostile worker and the run's own folder: what is not its own there it can neither write, replace nor lock."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import grabbing_worker
import pytest
import tiny
from fault_ledger import Ledger
from made_up_home import made_up_home
from training import make_spec, write_chats
from waiting import end_of, events_of, wait_until

from engine.data.prepare.cache import prepared_root
from engine.run.creating import create_run
from engine.run.evidence.lineage import read_lineage
from engine.run.evidence.verifying import verify
from engine.run.launch import launch
from engine.run.liveness import liveness
from engine.run.processes.worker_process import COMMAND_VARIABLE
from engine.run.sealing.links import link_shard
from engine.seal.ability import ability
from engine.seal.request import LAYERS
from engine.seal.sealing import WITHOUT_VARIABLE
from engine.spec import RunSpec, parse_spec

HELD = [each.layer for each in ability().layers if each.held]


@pytest.fixture
def home(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A made-up home folder, not where pytest has its own: what lies in /tmp is in memory of its own within a seal."""
    with made_up_home(monkeypatch, Path.home()) as path:
        yield path


@pytest.fixture
def spec(home: Path) -> RunSpec:
    (home / "model").mkdir()
    (home / "rows.jsonl").write_text("{}\n")
    values = {"name": "grab", "model": {"path": str(home / "model")}, "data": {"train": [str(home / "rows.jsonl")]}}
    return parse_spec(values, "a hostile run")


@pytest.mark.parametrize("only", [None, "namespace", "landlock"], ids=["all layers", "namespace", "landlock"])
def test_what_is_not_the_workers_own_stays_as_its_supervisor_wrote_it(
    spec: RunSpec, ledger: Ledger, monkeypatch: pytest.MonkeyPatch, only: str | None
) -> None:
    without = [layer for layer in LAYERS if only not in (None, layer)]
    if missing := set(LAYERS) - set(without) - set(HELD):
        pytest.skip(f"this machine does not hold {missing}")
    monkeypatch.setenv(WITHOUT_VARIABLE, ",".join(without))
    monkeypatch.setenv(COMMAND_VARIABLE, shlex.join([sys.executable, grabbing_worker.__file__]))

    run = launch(spec)
    wait_until(lambda: any(event.get("text") == "grabbed" for event in events_of(run)))
    before = {name: (run.path / name).stat().st_ino for name in ("spec.toml", "events.jsonl", "audit.jsonl", "lock")}
    (run.checkpoints / "go-on").touch()
    assert end_of(run)["outcome"] == "finished"
    wait_until(lambda: liveness(run) != "live")

    grabs = json.loads((run.evaluation / "grabs.json").read_text())
    done = [name for name, answer in grabs.items() if answer == "done"]
    assert done == []
    assert len(grabs) > len(grabbing_worker.KEPT) * 9
    ledger.injected("a file of its supervisor's grabbed at by a worker", len(grabs))
    after = {name: (run.path / name).stat().st_ino for name in before}
    assert after == before and verify(run).holds, verify(run).of("differs")
    notes = [event["text"] for event in events_of(run) if event["kind"] == "note"]
    assert notes.count("the trainer asked for a link to what is no shard") == len(grabbing_worker.ASKED)
    assert "data" not in read_lineage(run)


def test_a_sealed_run_keeps_its_shards_by_links(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its text takes the disk once, though within the seal the cache and the run's data are two mounts."""
    if "namespace" not in HELD:
        pytest.skip("this machine has no namespace")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    model, rows = tiny.make_model(home / "model"), write_chats(home / "rows.jsonl", 40)

    run = launch(make_spec(model, rows, train={"max_steps": 1, "probe": False}))
    wait_until(lambda: liveness(run) != "live", 120)

    assert end_of(run)["outcome"] == "finished", run.log_path.read_text()
    (seal,) = [event for event in events_of(run) if event["kind"] == "seal"]
    assert "namespace" in [layer["layer"] for layer in seal["layers"] if layer["held"]]
    shards = list(run.data.rglob("*.safetensors"))
    assert shards and [shard.stat().st_nlink for shard in shards] == [2] * len(shards)
    assert all(shard.samefile(prepared_root() / shard.relative_to(run.data)) for shard in shards)
    assert read_lineage(run)["data"]["shards"] and verify(run).holds, verify(run).of("differs")


def test_a_link_is_made_of_a_shard_alone_and_within_the_run_alone(spec: RunSpec, home: Path, ledger: Ledger) -> None:
    """Whoever asks may write into the cache and the run's data, and put links anywhere in them."""
    run, secret, elsewhere = create_run(spec), home / "secret.safetensors", home / "elsewhere"
    secret.write_text("a person's file")
    elsewhere.mkdir()
    cache, data = prepared_root(), run.data
    (cache / "aa").mkdir(parents=True)
    (cache / "aa" / "shard.safetensors").write_text("a shard")
    (cache / "aa" / "stolen.safetensors").symlink_to(secret)
    (cache / "bb").symlink_to(home)
    os.mkfifo(cache / "aa" / "pipe.safetensors")
    data.mkdir()
    (data / "cc").symlink_to(elsewhere)
    (cache / "cc").mkdir()
    (cache / "cc" / "shard.safetensors").write_text("a shard")
    hostile = ("aa/stolen.safetensors", "bb/secret.safetensors", "aa/pipe.safetensors", "cc/shard.safetensors")
    for name in (*hostile, "../aa/shard.safetensors", "aa//shard.safetensors", "aa/shard.safetensors\n", None, ["aa"]):
        ledger.injected("a link asked for that is none of the run's")
        with pytest.raises(ValueError, match=r"\w"):
            link_shard(run, name)
    assert list(elsewhere.iterdir()) == [] and secret.stat().st_nlink == 1
    assert [path for path in data.rglob("*") if path.is_file()] == []

    (data / "aa").mkdir()
    (data / "aa" / "shard.safetensors").symlink_to(secret)  # it is replaced, and not followed
    link_shard(run, "aa/shard.safetensors")
    link_shard(run, "aa/shard.safetensors")  # again, as after a kill

    assert (data / "aa" / "shard.safetensors").samefile(cache / "aa" / "shard.safetensors")
    assert [path.name for path in (data / "aa").iterdir()] == ["shard.safetensors"]
    assert secret.read_text() == "a person's file"
    data.joinpath("cc").unlink()
    shutil.rmtree(data)
    data.symlink_to(elsewhere)
    with pytest.raises(ValueError, match="link"):
        link_shard(run, "aa/shard.safetensors")
    assert list(elsewhere.iterdir()) == []
