"""The battery that each start of a trainer tries, tried in the places of every other kind of child too, as the product
gives them: nothing leads out of those that read a person's model, rows or result either."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

import pytest

from engine import demo
from engine.convert.pickled_folder import find_pickles
from engine.convert.request import convert_model
from engine.data.prepare.client import Preparation
from engine.data.preview import preview
from engine.data.quality.client import QualityRun
from engine.data.quality.options import ReportOptions
from engine.data.source import Source
from engine.data.tokens.loading import load_text_tokenizer
from engine.export.request import export_run
from engine.fit.rates import measure_rates
from engine.run.creating import create_run
from engine.run.directory import RunDirectory
from engine.run.sealing import hearing
from engine.run.sealing.level import SOCKETS
from engine.run.sealing.places import training_places
from engine.seal.policy.places import Places
from engine.seal.proof.battery import BatteryResult, run_battery
from engine.seal.request import LAYERS, Level, Sockets
from engine.seal.sealing import run_sealed
from engine.serve.session import ChatSession
from engine.spec import parse_spec
from profiles.hardware import probe

DEMO_MODEL = Path(demo.__file__).with_name("scribe-2m")


class Tried(Exception):
    """In place of a child that was to be started."""

    def __init__(self, result: BatteryResult):
        self.result = result


@pytest.fixture
def person(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A home folder with secrets; not in /tmp, which is another one within a seal."""
    home = Path(tempfile.mkdtemp(prefix="finetui-test-home-", dir="/var/tmp"))
    for name in (".ssh/id_ed25519", ".netrc", ".bashrc"):
        (home / name).parent.mkdir(exist_ok=True, mode=0o700)
        (home / name).write_text("a secret of a made-up person\n")
    rows = [{"prompt": f"Where does it hurt, {number}?", "completion": "The head."} for number in range(40)]
    (home / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    shutil.copytree(DEMO_MODEL, home / "model")
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("FINETUI_HOME", str(home / "finetui"))
    yield home
    shutil.rmtree(home)


def finished(home: Path) -> RunDirectory:
    """A run with a result that nobody gets to open."""
    data = {"train": [str(home / "rows.jsonl")]}
    run = create_run(parse_spec({"name": "a", "model": {"path": str(home / "model")}, "data": data}, "here"))
    (run.outputs / "adapter").mkdir(parents=True)
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        (run.outputs / "adapter" / name).touch()
    return run


def chat(home: Path) -> None:
    with ChatSession(finished(home)) as session:
        session.start()


def export(home: Path) -> None:
    export_run(finished(home), "adapter", home / "adapter")


def conversion(home: Path) -> None:
    (home / "model" / "model.safetensors").rename(home / "model" / "pytorch_model.bin")
    convert_model(find_pickles(home / "model"), home / "converted")


def preparation(home: Path) -> None:
    Preparation(home / "model", {"train": [str(home / "rows.jsonl")], "personal": "pseudonymise"})


def first_look(home: Path) -> None:
    preview(Source(home / "rows.jsonl", prompt_template="{{ prompt }}", answer_template="{{ completion }}"))


def quality(home: Path) -> None:
    QualityRun([Source(home / "rows.jsonl")], options=ReportOptions(workers=1, model=home / "model"))


def tokenizer(home: Path) -> None:
    load_text_tokenizer(home / "model")


def rates(home: Path) -> None:
    measure_rates(probe(home))


def trainer(home: Path) -> NoReturn:
    run = finished(home)
    raise Tried(run_battery(training_places(run, run.spec()), "best", sockets=SOCKETS))


STARTS = (trainer, chat, export, conversion, preparation, first_look, quality, tokenizer, rates)


@pytest.mark.parametrize("start", STARTS, ids=lambda start: start.__name__)
def test_every_way_out_is_refused(person: Path, monkeypatch: pytest.MonkeyPatch, start: Callable[[Path], None]) -> None:
    def try_instead(
        command: Sequence[str],
        places: Places,
        level: Level,
        *,
        sockets: Sockets = "none",
        env: Mapping[str, str] | None = None,
        **others: Any,
    ) -> NoReturn:
        raise Tried(run_battery(places, level, sockets=sockets, environment=env))

    monkeypatch.setattr(hearing, "start_sealed", try_instead)
    monkeypatch.setitem(run_sealed.__kwdefaults__, "start", try_instead)
    with pytest.raises(Tried) as tried:
        start(person)
    result = tried.value.result
    if missing := [layer for layer in LAYERS if layer not in result.seal.held]:
        pytest.skip(f"this machine has no {' and no '.join(missing)}")
    assert (result.open, result.hits, result.broken) == ((), 0, ())
    assert result.control and result.refused == result.tried
    assert "keys in the home folder" in result.answers and "what runs at the next log-in" in result.answers
