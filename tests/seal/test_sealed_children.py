"""Each process that reads a person's model or data is sealed: code that one of them brought to run sees no secret of
the home folder, plants nothing there and reaches no listener, while what the process is for gets done."""

from __future__ import annotations

import json
import os
import shutil
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import tiny

from engine.data.prepare.client import Preparation
from engine.data.preview import preview
from engine.data.quality.client import QualityRun
from engine.data.quality.options import ReportOptions
from engine.data.source import Source
from engine.data.tokens.desk import Desk
from engine.data.tokens.loading import load_text_tokenizer
from engine.data.tokens.reference import describe_folder
from engine.export.request import export_run
from engine.fit.rates import measure_rates
from engine.fit.replay import replay
from engine.fit.shapes import model_shapes
from engine.run.directory import RunDirectory
from engine.run.evidence.audit import read_audit
from engine.run.sealing.level import with_level
from engine.run.telemetry.reading import open_journal
from engine.run.telemetry.recording import Recording
from engine.seal.policy.places import Places
from engine.seal.sealing import SealRefused, start_sealed
from engine.serve.session import ChatSession
from profiles.geometry import read_geometry
from profiles.hardware import probe
from profiles.settings import Settings

ALL = "namespace,landlock,seccomp"
HERE = Path(__file__).parent


@dataclass
class Person:
    """A home folder with a secret, a listener on this machine, and what children saw of both."""

    folder: Path
    secret: Path
    looked: Path
    listener: socket.socket

    def seen(self) -> list[dict[str, str]]:
        """By each child of ours; libraries that the test itself imports start some, too."""
        told = [json.loads(line) for line in self.looked.read_text().splitlines()]
        return [each for each in told if " engine." in each["command"]]

    def hits(self) -> int:
        found = 0
        self.listener.setblocking(False)
        while True:
            try:
                self.listener.accept()[0].close()
                found += 1
            except BlockingIOError:
                return found

    def rows(self) -> Path:
        path = self.folder / "rows.jsonl"
        rows = [{"prompt": f"Where does it hurt, {number}?", "completion": "The head."} for number in range(40)]
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return path


@pytest.fixture
def person(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Person]:
    home, first, looked = tmp_path / "home", tmp_path / "first", tmp_path / "looked.jsonl"
    (home / ".ssh").mkdir(parents=True)
    secret = home / ".ssh" / "id_ed25519"
    secret.write_text("a key")
    first.mkdir()
    shutil.copy(HERE / "looking_around.py", first / "sitecustomize.py")
    looked.touch()
    with socket.create_server(("127.0.0.1", 0), backlog=64) as listener:
        variables = {
            "HOME": str(home),
            "FINETUI_HOME": str(home / "finetui"),
            "FINETUI_LOOKED_AROUND": str(looked),
            "FINETUI_LISTENER": str(listener.getsockname()[1]),
            "FINETUI_TEST_SECRET": str(secret),
            "FINETUI_SEAL_WRITE": str(looked),
            "FINETUI_WORKERS": "1",
            "PYTHONPATH": str(first),
            "HF_TOKEN": "hf_of_this_person",
        }
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        yield Person(tmp_path, secret, looked, listener)


def tokenizer(person: Person, model: Path) -> str:
    assert load_text_tokenizer(model).chat_template
    return ""


def described(model: Path) -> None:
    """Have the tokenizer's description kept, so that no child has to import transformers for it."""
    load_text_tokenizer(model, describe=describe_folder)


def desk(person: Person, model: Path) -> str:
    described(model)
    rows = person.rows()
    other = person.folder / "other.jsonl"
    shutil.copy(rows, other)
    with Desk(model) as asked:
        assert len(asked.lengths(Source(rows), 10)) == 10
        # Files that it was not started with, and one that was put in the place of one.
        assert len(asked.lengths(Source(other), 10)) == 10
        other.replace(rows)
        rows.write_text(rows.read_text().replace("The head.", "The head and the back."))
        assert asked.lengths(Source(rows), 10)
        assert asked.tried not in asked.notes
        return asked.tried


