"""Whatever changes after a checkpoint is told field by field; going on anyway is recorded, and nothing else goes on."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import pytest
import tiny
import torch
from accelerate.state import AcceleratorState
from command import Finetui
from fault_ledger import Ledger
from pydantic import BaseModel
from safetensors.torch import load_file
from training import StoppingChannel, make_spec, write_chats

from engine.data.prepare.kept import read_kept
from engine.run.checkpoints.manifest import MANIFEST, list_checkpoints, read_manifest
from engine.run.circumstances import Change, changes_before_resume
from engine.run.circumstances.spec_fields import LEARNING, OTHERS, spec_circumstances
from engine.run.creating import create_run
from engine.run.directory import RunDirectory, list_runs
from engine.run.endings.adjusted import ANYWAY_VARIABLE
from engine.run.endings.causes import ChangedSince
from engine.run.evidence.keeping import AuditKeeper
from engine.run.evidence.lineage import read_lineage
from engine.run.launch import resume
from engine.run.liveness import liveness
from engine.run.processes.leash import Leash
from engine.run.telemetry.journal import JournalWriter
from engine.run.telemetry.reading import read_state
from engine.spec import RunSpec, SourceSection
from engine.train.worker import _Attempt

STOPPED_AT = 4


@pytest.fixture(autouse=True)
def _threads() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def began(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model, data, and a home with a run of them that was stopped."""
    folder = tmp_path_factory.mktemp("began")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FINETUI_HOME", str(folder / "home"))
        patch.setenv("OMP_NUM_THREADS", "1")
        torch.set_num_threads(1)
        spec = make_spec(
            tiny.make_model(folder / "model"),
            write_chats(folder / "rows.jsonl", 40),
            data={"held_out_share": 0.2},
            method={"dropout": 0.1},
            train={"max_steps": 8, "gradient_accumulation": 2, "probe": False},
            evaluation={"every_steps": 2, "answers": 0},
        )
        attempt(create_run(spec), stop_after=STOPPED_AT)
    return folder


@pytest.fixture
def run(began: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[RunDirectory]:
    """The stopped run, and what it learns from, as at the beginning; all may be changed."""
    copy = began.with_name("copy")  # put in the place of the first: the spec has its paths
    shutil.copytree(began, copy)
    monkeypatch.setenv("FINETUI_HOME", str(began / "home"))
    monkeypatch.delenv(ANYWAY_VARIABLE, raising=False)
    yield list_runs()[0]
    shutil.rmtree(began)
    copy.rename(began)


def attempt(
    run: RunDirectory, stop_after: int | None = None, adjusted: dict[str, Any] | None = None
) -> list[dict[str, Any]]:
    """What a new engine's worker does for the run, in this process; what it told is in the journal then. Raises
    Problem."""
    AcceleratorState._reset_state(reset_partial_state=True)
    if (kept := read_kept(run.data)) is not None:
        replace(kept, session="an engine before").write(run.data)
    channel = StoppingChannel(stop_after)
    journal, keeper = JournalWriter(run.events_path), AuditKeeper(run, pytest.fail, lambda write: write())
    number = read_state(run).attempts + 1
    steps = [int(path.name[5:]) for path in list_checkpoints(run.checkpoints)]
    resumed_from = steps[-1] if steps else None
    journal.append("attempt", number=number, resumed_from=resumed_from, worker_pid=1, adjusted=adjusted or {})
    try:
        _Attempt(run, channel, adjusted or {}, Leash()).train()
    finally:
        for event in channel.events:
            kind, fields = event["kind"], {name: value for name, value in event.items() if name != "kind"}
            journal.append(kind, **fields)
            keeper.journalled(kind, fields)
        journal.append("end", outcome="stopped", cause="stopped", why="", remedy="", step=0)
        journal.close()
    return channel.events


def continued(events: list[dict[str, Any]]) -> list[str]:
    """The fields that were gone on with although they changed."""
    return [change["field"] for event in events if event["kind"] == "continued" for change in event["changes"]]


def edit_spec(run: RunDirectory, **sections: dict[str, Any]) -> None:
    spec = run.spec()
    for name, fields in sections.items():
        spec = spec.model_copy(update={name: getattr(spec, name).model_copy(update=fields)})
    run.spec_path.write_text(spec.to_toml())


def rate(run: RunDirectory, monkeypatch: pytest.MonkeyPatch) -> None:
    edit_spec(run, optimizer={"learning_rate": 5e-4})


def personal(run: RunDirectory, monkeypatch: pytest.MonkeyPatch) -> None:
    edit_spec(run, data={"personal": "mask"})


def another_source(run: RunDirectory, monkeypatch: pytest.MonkeyPatch) -> None:
    more = write_chats(run.spec().model.path.parent / "more.jsonl", 12, seed=5)
    edit_spec(run, data={"train": (*run.spec().data.train, SourceSection(path=more))})


def row(run: RunDirectory, monkeypatch: pytest.MonkeyPatch) -> None:
    path = run.spec().data.train[0].path
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:-1]))


