"""What a machine's speed is kept as: measured in a child process, corrected by runs, read without torch."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from engine.fit.rates import cached_rates, is_measured, measure_rates, remember_speed
from engine.fit.write_speed import measure_write_speed, with_cached_write_speed
from engine.home import cache_root
from profiles.geometry import Geometry
from profiles.hardware import Cpu, Disk, Hardware, Ram, probe
from profiles.hardware_file import hypothetical
from profiles.model_catalogue import catalogue_geometry
from profiles.problem import Problem
from profiles.settings import Settings
from profiles.speed import estimate_speed, rates_of

GIB = 1 << 30
CPU_ONLY = Hardware("host", Cpu("A CPU", 8, 16, False), Ram(32 * GIB, 32 * GIB), (), Disk(Path("/"), GIB, GIB), ())
SMALL = catalogue_geometry("HuggingFaceTB/SmolLM2-135M")
LARGER = catalogue_geometry("HuggingFaceTB/SmolLM2-360M")
LORA = Settings(method="lora", device="cpu", compute_dtype="fp32", attention="sdpa", sequence_length=512)


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FINETUI_HOME", str(tmp_path))
    return tmp_path


def predicted(hardware: Hardware = CPU_ONLY, geometry: Geometry = SMALL) -> float:
    return estimate_speed(geometry, LORA, rates_of(hardware, cached_rates(hardware))).tokens_per_second


def test_this_machine_is_measured_in_a_child_and_remembered() -> None:
    here = Hardware(
        **{name: getattr(probe(Path.cwd()), name) for name in ("host", "cpu", "ram", "disk", "notes")}, gpus=()
    )
    assert cached_rates(here) is None and not is_measured(here)
    found = measure_rates(here, timeout_seconds=600)
    assert cached_rates(here) == found and is_measured(here)
    rates = rates_of(here, found)
    assert 1e8 < rates.matmul_flops["fp32"] < 1e14 and 1e8 < rates.bandwidth_bytes_per_second < 1e13
    assert 1e-7 < rates.operation_seconds < 1 and rates.half_width >= 1 and rates.dequantised_per_second > 1e6
    assert "benchmark" in rates.source
    assert cached_rates(CPU_ONLY) is None  # another machine's are its own


@pytest.mark.parametrize(("before", "now", "kept"), [(False, True, 1e11), (True, True, 2e11), (False, False, 2e11)])
def test_a_busy_machine_does_not_replace_what_a_quiet_one_showed(
    before: bool, now: bool, kept: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    for busy, flops in ((before, 1e11), (now, 2e11)):
        printed = json.dumps({"busy": busy, "matmul_flops": {"fp32": flops}})
        monkeypatch.setattr(
            "engine.fit.rates.module_command",
            lambda *arguments, printed=printed: [sys.executable, "-c", f"print({printed!r})"],
        )
        found = measure_rates(CPU_ONLY)
    assert found == cached_rates(CPU_ONLY) and found["matmul_flops"]["fp32"] == kept


def test_a_benchmark_that_fails_says_its_last_words(monkeypatch: pytest.MonkeyPatch) -> None:
    for code, words in (("raise SystemExit('no GPU')", "no GPU"), ("print('{}')", "exit status 0")):
        monkeypatch.setattr(
            "engine.fit.rates.module_command", lambda *arguments, code=code: [sys.executable, "-c", code]
        )
        with pytest.raises(Problem, match=words):
            measure_rates(CPU_ONLY)
    assert cached_rates(CPU_ONLY) is None


def test_a_benchmark_that_cannot_run_is_a_problem_and_nothing_is_kept() -> None:
    other = hypothetical("RTX 4090")
    with pytest.raises(Problem, match="RTX 4090"):
        measure_rates(other, timeout_seconds=0.01)
    assert cached_rates(other) is None


def test_a_damaged_entry_is_nothing(home: Path) -> None:
    remember_speed(CPU_ONLY, SMALL, LORA, predicted() / 2)
    (entry,) = (cache_root() / "rates").iterdir()
    for text in ("{", "[]", '{"corrections": {"lora": "fast"}}', '{"corrections": 3, "matmul_flops": {"fp32": -1}}'):
        entry.write_text(text)
        assert predicted() == pytest.approx(estimate_speed(SMALL, LORA, rates_of(CPU_ONLY)).tokens_per_second)
        remember_speed(CPU_ONLY, SMALL, LORA, 100.0)  # and does not stand in the way of the next


def test_predictions_move_towards_what_runs_showed() -> None:
    before, other_before = predicted(), predicted(geometry=LARGER)
    real = before / 2
    remember_speed(CPU_ONLY, SMALL, LORA, real)
    assert predicted() == pytest.approx(real)
    assert predicted(geometry=LARGER) == pytest.approx(other_before / 2)  # the same method on this machine
    remember_speed(CPU_ONLY, LARGER, LORA, other_before)
    assert predicted() == pytest.approx(real)  # its own runs count for more than another model's
    remember_speed(CPU_ONLY, SMALL, LORA, real / 4)
    assert real / 4 < predicted() < real  # one odd run does not decide
    for _ in range(8):
        remember_speed(CPU_ONLY, SMALL, LORA, real)
    assert predicted() == pytest.approx(real, rel=0.02)


@pytest.mark.parametrize("measured", [0.0, -5.0, math.nan, math.inf, 1e-9, 1e12])
def test_what_cannot_be_a_speed_is_passed_over(measured: float) -> None:
    remember_speed(CPU_ONLY, SMALL, LORA, measured)
    assert cached_rates(CPU_ONLY) is None


def test_the_disk_is_measured_once_and_known_from_then_on(tmp_path: Path) -> None:
    machine = replace(CPU_ONLY, disk=Disk(tmp_path / "not" / "yet", GIB, GIB))
    assert with_cached_write_speed(machine) == machine
    speed = measure_write_speed(machine.disk)
    assert with_cached_write_speed(machine).disk.write_bytes_per_second == speed > 0
    assert not (tmp_path / "not").exists()


def test_asking_for_rates_loads_nothing_heavy() -> None:
    code = (
        "import sys, engine.fit.rates, engine.fit.write_speed; print(*{name.partition('.')[0] for name in sys.modules})"
    )
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert "profiles" in loaded
    assert not {"torch", "transformers", "bitsandbytes", "numpy", "textual"} & set(loaded)
