"""The report as a child process, and what the command prints of it."""

import json
import subprocess
import sys

import pytest
from command import Finetui

from engine.data.quality import client
from engine.data.quality.client import QualityRun
from engine.data.quality.findings import QualityReport
from engine.data.quality.options import ReportOptions
from engine.data.source import Source
from profiles.problem import Problem
from tui.commands.quality_text import report_lines


@pytest.fixture(autouse=True)
def _home(tmp_path, monkeypatch):
    monkeypatch.setenv("FINETUI_HOME", str(tmp_path / "home"))


@pytest.fixture
def data(tmp_path):
    path = tmp_path / "data.jsonl"
    rows = [{"question": f"What is {number} and {number}?", "reply": f"It is {2 * number}."} for number in range(30)]
    rows[4]["reply"] = "Ask Anna Schmidt at anna@mail.com."
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return Source(path, columns={"question": "question", "answer": "reply"})


def test_a_child_makes_the_report_with_the_columns_that_were_said(data):
    found = QualityRun([data], options=ReportOptions(workers=1)).wait(60)

    assert isinstance(found, QualityReport) and found.examined == 30
    lines = list(report_lines(found))
    assert any(line.startswith("personal    1 e-mail addresses in 1 row") for line in lines)
    assert any("holds personal data" in line for line in lines)
    assert not any("anna@mail.com" in line and "personal" in line for line in lines)


def test_the_command_prints_it_and_as_json(data, tmp_path):
    finetui = Finetui(tmp_path / "home")
    held_out = tmp_path / "held.jsonl"
    held_out.write_text(data.path.read_text().replace("question", "prompt").replace("reply", "answer"))

    told = json.loads(finetui("inspect", str(held_out), "--report", "--json").stdout)
    shown = finetui("inspect", str(held_out), "--report", "--held-out", str(held_out), "--attribute", "prompt")
    refused = finetui("inspect", str(held_out), "--report", "--sample", "0")

    assert (told["kind"], told["examined"], told["personal"][0]["kind"]) == ("quality", 30, "name")
    assert shown.status == 0 and "held out are exact copies of rows to train on" in shown.stdout
    assert (refused.status, refused.stdout) == (2, "") and "--sample: is 0" in refused.stderr


def test_a_problem_of_the_child_is_raised_here(tmp_path):
    with pytest.raises(Problem, match=r"gone\.jsonl"):
        QualityRun([Source(tmp_path / "gone.jsonl")]).wait(60)


def test_a_child_that_is_killed_while_it_tells_is_a_problem(data, monkeypatch):
    half = "import sys; sys.stdin.readline(); print('{\"kind\": \"rep', end='')"
    monkeypatch.setattr(client, "module_command", lambda *_: [sys.executable, "-c", half])
    with pytest.raises(Problem, match="ended with status 0"):
        QualityRun([data]).wait(60)


@pytest.mark.parametrize("patience_seconds", [5, 0])
def test_a_cancelled_report_is_none_and_leaves_no_process_and_no_files(data, tmp_path, monkeypatch, patience_seconds):
    monkeypatch.setattr(client, "_PATIENCE_SECONDS", patience_seconds)
    line = data.path.read_text()
    data.path.write_text(line * 3_000)
    work = QualityRun([data], options=ReportOptions(workers=1))
    while not work.progress.rows and not work.is_done:
        work.wait(0.05)
    work.cancel()

    assert work.is_done and work.wait(1) is None
    assert list((tmp_path / "home" / "cache" / "quality").iterdir()) == []


def test_the_client_is_light():
    heavy = ("numpy", "torch", "rensa", "pyarrow", "pydantic")
    program = f"import sys, tui.commands.quality_text; print([name for name in {heavy} if name in sys.modules])"
    assert subprocess.check_output([sys.executable, "-c", program], text=True) == "[]\n"