def quality(person: Person, model: Path) -> str:
    described(model)
    report = QualityRun([Source(person.rows())], options=ReportOptions(workers=1, model=model)).wait(120)
    assert report is not None
    return report.findings[0].what


def preparation(person: Person, model: Path) -> str:
    described(model)
    work = Preparation(model, {"train": [str(person.rows())], "personal": "pseudonymise"})
    assert work.wait(120)
    assert work.problem is None, work.problem
    assert work.result is not None
    return work.tried


def first_look(person: Person, model: Path) -> str:
    found = preview(Source(person.rows(), prompt_template="{{ prompt }}", answer_template="{{ completion }}"))
    assert found.usable_rows == 40
    assert not found.tried or found.told[-1] == found.tried
    return found.tried


def shapes(person: Person, model: Path) -> str:
    config = model / "config.json"
    assert model_shapes(config, json.loads(config.read_bytes())).tensors
    return ""


def replayed(person: Person, model: Path) -> str:
    settings = Settings(
        method="lora", device="cpu", compute_dtype="fp32", attention="sdpa", sequence_length=32, micro_batch=1
    )
    found = replay(read_geometry(model), settings)
    assert found is not None and found.allocated_bytes > 0
    return ""


def rates(person: Person, model: Path) -> str:
    assert measure_rates(probe(person.folder))["matmul_flops"]["fp32"] > 0
    return ""


CHILDREN: dict[str, tuple[Callable[[Person, Path], str], int]] = {
    "tokenizer": (tokenizer, 1),
    "desk": (desk, 2),
    "quality": (quality, 1),
    "preparation": (preparation, 2),
    "first look": (first_look, 1),
    "shapes": (shapes, 1),
    "replay": (replayed, 1),
    "rates": (rates, 1),
}
"""What is done, of which those that read rows return what was told of their tries, and how many processes it takes at
least."""
# Each imports torch and transformers anew.
SLOW = ("tokenizer", "shapes", "replay", "rates")


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] if name in SLOW else []) for name in CHILDREN]
)
def test_a_child_sees_what_it_was_given_and_nothing_else(person: Person, llama: Path, name: str) -> None:
    held = _require_layers()
    work, processes = CHILDREN[name]
    told = work(person, llama)
    seen = person.seen()
    assert len(seen) >= processes
    for each in seen:
        assert each["secret"] != "open" and each["planting"] != "open", each
        assert each["network"] in ("EACCES", "ENETUNREACH", "ECONNREFUSED") and not each["token"], each
    assert person.hits() == 0
    assert [path.name for path in person.secret.parent.iterdir()] == [person.secret.name]
    if name not in SLOW and "seccomp" in held:
        assert told.startswith("the process that reads the data tried to reach a network ") and "AF_INET" in told
        # The last was told by Python's guard; the desk's child ends without it.
        assert "first/sitecustomize.py:" in told or name == "desk"


