"""`finetui doctor`: each check on what it is made for, and the command itself on this machine."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from command import Finetui

from tui.commands.checks import check_home, check_terminal, judge_libraries
from tui.terminal import Terminal

VERSIONS = {"torch": "2.13.0", "transformers": "5.23.0", "peft": "0.21.2", "accelerate": "1.15.0"}
DRIVER = {"driver_gpus": 1, "driver": "580.95", "driver_cuda": 13010}
CUDA_WORKS = {"torch_cuda": "13.0", "cuda_available": True, "devices": ["H100"], **DRIVER}
CPU_ONLY = {"torch_cuda": None, "cuda_available": False, "devices": [], "no_driver": "no library"}


@pytest.mark.parametrize(
    ("found", "level", "words"),
    [
        (CUDA_WORKS, "ok", "H100; CUDA 13.0"),
        (CPU_ONLY, "ok", "training on the CPU"),
        (CPU_ONLY | DRIVER, "fail", "torch is built for the CPU only"),
        (
            CPU_ONLY | DRIVER | {"torch_cuda": "13.2"},
            "fail",
            "(CUDA 13.1) has 1, but torch, built for CUDA 13.2",
        ),
    ],
)
def test_whether_torch_and_the_driver_agree(found: dict, level: str, words: str):
    *libraries, gpu = judge_libraries({"versions": VERSIONS, "faults": {}, **found})
    assert {check.level for check in libraries} == {"ok"}
    assert gpu.level == level
    assert words in gpu.found
    assert bool(gpu.fix) == (level == "fail")


def test_only_what_every_run_needs_is_a_failure():
    checks = judge_libraries({"versions": {}, "faults": {"torch": "ImportError: x", "bitsandbytes": "OSError: y"}})
    assert [(check.level, bool(check.fix)) for check in checks] == [("fail", True), ("warn", True)]


def test_a_home_that_cannot_be_written_to_fails(tmp_path: Path):
    good = list(check_home(tmp_path / "new"))
    assert [check.name for check in good] == ["home", "disk", "locks"]
    assert (good[0].level, good[2].level) == ("ok", "ok")
    assert not any((tmp_path / "new").iterdir())

    (tmp_path / "file").write_text("")
    (bad,) = check_home(tmp_path / "file" / "home")
    assert bad.level == "fail"
    assert "FINETUI_HOME" in bad.fix


@pytest.mark.parametrize(
    ("terminal", "level"),
    [
        (Terminal(columns=80, rows=24), "ok"),
        (Terminal(columns=79, rows=24), "warn"),
        (Terminal(columns=200, rows=20), "warn"),
        (Terminal(utf8=False, ascii=True), "warn"),
    ],
)
def test_terminals(terminal: Terminal, level: str):
    (check,) = check_terminal(terminal, "xterm")
    assert check.level == level


def test_the_command_reports_this_machine(finetui: Finetui):
    result = finetui("doctor", "--json")
    report = result.json()
    levels = [check["level"] for check in report["checks"]]
    assert report["ready"] == ("fail" not in levels)
    assert result.status == (1 if "fail" in levels else 0)
    assert any(check["found"].startswith("torch 2") for check in report["checks"])
    assert all(check["fix"] for check in report["checks"] if check["level"] != "ok")


def test_a_broken_torch_is_told_and_fails(finetui: Finetui, tmp_path: Path):
    (tmp_path / "torch.py").write_text("raise OSError('libcudart.so.13: cannot open')")
    path = f"{tmp_path}:{finetui.environ()['PYTHONPATH']}"
    result = finetui.with_environment(PYTHONPATH=path)("doctor")
    assert result.status == 1
    assert "libcudart.so.13" in result.stdout
    assert result.stdout.splitlines()[-1].startswith("not ready: torch")
    assert f"Python {sys.version_info.major}.{sys.version_info.minor}" in result.stdout
