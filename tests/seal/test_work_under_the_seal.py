"""What training needs of a machine works inside the seal too: compilers, processes that share memory or a loopback."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from test_layers import require_here

from engine.modules import module_environment
from engine.seal.policy.places import computing_places, reading_places
from engine.seal.request import LAYERS, Sockets
from engine.seal.sealing import start_sealed

WORK = Path(__file__).parent / "work"


def sealed(script: str, folder: Path, sockets: Sockets) -> dict[str, Any]:
    """What `script` printed last, run in a seal of all layers that may write to `folder` alone. Skips the test where
    this machine lacks one."""
    require_here(*LAYERS)
    process, report = start_sealed(
        [sys.executable, "-P", str(WORK / script)],
        reading_places([WORK], write=[folder]) | computing_places(),
        "required",
        sockets=sockets,
        env={**module_environment(), "OMP_NUM_THREADS": "1"},
        cwd=folder,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    answer, errors = process.communicate(timeout=300)
    assert report.held == LAYERS, report.missing
    assert process.returncode == 0, errors.decode()
    return json.loads(answer.splitlines()[-1])


def test_torch_compiles_and_the_compiled_step_gives_the_same_numbers(tmp_path: Path):
    told = sealed("compile_a_step.py", tmp_path, "none")
    assert told["compiled"] == pytest.approx(told["plain"], rel=1e-5) and told["gradient"] > 0


def test_two_gloo_processes_add_up_over_a_loopback_of_their_own(tmp_path: Path):
    assert sealed("two_processes.py", tmp_path, "loopback") == {"sums": [[3.0] * 4] * 2, "ended": [0, 0]}


def test_data_loader_workers_hand_over_tensors_in_shared_memory(tmp_path: Path):
    told = sealed("load_with_workers.py", tmp_path, "loopback")
    assert told["sum"] == 256.0 * sum(range(64))
    # By what it is, and not by what lies there: others put their own files into ours meanwhile.
    assert told["memory"] != Path("/dev/shm").stat().st_dev, "its shared memory is its own"