def weights(run: RunDirectory, monkeypatch: pytest.MonkeyPatch) -> None:
    with (run.spec().model.path / "model.safetensors").open("r+b") as file:
        file.seek(-4, os.SEEK_END)  # the lowest bits of the last number
        byte = file.read(1)[0]
        file.seek(-4, os.SEEK_END)
        file.write(bytes([byte ^ 1]))


def config(run: RunDirectory, monkeypatch: pytest.MonkeyPatch) -> None:
    path = run.spec().model.path / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "rms_norm_eps": 1e-5}))


def tokenizer(run: RunDirectory, monkeypatch: pytest.MonkeyPatch) -> None:
    path = run.spec().model.path / "chat_template.jinja"
    path.write_text(path.read_text().replace("message['role'] +", "message['role'] + ' ' +"))


def library(run: RunDirectory, monkeypatch: pytest.MonkeyPatch) -> None:
    info = run.path.parents[1] / "site" / "peft-99.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: peft\nVersion: 99.0\n")
    monkeypatch.syspath_prepend(info.parent)
    monkeypatch.setenv("PYTHONPATH", str(info.parent))


# What is done, the fields by which it is told before an engine starts, and what else its worker finds out.
CHANGES: dict[str, tuple[Callable[[RunDirectory, pytest.MonkeyPatch], None], list[str], list[str]]] = {
    "a setting": (rate, ["optimizer.learning_rate"], []),
    "how rows are read": (personal, ["data.personal"], []),
    "another source": (another_source, ["data.train"], ["data as prepared", "order of the rows"]),
    "a row of the data": (row, ["data.train.1 file"], []),
    "a bit of the base's weights": (weights, ["base weights model.safetensors"], []),
    "the base's config": (config, ["base config.json"], []),
    "the chat template": (
        tokenizer,
        ["tokenizer chat_template.jinja"],
        ["data as prepared", "order of the rows", "tokenizer and chat template"],
    ),
    "a library": (library, ["peft"], []),
}


@pytest.mark.parametrize("what", CHANGES)
def test_a_change_is_told_and_refused_and_gone_on_with_when_a_person_says_so(
    what: str, run: RunDirectory, monkeypatch: pytest.MonkeyPatch, ledger: Ledger
):
    change, early, late = CHANGES[what]
    assert changes_before_resume(run) == []
    change(run, monkeypatch)
    ledger.injected(f"changed since the checkpoint: {what}")
    found = changes_before_resume(run)
    assert [each.field for each in found] == early
    assert all(each.was != each.now and each.text.startswith(each.field) for each in found)

    with pytest.raises(ChangedSince) as refused:
        attempt(run)
    if early == ["data.train.1 file"]:  # told where the data is read, with both sums
        assert refused.value.where.endswith("rows.jsonl")
        assert all(part.removeprefix("SHA-256 ") in refused.value.what for part in (found[0].was, found[0].now))
    else:
        assert all(each.text in refused.value.what for each in found)
    assert list_checkpoints(run.checkpoints)[-1].name == f"step-{STOPPED_AT:06d}"
    assert read_state(run).continued == ()

    monkeypatch.setenv(ANYWAY_VARIABLE, "1")
    events = attempt(run, stop_after=STOPPED_AT + 2)
    assert sorted(continued(events)) == sorted(early + late)
    assert sorted(each["field"] for each in read_state(run).continued) == sorted(early + late)
    (recorded,) = read_lineage(run)["continued"]
    assert (recorded["step"], sorted(each["field"] for each in recorded["changes"])) == (
        STOPPED_AT,
        sorted(early + late),
    )
    # From there on all is as at the newest checkpoint: nobody is asked twice.
    monkeypatch.delenv(ANYWAY_VARIABLE)
    assert changes_before_resume(run) == []
    assert continued(attempt(run, stop_after=STOPPED_AT + 3)) == []


