"""`finetui chat` and `finetui export` on a finished run of a tiny model."""

from __future__ import annotations

from pathlib import Path

import pytest
from command import Finetui
from tiny import make_reciter, make_run

from engine.run.directory import RunDirectory

BASE_ANSWER = "The fever."


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def run(home: Path) -> RunDirectory:
    return make_run(home, model=make_reciter(home / "base", BASE_ANSWER))


@pytest.fixture
def cli(home: Path) -> Finetui:
    return Finetui(home)


def test_one_question_to_both_sides(cli: Finetui, run: RunDirectory):
    result = cli("chat", run.name, "--once", "What is it?", "--max-new-tokens", "16", "--json")
    assert result.status == 0, result.stderr
    answers = result.json()
    assert answers["base"] == {"text": BASE_ANSWER, "ending": "stop"}
    assert answers["tuned"]["ending"] in ("stop", "length")


def test_a_question_from_standard_input_to_one_side(cli: Finetui, run: RunDirectory):
    result = cli("chat", "tiny", "--once", "-", "--side", "base", stdin="What is it?\n")
    assert result.status == 0, result.stderr
    assert result.stdout == f"base:\n{BASE_ANSWER}\n\n"


def test_a_conversation_remembers_until_it_is_told_to_forget(cli: Finetui, run: RunDirectory):
    result = cli(
        "chat",
        "tiny",
        "--side",
        "base",
        stdin="What is it?\n\nAnd then?\n/new\nWhat is it?\n/quit\nnot read\n",
    )
    assert result.status == 0, result.stderr
    assert result.stdout.count(f"base:\n{BASE_ANSWER}\n") == 3
    assert "A new conversation." in result.stdout


def test_a_question_that_no_context_holds_is_a_problem(cli: Finetui, run: RunDirectory):
    result = cli("chat", "tiny", "--once", "-", stdin="fever and rain " * 1000)
    assert result.status == 2
    assert "fix: " in result.stderr
    assert "Traceback" not in result.stderr


def test_an_adapter_is_exported_once(cli: Finetui, run: RunDirectory, tmp_path: Path):
    result = cli("export", "tiny", "--to", "adapter", "--into", tmp_path / "out", "--json")
    assert result.status == 0, result.stderr
    assert result.json()["path"] == str(tmp_path / "out")
    assert (tmp_path / "out" / "adapter_model.safetensors").is_file()

    again = cli("export", "tiny", "--to", "adapter", "--into", tmp_path / "out")
    assert again.status == 2
    assert str(tmp_path / "out") in again.stderr
    assert "fix: " in again.stderr


def test_a_run_without_a_result_has_nothing_to_talk_to(cli: Finetui, run: RunDirectory, tmp_path: Path):
    (tmp_path / "spec.toml").write_text(run.spec_path.read_text())
    for arguments in (["chat", tmp_path, "--once", "hello"], ["export", tmp_path, "--to", "merged"]):
        result = cli(*arguments)
        assert result.status == 2
        assert "has no tuned adapter yet" in result.stderr