def test_the_same_code_sees_all_where_nothing_is_sealed(
    person: Person, llama: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The control: that nothing was seen above is the seal's doing."""
    monkeypatch.setenv("FINETUI_SEAL_WITHOUT", ALL)
    first_look(person, llama)
    (seen,) = person.seen()
    assert (seen["secret"], seen["planting"], seen["network"], seen["token"]) == ("open", "open", "open", "")
    assert person.hits() == 1


def test_a_talk_is_sealed_as_the_run_s_spec_says(person: Person) -> None:
    _require_layers()
    run = _run_of(person)
    with ChatSession(run) as session:
        session.start()
        question = {side: [{"role": "user", "content": "Where?"}] for side in ("base", "tuned")}
        chunks = list(session.ask(question, max_new_tokens=4))  # type: ignore[arg-type]
        assert session.seal is not None and session.seal.level == "best" and session.seal.held
    seen = _of(person, "engine.serve.chat_worker")
    assert seen["secret"] != "open" and seen["network"] != "open" and not seen["token"] and person.hits() == 0
    (entry,) = _entries(run, "chatted")
    assert entry["seal"]["held"] == list(session.seal.held)
    if "seccomp" in session.seal.held:
        (told,) = filter(None, (chunk.tried for chunk in chunks))
        assert told.startswith("It tried to reach a network") and "socket(AF_INET" in told
        (entry,) = _entries(run, "way_out")
        assert entry["during"] == "chat" and entry["count"] >= 1


def test_an_export_is_sealed_and_writes_where_it_was_told_to(person: Person) -> None:
    _require_layers()
    run = _run_of(person)
    into = person.folder / "home" / "exports" / "adapter"
    warnings: list[str] = []
    assert export_run(run, "adapter", into, warn=warnings.append) == into
    assert [path.name for path in into.parent.iterdir()] == ["adapter"]
    seen = _of(person, "engine.export")
    # The folder beside the target is not the child's, though the target was made in it.
    assert seen["secret"] != "open" and seen["planting"] != "open" and seen["network"] != "open" and not seen["token"]
    assert person.hits() == 0
    (entry,) = _entries(run, "exported")
    assert entry["seal"]["level"] == "best"
    if "seccomp" in entry["seal"]["held"]:
        assert entry["ways_out"]["count"] >= 1 and "socket(AF_INET" in entry["ways_out"]["tried"][0]
        assert len(warnings) == 1 and warnings[0].startswith("It tried to reach a network")


def test_a_run_that_requires_the_seal_is_neither_talked_with_nor_exported_without_it(
    person: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = _run_of(person)
    _ask_for(run, "required")
    monkeypatch.setenv("FINETUI_SEAL_WITHOUT", "seccomp")
    with ChatSession(run) as session, pytest.raises(SealRefused, match="seccomp"):
        session.start()
    with pytest.raises(SealRefused, match="seccomp"):
        export_run(run, "adapter", person.folder / "home" / "adapter")
    assert not person.seen() and not (person.folder / "home" / "adapter").exists()
    assert [path.name for path in (person.folder / "home").iterdir() if "adapter" in path.name] == []


def test_an_unsealed_run_is_talked_with_unsealed_and_that_is_written_down(person: Person) -> None:
    run = _run_of(person)
    _ask_for(run, "off")
    export_run(run, "adapter", person.folder / "home" / "adapter")
    assert _of(person, "engine.export")["secret"] == "open" and person.hits() == 1
    (entry,) = _entries(run, "exported")
    assert entry["seal"]["level"] == "off"


def test_what_a_person_set_for_the_rest_of_a_run_holds_for_its_talk_and_export_too(
    person: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = _run_of(person)
    _ask_for(run, "required")
    folding, _ = open_journal(run)
    recording = Recording(run, folding)
    recording.add("adjusted", **(with_level(run, {}, "best") or {}))
    recording.close()
    monkeypatch.setenv("FINETUI_SEAL_WITHOUT", "seccomp")
    with ChatSession(run) as session:
        session.start()
        assert session.seal is not None and session.seal.level == "best"
    export_run(run, "adapter", person.folder / "home" / "adapter")
    (entry,) = _entries(run, "exported")
    assert entry["seal"]["level"] == "best"


def _run_of(person: Person) -> RunDirectory:
    """A finished run, made by this process, which is not sealed: what that brought about is forgotten."""
    run = tiny.make_run(person.folder / "home" / "finetui")
    person.looked.write_text("")
    person.hits()
    return run


def _ask_for(run: RunDirectory, level: str) -> None:
    text = run.spec_path.read_text()
    assert 'seal = "best"' in text
    run.spec_path.write_text(text.replace('seal = "best"', f'seal = "{level}"'))


def _of(person: Person, module: str) -> dict[str, str]:
    (found,) = (each for each in person.seen() if f" {module} " in each["command"])
    return found


def _entries(run: RunDirectory, what: str) -> list[dict[str, Any]]:
    return [dict(entry.facts) for entry in read_audit(run).entries if entry.what == what]


def _require_layers() -> tuple[str, ...]:
    """Those that this machine holds."""
    process, report = start_sealed(["true"], Places(), "best", env=dict(os.environ))
    process.wait()
    if "seccomp" not in report.held or not {"namespace", "landlock"} & set(report.held):
        pytest.skip(f"this kernel lacks what this tests: {report.missing}")
    return report.held