def test_who_said_to_go_on_is_not_asked_again_when_nothing_was_saved_meanwhile(
    run: RunDirectory, monkeypatch: pytest.MonkeyPatch
):
    rate(run, monkeypatch)
    monkeypatch.setenv(ANYWAY_VARIABLE, "1")
    attempt(run, stop_after=STOPPED_AT + 1)
    shutil.rmtree(list_checkpoints(run.checkpoints)[-1])  # as if it had been killed before
    monkeypatch.delenv(ANYWAY_VARIABLE)
    assert changes_before_resume(run) == []
    assert continued(attempt(run, stop_after=STOPPED_AT + 1)) == []
    edit_spec(run, optimizer={"learning_rate": 7e-4})
    assert [change.field for change in changes_before_resume(run)] == ["optimizer.learning_rate"]


def test_data_that_changed_is_gone_on_with_as_it_was_to_the_bit(run: RunDirectory, monkeypatch: pytest.MonkeyPatch):
    again = RunDirectory(run.path.with_name(f"{run.name}-again"))
    shutil.copytree(run.path, again.path)
    attempt(again)
    row(run, monkeypatch)
    run.accept_kept_data()  # `finetui resume --kept-data`
    assert changes_before_resume(run) == []
    assert continued(attempt(run)) == ["data.train.1 file"]
    for name in ("trainable", "optimizer", "random"):
        one, other = (
            load_file(list_checkpoints(each.checkpoints)[-1] / f"{name}.safetensors") for each in (run, again)
        )
        assert all(torch.equal(value, other[key]) for key, value in one.items())


def test_what_memory_running_out_changed_and_what_was_moved_is_no_change(
    run: RunDirectory, monkeypatch: pytest.MonkeyPatch, began: Path
):
    fewer = {"train.micro_batch": 1, "train.gradient_accumulation": 2, "train.loss_chunk": 64}
    assert continued(attempt(run, stop_after=STOPPED_AT + 1, adjusted=fewer)) == []
    shutil.copytree(began / "model", began / "moved")
    edit_spec(
        run,
        model={"path": began / "moved"},
        evaluation={"every_steps": 3},
        checkpoint={"keep": 7},
        train={"gradient_checkpointing": 1},
    )
    assert changes_before_resume(run) == []
    assert continued(attempt(run, stop_after=STOPPED_AT + 2)) == []


def test_a_checkpoint_of_an_older_finetui_cannot_be_compared(run: RunDirectory, monkeypatch: pytest.MonkeyPatch):
    (checkpoint,) = list_checkpoints(run.checkpoints)
    manifest = json.loads((checkpoint / MANIFEST).read_text())
    (checkpoint / MANIFEST).write_text(json.dumps({"format": 1, "files": manifest["files"]}))
    rate(run, monkeypatch)
    assert changes_before_resume(run) == []
    events = attempt(run, stop_after=STOPPED_AT + 1)
    assert any("cannot be told" in event["text"] for event in events if event["kind"] == "note")
    assert continued(events) == []


def test_as_many_threads_compute_as_before(run: RunDirectory, monkeypatch: pytest.MonkeyPatch):
    torch.set_num_threads(2)
    events = attempt(run, stop_after=STOPPED_AT + 1)
    assert torch.get_num_threads() == 1
    assert any("computes with 1 thread as before" in event["text"] for event in events if event["kind"] == "note")
    torch.set_num_threads(2)
    monkeypatch.setenv(ANYWAY_VARIABLE, "1")
    assert continued(attempt(run, stop_after=STOPPED_AT + 2)) == ["threads"]
    assert torch.get_num_threads() == 2


