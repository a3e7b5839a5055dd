"""`finetui doctor`: each check on what it is made for, and the command itself on this machine."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from command import Finetui

from engine.airgap.requirements import Package, needed_packages
from engine.run.launch import launch
from engine.seal.policy.places import computing_places, reading_places
from engine.seal.proof.refusals import Refusals, socket_pair
from engine.seal.report import LayerReport
from engine.seal.sealing import start_sealed
from engine.spec import parse_spec
from profiles.problem import Problem
from tui.commands.checks import check_home, check_seal, check_system, check_terminal, judge_libraries, judge_seal
from tui.commands.offline import check_model, judge_installed, judge_packages
from tui.terminal import Terminal

VERSIONS = {"torch": "2.13.0", "transformers": "5.23.0", "peft": "0.21.2", "accelerate": "1.15.0"}
DRIVER = {"driver_gpus": 1, "driver": "580.95", "driver_cuda": 13010}
NO_DRIVER = {"no_driver": "no library"}
CUDA_WORKS = {"torch_cuda": "13.0", "cuda_available": True, "devices": ["H100"]}
CPU_ONLY = {"torch_cuda": None, "cuda_available": False, "devices": []}


@pytest.mark.parametrize(
    ("torch", "driver", "level", "words"),
    [
        (CUDA_WORKS, DRIVER, "ok", "H100; CUDA 13.0"),
        (CPU_ONLY, NO_DRIVER, "ok", "training on the CPU"),
        (CPU_ONLY, DRIVER, "fail", "torch is built for the CPU only"),
        (CPU_ONLY | {"torch_cuda": "13.2"}, DRIVER, "fail", "(CUDA 13.1) has 1, but torch, built for CUDA 13.2"),
    ],
)
def test_whether_torch_and_the_driver_agree(torch: dict, driver: dict, level: str, words: str):
    found = {"versions": VERSIONS, "imports": dict.fromkeys(VERSIONS, ""), "kernels": {}}
    *libraries, gpu = judge_libraries({**found, "torch": torch, "driver": driver})
    assert {check.level for check in libraries} == {"ok"}
    assert gpu.level == level
    assert words in gpu.found
    assert bool(gpu.fix) == (level == "fail")


def test_only_what_every_run_needs_is_a_failure():
    faults = {"torch": "ImportError: x", "bitsandbytes": "OSError: y"}
    checks = judge_libraries({"versions": {}, "imports": faults, "torch": {}, "driver": NO_DRIVER, "kernels": {}})
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


def test_a_system_that_tells_nothing_of_its_processes_is_told_before_a_run_is_made(
    finetui: Finetui, llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}\n' * 20)
    hide = 'mount -t tmpfs none /proc && exec "$@"'
    hidden = ("unshare", "--user", "--map-root-user", "--mount", "sh", "-c", hide, "sh")
    if (
        shutil.which("unshare") is None
        or subprocess.run([*hidden, "true"], capture_output=True, check=False).returncode
    ):
        pytest.skip("hides /proc in a mount namespace")
    result = finetui("train", "--model", llama, "--data", rows, before=hidden)
    assert result.status == 2 and not (finetui.home / "runs").exists(), result.stderr
    assert "/proc/meminfo: cannot be read" in result.stderr and "fix: " in result.stderr

    assert [check.level for check in check_system()] == ["ok"]
    monkeypatch.setenv("FINETUI_HOME", str(finetui.home))
    monkeypatch.setattr(sys, "platform", "darwin")
    (other,) = check_system()
    assert other.level == "fail" and "Linux only" in other.found and other.fix
    with pytest.raises(Problem, match="Linux only"):
        launch(parse_spec({"name": "a", "model": {"path": str(llama)}, "data": {"train": [str(rows)]}}, "a"))
    assert not (finetui.home / "runs").exists()


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


def test_each_layer_that_is_missing_is_told_with_what_mends_it():
    held = LayerReport("landlock", True)
    missing = LayerReport("namespace", False, why="this system restricts user namespaces", fix="sysctl -w x=0")
    lines = list(judge_seal([missing, held, LayerReport("seccomp", False, why="no kernel support")]))
    assert [line.level for line in lines] == ["warn", "ok", "warn", "warn"]
    assert "restricts user namespaces" in lines[0].found and lines[0].fix == "sysctl -w x=0"
    assert "namespace and seccomp" in lines[-1].found and "required" in lines[-1].found
    assert all(line.fix for line in lines if line.level != "ok")
    assert [line.level for line in judge_seal([held])] == ["ok"]


def test_what_this_machine_holds_is_tried(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("FINETUI_SEAL_WITHOUT", "seccomp")
    told = {line.found.partition(" ")[0]: line for line in check_seal()}
    assert {"namespace", "landlock", "seccomp"} <= told.keys()
    assert told["seccomp"].level == "warn" and told["seccomp"].fix


def test_what_is_needed_is_found_with_what_that_needs():
    packages = {each.name: each for each in needed_packages()}
    assert packages["torch"].is_own and packages["nvidia-ml-py"].module == "pynvml"
    assert not packages["huggingface-hub"].is_own, "transformers needs it, and finetui only for that"
    assert "pytest" not in packages and "cairosvg" not in packages, "tests need them, and no run"
    # What a torch for CUDA brings is pinned by torch itself.
    of_cuda = {name for name in packages if name.startswith(("nvidia-", "cuda-", "triton"))} - {"nvidia-ml-py"}
    pinned = packages.keys() - of_cuda - {"setuptools"}
    assert all(packages[name].version and packages[name].pinned for name in pinned)


def test_missing_and_other_packages_are_told_with_where_they_come_from():
    lines = list(
        judge_packages(
            [
                Package("torch", "2.13.0+cpu", "2.13.0", True),
                Package("peft", None, "0.21.2", True),
                Package("regex", "1.0", "2026.11.15", False),
                Package("setuptools", "84.0", None, False),
            ]
        )
    )
    assert [(line.level, line.found.split()[0]) for line in lines] == [("fail", "peft"), ("warn", "regex"), ("ok", "1")]
    assert "--no-index" in lines[0].fix and "make bundle" in lines[0].fix


WORKS = {
    "imports": {"torch": ""},
    "torch": {**CPU_ONLY, "architectures": [], "capabilities": []},
    "driver": NO_DRIVER,
    "kernels": {"attention": "", "4-bit weights": "", "8-bit optimizer": ""},
}
HOPPER = {**CUDA_WORKS, "architectures": ["sm_80", "sm_90"], "capabilities": ["90"]}


@pytest.mark.parametrize(
    ("changes", "level", "words"),
    [
        ({}, "ok", "flash attention is not needed"),
        ({"imports": {"torch": "", "peft": "ImportError: x"}}, "fail", "peft does not import"),
        ({"driver": DRIVER}, "fail", "make bundle TORCH="),
        ({"torch": HOPPER, "driver": DRIVER}, "ok", "H100"),
        ({"torch": {**HOPPER, "capabilities": ["89"]}, "driver": DRIVER}, "ok", "H100"),
        ({"torch": {**HOPPER, "capabilities": ["120"]}, "driver": DRIVER}, "fail", "compute capability 120"),
        ({"torch": {**HOPPER, "capabilities": ["70"]}, "driver": DRIVER}, "fail", "compute capability 70"),
        ({"kernels": {"4-bit weights": "OSError: libbitsandbytes_cuda130.so"}}, "warn", "only QLoRA"),
        ({"kernels": {"attention": "RuntimeError: no kernel image"}}, "fail", "attention"),
    ],
)
def test_what_was_tried_is_judged(changes: dict, level: str, words: str):
    lines = list(judge_installed(WORKS | changes))
    worst = max((line.level for line in lines), key=("ok", "warn", "fail").index)
    assert worst == level
    assert any(words in f"{line.found} {line.fix}" for line in lines if line.level == level)
    assert all(line.fix for line in lines if line.level != "ok")


def test_a_model_is_whole_or_each_thing_that_it_lacks_is_told(llama: Path, tmp_path: Path):
    assert [line.level for line in check_model(str(llama))] == ["ok"]
    (absent,) = check_model(str(tmp_path / "none"))
    assert absent.level == "fail" and "tokenizer" in absent.fix and "safetensors" in absent.fix

    for name, words in {"model.safetensors": "weight", "tokenizer.json": "tokenizer", "config.json": "config"}.items():
        copy = tmp_path / name
        copy.mkdir()
        for path in llama.iterdir():
            if path.name != name:
                (copy / path.name).symlink_to(path)
        lines = list(check_model(str(copy)))
        assert any(line.level == "fail" and words in line.found and line.fix for line in lines), name


def test_the_offline_report_asks_nobody(finetui: Finetui, llama: Path):
    """The kernel counts: under a seal that refuses and tells every socket, the command and its children try none."""
    finetui.home.mkdir()
    ours, theirs = socket_pair()
    with Refusals(ours).answered() as tried, theirs:
        process, report = start_sealed(
            finetui.argv("doctor", "--offline", llama, "--json"),
            reading_places([llama, Path(__file__).parent], write=[finetui.home]) | computing_places(),
            "best",
            refusals=theirs.fileno(),
            env=finetui.environ(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        output, errors = process.communicate()
    if "seccomp" not in report.held:
        pytest.skip("without seccomp nobody counts")
    assert process.returncode == 0, (output, errors)
    told = json.loads(output)
    assert told["ready"] is True
    assert {"python", "packages", "kernels", "model", "measuring", "GGUF"} <= {
        check["name"] for check in told["checks"]
    }
    assert tried == []


def test_a_model_is_only_for_the_offline_report(finetui: Finetui):
    result = finetui("doctor", "somewhere")
    assert result.status == 2 and "--offline" in result.stderr
