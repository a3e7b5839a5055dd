"""A word of the data stands where the data is meant to be kept, and nowhere else: no log, journal, title of a process,
name of a file, or anything that is left behind, however a run ends."""

from __future__ import annotations

import json
import os
import secrets
import shlex
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from fault_ledger import Ledger
from training import WORDS, make_spec
from waiting import end_of, events_of, wait_until

from engine.data.crew import CrewFault, run_crew
from engine.logged_errors import WHOLE_ERRORS_VARIABLE, error_text
from engine.run.directory import RunDirectory
from engine.run.launch import launch, stop
from engine.run.liveness import liveness
from engine.run.processes.recorded import recorded_processes
from engine.run.processes.worker_process import COMMAND_VARIABLE

# Below a run's folder: its own names for its shards, the rows that were set aside, the answers that are kept.
_MEANT_FOR_DATA = ("data/", "evaluation/", "snapshot.json")
# Of a classifier the classes are a part of the model: their names are among its settings, and in the account of it.
_NAMES_OF_CLASSES = ("outputs/", "checkpoints/", "lineage.json")
_PREPARED = ("cache/prepared/",)
_FAULTY = shlex.join([sys.executable, str(Path(__file__).with_name("faulty_trainer.py"))])


@pytest.fixture
def canary(home: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    """A word that nothing but a row can bring along, in a home of its own."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    return f"zebrafink{secrets.token_hex(6)}"


def write_conversations(path: Path, canary: str, bad: bool = True) -> Path:
    """The canary in each column of each row, and in rows that cannot be used for many a reason."""
    rows: list[Any] = [
        {
            "messages": [
                {"role": "user", "content": f"{WORDS[at % len(WORDS)]} {canary} {at}, write to {_mail(canary)}"},
                {"role": "assistant", "content": f"{canary} {at}"},
            ],
            "note": f"{canary} of {at}",
        }
        for at in range(40)
    ]
    if bad:
        late = {"role": "assistant", "content": "late"}
        rows += [
            [canary],
            {"messages": canary},
            {"messages": {"role": canary}},
            {"messages": [canary]},
            {"messages": [{"role": canary, "content": "x"}, late]},
            {"messages": [{"role": "user", "content": [{"type": canary}]}, late]},
            {"messages": [{"role": "user", "content": {"text": canary}}, late]},
            {"messages": [{"role": "user", "content": canary}, {"role": "assistant", "content": ""}]},
            {"messages": [{"role": "user", "content": f"{canary} " * 900}, late]},
            {"messages": [{"role": "user", "content": f"{canary} \x00 \ud800"}, late]},
        ]
    lines = [json.dumps(row) for row in rows]
    if bad:
        lines += [f'{{"messages": [{{"role": "user", "content": "{canary}', f"{canary} is no JSON"]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def _mail(canary: str) -> str:
    """An address that has a pseudonym in what is learnt."""
    return f"maria.{canary[-8:]}@clinic.org"


class Titles:
    """Within the block all processes of the machine are watched: does one of them have the word in its title?"""

    def __init__(self, word: str):
        self._word, self._stop = word.encode(), threading.Event()
        self.looks = 0
        self.with_it: set[str] = set()
        self._thread = threading.Thread(target=self._watch)

    def __enter__(self) -> Titles:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._stop.wait(0.1):
            for entry in Path("/proc").iterdir():
                if entry.name.isdecimal() and int(entry.name) != os.getpid():
                    with suppress(OSError):
                        title = (entry / "cmdline").read_bytes() + (entry / "comm").read_bytes()
                        self.with_it |= {title.decode(errors="replace")} if self._word in title else set()
            self.looks += 1


def files_with(word: str, folder: Path, allowed: tuple[str, ...]) -> list[str]:
    """The files below `folder` that hold the word or are named after it, but for those that are meant to hold it."""
    found = []
    for path in folder.rglob("*"):
        name = path.relative_to(folder).as_posix()
        if word in name or (path.is_file() and not name.startswith(allowed) and word.encode() in path.read_bytes()):
            found.append(name)
    return found


def left_in_scratch(word: str, since: float) -> list[str]:
    """Files that were made meanwhile where programs leave what they forget, and that hold the word."""
    found = []
    for root in {Path(tempfile.gettempdir()), Path("/tmp"), Path("/var/tmp"), Path("/dev/shm")}:
        for path in root.iterdir() if root.is_dir() else ():
            with suppress(OSError):
                if path.is_file() and path.stat().st_mtime >= since and word.encode() in path.read_bytes():
                    found.append(str(path))
    return found


def told(run: RunDirectory, *, samples: bool) -> str:
    """The run's journal as text, without its samples where those are asked for."""
    return json.dumps([event for event in events_of(run) if not (samples and event["kind"] == "sample")])


def finished(run: RunDirectory) -> dict[str, Any]:
    end = end_of(run)
    wait_until(lambda: liveness(run) != "live")
    return end


def stopped(run: RunDirectory) -> dict[str, Any]:
    wait_until(lambda: any(event["kind"] == "step" for event in events_of(run)), 120)
    stop(run)
    return finished(run)


def killed(run: RunDirectory) -> dict[str, Any]:
    """First its trainer, which is begun again, then all of it."""
    wait_until(lambda: any(event["kind"] == "step" for event in events_of(run)), 120)
    before = recorded_processes(run)["worker"]
    before.send(signal.SIGKILL)
    after = wait_until(lambda: (now := recorded_processes(run).get("worker")) != before and now)
    recorded_processes(run)["supervisor"].send(signal.SIGKILL)
    after.send(signal.SIGKILL)
    assert after.wait(30)
    wait_until(lambda: liveness(run) != "live")
    return {"outcome": "interrupted", "cause": "engine_killed"}


ENDINGS: dict[str, tuple[dict[str, dict[str, Any]], Callable[[RunDirectory], dict[str, Any]], str]] = {
    "finished, samples asked for": ({"evaluation": {"answers": 2}}, finished, "finished"),
    "finished, without samples": ({"evaluation": {"answers": 2}, "privacy": {"samples": False}}, finished, "finished"),
    "too many bad rows": ({"data": {"max_rejected_share": 0.01}}, finished, "input"),
    "stopped": ({"train": {"max_steps": 100_000}}, stopped, "stopped"),
    "killed": ({"train": {"max_steps": 100_000}}, killed, "engine_killed"),
    "a fault that quotes a row": ({"evaluation": {"answers": 2}}, finished, "fault"),
}
_USUAL = ("finished, samples asked for", "too many bad rows", "a fault that quotes a row")


@pytest.mark.parametrize(
    "name", [pytest.param(each, marks=() if each in _USUAL else pytest.mark.slow) for each in ENDINGS]
)
def test_a_run_tells_nobody_what_its_rows_say(
    name: str, canary: str, home: Path, llama: Path, tmp_path: Path, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
):
    changes, until, cause = ENDINGS[name]
    if cause == "fault":
        monkeypatch.setenv(COMMAND_VARIABLE, _FAULTY)
    rows = write_conversations(tmp_path / "rows.jsonl", canary)
    data = {"max_rejected_share": 0.5, "held_out_share": 0.2, "personal": "pseudonymise"} | changes.get("data", {})
    spec = make_spec(
        llama,
        rows,
        data=data,
        train={"max_steps": 2, "probe": False} | changes.get("train", {}),
        evaluation={"answers": 0, "max_new_tokens": 4} | changes.get("evaluation", {}),
        privacy=changes.get("privacy", {}),
    )
    since = time.time()
    with Titles(canary) as titles:
        run = launch(spec)
        end = until(run)
    assert end["cause"] == cause, end
    samples = spec.privacy.samples
    assert canary not in told(run, samples=samples)
    assert (canary in told(run, samples=False)) == (cause == "finished" and samples), "the rows were answered"
    meant = (*_MEANT_FOR_DATA, *(("events.jsonl",) if samples else ()))
    allowed = (*_PREPARED, *(f"runs/{run.name}/{each}" for each in meant))
    assert files_with(canary, home, allowed) == []
    assert left_in_scratch(canary, since) == []
    assert titles.with_it == set() and titles.looks
    assert files_with(_mail(canary), home, ()) == [], "of pseudonyms no table is kept, nor what they stand for"
    if cause in ("input", "fault"):
        assert "Traceback" in run.log_path.read_text(), "where it happened is told all the same"
    if cause not in ("input", "fault", "stopped", "engine_killed"):
        assert canary in (run.rejects_path).read_text(), "the rows that were set aside can be looked at"
    ledger.injected(f"a row's word where it must not be: {name}")


@pytest.mark.slow
def test_classes_are_named_where_the_model_is_and_nowhere_else(canary: str, home: Path, llama: Path, tmp_path: Path):
    rows = tmp_path / "rows.jsonl"
    texts = [{"text": f"{WORDS[at % len(WORDS)]} {at}", "label": (canary, "other")[at % 2]} for at in range(40)]
    rows.write_text("".join(json.dumps(each) + "\n" for each in texts))
    run = launch(
        make_spec(
            llama,
            rows,
            data={"held_out_share": 0.2},
            objective={"kind": "classification"},
            train={"max_steps": 2, "probe": False},
        )
    )
    assert finished(run)["cause"] == "finished"
    allowed = (*_PREPARED, *(f"runs/{run.name}/{each}" for each in (*_MEANT_FOR_DATA, *_NAMES_OF_CLASSES)))
    assert files_with(canary, home, allowed) == []


@pytest.mark.slow
def test_a_template_that_quotes_its_row_is_not_quoted(canary: str, home: Path, llama: Path, tmp_path: Path):
    template = tmp_path / "quoting.jinja"
    template.write_text("{{ raise_exception('cannot write ' + messages[0]['content']) }}")
    rows = write_conversations(tmp_path / "rows.jsonl", canary, bad=False)
    run = launch(make_spec(llama, rows, data={"chat_template": str(template)}))
    end = finished(run)
    assert end["cause"] == "input" and "is rejected by the chat template" in end["why"]
    assert files_with(canary, home, (*_PREPARED, f"runs/{run.name}/data/")) == []


def failing_task(_: Any) -> Callable[[str], str]:
    def fail(item: str) -> str:
        raise ValueError(f"could not work on {item}") from KeyError(item)

    return fail


def test_what_a_helper_fails_on_is_not_quoted():
    with pytest.raises(CrewFault) as raised:
        list(run_crew(f"{__name__}:failing_task", None, ["a secret row"], workers=1))
    assert "a secret row" not in str(raised.value)
    assert "ValueError" in str(raised.value) and "KeyError" in str(raised.value)


def test_an_error_is_told_with_its_place_and_what_it_was_raised_from(monkeypatch: pytest.MonkeyPatch):
    def at_fault() -> None:
        try:
            int("a secret row")
        except ValueError as error:
            error.add_note("a secret note")
            raise RuntimeError("of a secret row") from error

    with pytest.raises(RuntimeError) as raised:
        at_fault()
    said = error_text(raised.value)
    assert said.index("ValueError") < said.index("RuntimeError") and "in at_fault" in said
    assert "a secret" not in said.replace('int("a secret row")', "").replace('"of a secret row"', "").replace(
        'add_note("a secret note")', ""
    ), "the lines of code stay, what they were about does not"
    monkeypatch.setenv(WHOLE_ERRORS_VARIABLE, "1")
    assert "RuntimeError: of a secret row" in error_text(raised.value), "unless a person asks for it"