def test_only_six_changes_are_told_and_how_many_more(run: RunDirectory, monkeypatch: pytest.MonkeyPatch):
    edit_spec(
        run,
        optimizer={"beta1": 0.8, "beta2": 0.9, "epsilon": 1e-7, "weight_decay": 0.1},
        method={"alpha": 3.0, "dropout": 0.3},
        train={"seed": 5, "epochs": 2.0},
    )
    assert len(changes_before_resume(run)) == 8
    with pytest.raises(ChangedSince) as refused:
        attempt(run)
    assert "method.alpha was 8.0, is 3.0; method.dropout was 0.1, is 0.3; optimizer.beta1" in refused.value.what
    assert refused.value.what.endswith("and 2 more")
    assert f"`finetui resume {run.name} --anyway`" in refused.value.fix


def test_the_command_refuses_before_it_starts_anything(run: RunDirectory, monkeypatch: pytest.MonkeyPatch, began: Path):
    weights(run, monkeypatch)
    size = run.events_path.stat().st_size
    refused = Finetui(began / "home")("resume", "latest")
    assert refused.status == 2
    assert "base weights model.safetensors was" in refused.stderr
    assert "--anyway" in refused.stderr
    assert (run.events_path.stat().st_size, liveness(run)) == (size, "ended")
    for given in (("latest", "--interrupted"), (), ("latest", "--learning-rate", "2")):
        assert Finetui(began / "home")("resume", *given).status == 2


@pytest.mark.slow
def test_a_real_engine_ends_as_changed_and_goes_on_anyway(
    run: RunDirectory, monkeypatch: pytest.MonkeyPatch, began: Path, ledger: Ledger
):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    weights(run, monkeypatch)
    row(run, monkeypatch)
    rate(run, monkeypatch)
    ledger.injected("changed since the checkpoint: several things", 3)
    resume(run)  # as whoever does not ask before
    assert Finetui(began / "home", {"OMP_NUM_THREADS": "1"})("watch", run.name).status == 1
    state = read_state(run)
    assert (state.outcome, state.cause) == ("failed", "changed")
    assert "optimizer.learning_rate was 0.001, is 0.0005" in state.why
    assert "--anyway" in state.remedy
    assert state.restarts == ()

    done = Finetui(began / "home", {"OMP_NUM_THREADS": "1"})("resume", run.name, "--anyway", "--wait")
    assert done.status == 0, done.stderr
    assert "goes on, though optimizer.learning_rate was 0.001, is 0.0005" in done.stdout
    state = read_state(run)
    assert state.outcome == "finished"
    assert {change["field"] for change in state.continued} == {
        "optimizer.learning_rate",
        "base weights model.safetensors",
        "data.train.1 file",
    }


def test_every_field_of_a_spec_is_said_to_decide_what_is_learnt_or_not():
    def fields(section: type[BaseModel], place: str) -> Iterator[str]:
        for name, field in section.model_fields.items():
            inner = [each for each in (field.annotation, *flat(field.annotation)) if is_section(each)]
            if inner:
                yield from fields(inner[0], f"{place}{name}.")
            else:
                yield f"{place}{name}"

    def flat(annotation: Any) -> Iterator[Any]:
        for each in get_args(annotation):
            yield each
            yield from flat(each)

    def is_section(annotation: Any) -> bool:
        return isinstance(annotation, type) and issubclass(annotation, BaseModel)

    found = list(fields(RunSpec, ""))
    assert sorted(found) == sorted([*LEARNING, *OTHERS])


def test_circumstances_name_every_field_that_decides(run: RunDirectory):
    saved = read_manifest(list_checkpoints(run.checkpoints)[-1]).circumstances
    told = spec_circumstances(run.spec())
    assert told.items() <= saved.items()
    of_spec = {field.replace("data.train.1.", "data.train.") for field in told}
    assert {field for field in LEARNING if not field.startswith("data.held_out.")} <= of_spec
    assert {"torch", "transformers", "peft", "accelerate", "finetui"} <= saved.keys()
    assert {"device", "dtype", "attention", "threads"} <= saved.keys()
    assert {"data as prepared", "order of the rows", "data.train.1 file"} <= saved.keys()
    assert saved["data.held_out"] == "a share of the rows"


def test_a_change_is_told_in_a_few_characters():
    was, now = f"10 bytes of SHA-256 {'ab' * 32}", f"11 bytes of SHA-256 {'cd' * 32}"
    change = Change("base weights a.safetensors", was, now)
    assert change.text == (
        "base weights a.safetensors was 10 bytes of SHA-256 abababababab…, is 11 bytes of SHA-256 cdcdcdcdcdcd…"
    )
