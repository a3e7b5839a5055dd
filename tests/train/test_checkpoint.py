"""Checkpoints: complete or absent, damage is noticed, the newest good ones and the best one stay."""

from __future__ import annotations

import ctypes
import hashlib
import json
import mmap
import os
import random
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

from engine.run.checkpoints.manifest import list_checkpoints, saved_circumstances
from engine.run.checkpoints.verifying import damage, newest_checkpoint, read_back
from engine.spec import OptimizerSection
from engine.train.checkpoints import NotFiniteError, Progress, load_checkpoint, save_checkpoint
from engine.train.checkpoints.optimizer_state import optimizer_state, put_back
from engine.train.checkpoints.tensor_file import read_tensors, shapes, write_tensors
from engine.train.optimizer import make_optimizer
from profiles.problem import Problem


def _trained(steps: int = 2) -> tuple[dict[str, torch.nn.Parameter], torch.optim.Optimizer]:
    torch.manual_seed(steps)
    parameters = {"a": torch.nn.Parameter(torch.randn(8, 4)), "b": torch.nn.Parameter(torch.randn(4))}
    optimizer = torch.optim.AdamW(parameters.values(), fused=True)
    for _ in range(steps):
        sum((parameter**2).sum() for parameter in parameters.values()).backward()
        optimizer.step()
        optimizer.zero_grad()
    return parameters, optimizer


def _save(root: Path, step: int, best: int | None = None, keep: int = 2) -> Path:
    parameters, optimizer = _trained(step)
    progress = Progress(step, 10 * step, None, best)
    rate = {"optimizer.learning_rate": "0.1"}
    return save_checkpoint(root, progress, parameters, optimizer, keep=keep, circumstances=rate).path


def _flip(path: Path, place: int = -1) -> None:
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)


def test_what_was_saved_comes_back(tmp_path: Path):
    path = _save(tmp_path, 3)
    saved, saved_optimizer = _trained(3)
    parameters, optimizer = _trained(1)
    progress = load_checkpoint(path, parameters, optimizer)
    assert progress == Progress(3, 30, None, None)
    for name, parameter in parameters.items():
        assert torch.equal(parameter, saved[name])
        for key, value in saved_optimizer.state[saved[name]].items():
            assert torch.equal(optimizer.state[parameter][key], value)


def test_the_newest_and_the_best_are_kept(tmp_path: Path):
    for step in range(1, 7):
        _save(tmp_path, step, best=2 if step > 1 else None)
    assert [path.name for path in list_checkpoints(tmp_path)] == ["step-000002", "step-000005", "step-000006"]


def test_a_damaged_one_is_not_counted_among_those_kept_and_never_removed(tmp_path: Path):
    for step in range(1, 4):
        damaged = _save(tmp_path, step)
    _flip(damaged / "optimizer.safetensors")
    parameters, optimizer = _trained(4)
    saved = save_checkpoint(tmp_path, Progress(4, 1, None, None), parameters, optimizer, keep=2)
    assert [path.name for path in list_checkpoints(tmp_path)] == ["step-000002", "step-000003", "step-000004"]
    (remark,) = saved.remarks
    assert remark.startswith("step-000003 is damaged and not counted on: optimizer.safetensors is not the file")
    for step in (5, 6, 7):
        _save(tmp_path, step)
    assert [path.name for path in list_checkpoints(tmp_path)] == ["step-000003", "step-000006", "step-000007"]
    assert newest_checkpoint(tmp_path) == (tmp_path / "step-000007", [])


def test_one_of_the_step_that_is_saved_makes_way_if_it_is_damaged_and_is_kept_apart(tmp_path: Path):
    path = _save(tmp_path, 3)
    written_at = (path / "manifest.json").stat().st_mtime_ns
    assert _save(tmp_path, 3) == path and (path / "manifest.json").stat().st_mtime_ns == written_at
    _flip(path / "trainable.safetensors")
    _save(tmp_path, 3)
    assert damage(path) is None
    (apart,) = tmp_path.glob(".damaged-000003-*")
    assert (apart / "trainable.safetensors").is_file()


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_any_flipped_byte_and_any_cut_is_noticed_and_the_one_before_is_used(tmp_path_factory, data):
    root = tmp_path_factory.mktemp("checkpoints")
    older, newer = _save(root, 1), _save(root, 2)
    file = data.draw(st.sampled_from(sorted(newer.iterdir())))
    content = bytearray(file.read_bytes())
    place = data.draw(st.integers(0, len(content) - 1))
    if data.draw(st.booleans()):
        content[place] ^= 1 << data.draw(st.integers(0, 7))
    else:
        del content[place:]
    file.write_bytes(content)
    found, skipped = newest_checkpoint(root)
    assert found == older
    assert len(skipped) == 1
    assert "step-000002" in skipped[0]
    assert newer.is_dir()


@pytest.mark.parametrize("name", ["trainable", "optimizer", "random"])
def test_a_file_that_is_missing_short_or_of_another_step_is_named(tmp_path: Path, name: str):
    older, newer = _save(tmp_path, 1), _save(tmp_path, 2)
    file = newer / f"{name}.safetensors"
    content = file.read_bytes()
    shutil.copyfile(older / file.name, file)  # as whole as the one it replaces
    assert damage(newer) == f"{file.name} is not the file that was saved: its contents are others"
    file.write_bytes(content[:-1])
    assert damage(newer) == f"{file.name} has {len(content) - 1:,} bytes instead of {len(content):,}"
    file.unlink()
    found, skipped = newest_checkpoint(tmp_path)
    assert found == older and skipped == [f"step-000002 was passed over: {file.name} is missing"]
    assert newer.is_dir()


def test_a_manifest_vouches_for_itself_and_its_folder(tmp_path: Path):
    older, newer = _save(tmp_path, 1), _save(tmp_path, 2)
    assert saved_circumstances(newer) == {"optimizer.learning_rate": "0.1"}
    manifest = newer / "manifest.json"
    manifest.write_text(manifest.read_text().replace("0.1", "0.2"))
    assert damage(newer) == "manifest.json changed after it was saved"
    shutil.rmtree(newer)
    older.rename(newer)
    assert damage(newer) == "it is the checkpoint of step 1 under another's name"


def test_a_checkpoint_from_before_manifests_vouched_for_themselves_is_still_read(tmp_path: Path):
    path = _save(tmp_path, 2)
    (path / "random.safetensors").unlink()
    write_tensors(path / "random.safetensors", {"cpu": torch.get_rng_state()})
    files = {
        each.name: {"bytes": each.stat().st_size, "sha256": hashlib.sha256(each.read_bytes()).hexdigest()}
        for each in path.iterdir()
        if each.name != "manifest.json"
    }
    (path / "manifest.json").write_text(json.dumps({"format": 1, "files": files}, indent=1))
    assert newest_checkpoint(tmp_path) == (path, []) and saved_circumstances(path) == {}
    assert load_checkpoint(path, *_trained(1)).step == 2
    del files["optimizer.safetensors"]
    (path / "manifest.json").write_text(json.dumps({"format": 1, "files": files}))
    assert damage(path) == "its manifest has no optimizer.safetensors"


def test_every_generator_of_random_numbers_goes_on_from_where_it_stood(tmp_path: Path):
    def draw() -> list[float]:
        return [random.random(), random.gauss(), *np.random.normal(size=3), float(torch.rand(()))]

    random.gauss(), np.random.normal()  # each leaves the second of a pair for the next call
    path = _save(tmp_path, 1)
    expected = draw()
    draw()
    load_checkpoint(path, *_trained(1))
    assert draw() == expected


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("place", ["b", "a|exp_avg"])
def test_what_is_not_finite_is_never_published(tmp_path: Path, value: float, place: str):
    older = _save(tmp_path, 1)
    parameters, optimizer = _trained(2)
    name, _, key = place.partition("|")
    tensor = optimizer.state[parameters[name]][key] if key else parameters[name].data
    tensor.view(-1)[2] = value
    with pytest.raises(NotFiniteError) as raised:
        save_checkpoint(tmp_path, Progress(2, 1, None, None), parameters, optimizer, keep=2)
    assert raised.value.tensor == place
    assert list(tmp_path.iterdir()) == [older]


def test_what_is_read_back_comes_from_the_disk_and_leaves_memory_to_training(tmp_path: Path):
    path, size = tmp_path / "file", 1 << 20
    path.write_bytes(b"x" * size)

    def is_in_memory() -> bool:
        # A read that is not to wait (RWF_NOWAIT) has the kernel fetch what is not there, and may then find it.
        told = (ctypes.c_ubyte * (size // mmap.PAGESIZE))()
        with path.open("rb") as file, mmap.mmap(file.fileno(), size, access=mmap.ACCESS_COPY) as pages:
            first = ctypes.c_char.from_buffer(pages)
            assert ctypes.CDLL(None).mincore(ctypes.byref(first), ctypes.c_size_t(size), told) == 0
            del first  # which holds the mapping
        return any(page & 1 for page in told)

    with path.open("rb") as file:
        os.fsync(file.fileno())
        try:
            os.preadv(file.fileno(), [bytearray(1)], 0, os.RWF_NOWAIT)
        except BlockingIOError:
            pass
        except OSError:
            pytest.skip("this file system has no disk, or another beneath it")
    assert is_in_memory()
    assert read_back(path, from_disk=True) == hashlib.sha256(path.read_bytes()).hexdigest()
    read_back(path, from_disk=True)
    assert not is_in_memory()


def test_a_checkpoint_of_other_settings_is_refused_by_tensor_name(tmp_path: Path):
    path = _save(tmp_path, 1)
    parameters, optimizer = _trained(1)
    parameters["c"] = parameters.pop("b")
    with pytest.raises(Problem, match="tensor b"):
        load_checkpoint(path, parameters, optimizer)


SHARED = torch.arange(8.0)
TENSORS = {
    "number": torch.tensor(3.5, dtype=torch.float64),
    "nothing": torch.zeros(0, 4),
    "half": torch.randn(3, 5).bfloat16(),
    "bytes": torch.arange(7, dtype=torch.uint8),
    "truth": torch.tensor([True, False, True]),
    "columns": torch.arange(12.0).reshape(3, 4).t(),
    "shared": SHARED,
    "shared too": SHARED[2:5],
    "counts | é": torch.arange(5),
}


def test_tensors_written_one_by_one_are_a_file_that_safetensors_loads(tmp_path: Path):
    path = tmp_path / "file.safetensors"
    write_tensors(path, TENSORS)
    loaded = load_file(path)
    assert loaded.keys() == TENSORS.keys()
    for name, tensor in TENSORS.items():
        assert loaded[name].dtype == tensor.dtype and torch.equal(loaded[name], tensor), name
    assert {name: tensor.tolist() for name, tensor in read_tensors(path)} == {
        name: tensor.tolist() for name, tensor in TENSORS.items()
    }
    assert shapes(path) == {name: tuple(tensor.shape) for name, tensor in TENSORS.items()}


@pytest.mark.parametrize("kind", ["adamw", "adamw_8bit", "paged_adamw", "adafactor"])
def test_every_optimizer_goes_on_from_a_checkpoint_as_if_it_had_not_stopped(tmp_path: Path, kind: str):
    def start() -> tuple[dict[str, torch.nn.Parameter], torch.optim.Optimizer]:
        torch.manual_seed(0)
        parameters = {"a": torch.nn.Parameter(torch.randn(80, 64)), "b": torch.nn.Parameter(torch.randn(4))}
        return parameters, make_optimizer(parameters, OptimizerSection(kind=kind, learning_rate=1e-2))

    def step(parameters: dict[str, torch.nn.Parameter], optimizer: torch.optim.Optimizer) -> None:
        sum((parameter**2).sum() for parameter in parameters.values()).backward()
        optimizer.step()
        optimizer.zero_grad()

    parameters, optimizer = start()
    for _ in range(3):
        step(parameters, optimizer)
    saved = save_checkpoint(tmp_path, Progress(3, 1, None, None), parameters, optimizer, keep=1)
    restored, other = start()
    load_checkpoint(saved.path, restored, other)
    for _ in range(2):
        step(parameters, optimizer)
        step(restored, other)
    assert all(torch.equal(restored[name], parameter) for name, parameter in parameters.items())


# 48 MiB of parameters and 96 MiB of optimizer state, saved with memory for neither left: the limit is the kernel's, and
# counts what is mapped, so that stacks of threads would be most of it (8 MiB each, as usual).
_SAVE_WITHOUT_MEMORY = """
import resource, sys, threading
from pathlib import Path
import torch
from engine.train.checkpoints import Progress, save_checkpoint
threading.stack_size(1 << 20)
parameters = {f"{n}": torch.nn.Parameter(torch.ones(1 << 20)) for n in range(12)}
optimizer = torch.optim.AdamW(parameters.values(), fused=True)
sum((parameter ** 2).sum() for parameter in parameters.values()).backward()
optimizer.step()
optimizer.zero_grad()
held = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (held + (40 << 20), resource.RLIM_INFINITY))
print(save_checkpoint(Path(sys.argv[1]), Progress(1, 1, None, None), parameters, optimizer, keep=1).total_bytes)
"""


def test_what_an_optimizer_keeps_on_the_host_is_put_back_there():
    """Adafactor reads its count of steps in every step: from a GPU it would wait for each parameter."""
    on_host, on_device = (torch.nn.Parameter(torch.ones(4, 4, device=kind)) for kind in ("cpu", "meta"))
    spec = OptimizerSection(kind="adafactor")
    first, second = make_optimizer({"a": on_host}, spec), make_optimizer({"a": on_device}, spec)
    on_host.sum().backward()
    first.step()
    tensors, values = optimizer_state(first, {"a": on_host})
    put_back(second, {"a": on_device}, tensors.items(), values)
    state = second.state[on_device]
    assert state["step"].device.type == "cpu"
    assert {state[name].device.type for name in ("row_var", "col_var")} == {"meta"}


def test_a_save_needs_no_second_copy_of_what_it_saves(tmp_path: Path):
    command = [sys.executable, "-c", _SAVE_WITHOUT_MEMORY, str(tmp_path)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert int(result.stdout or 0) > 144 << 20, result.stderr
    assert damage(tmp_path / "step-000001") is None


# The limit on a file's size stands in for a full disk: each write past it fails, at a place that depends on it. Each
# limit has a process of its own, forked once the libraries are there.
_SAVE_UNDER_LIMITS = """
import os, resource, signal, sys
from pathlib import Path
import torch
from engine.train.checkpoints import Progress, save_checkpoint
from profiles.problem import Problem
torch.set_num_threads(1)
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
parameters = {"a": torch.nn.Parameter(torch.randn(64, 64))}
optimizer = torch.optim.AdamW(parameters.values(), fused=True)
(parameters["a"] ** 2).sum().backward()
optimizer.step()
for limit in sys.argv[2:]:
    if child := os.fork():
        os.waitpid(child, 0)
        continue
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(limit), resource.RLIM_INFINITY))
    try:
        save_checkpoint(Path(sys.argv[1], limit), Progress(9, 1, None, None), parameters, optimizer, keep=2)
    except Problem as problem:
        print(limit, "PROBLEM", problem.what, flush=True)
    os._exit(0)
"""


def test_a_full_disk_leaves_the_older_checkpoint_and_no_half_one(tmp_path: Path):
    limits = ["0", "100", "10000", "20000"]
    older = {limit: _save(tmp_path / limit, 1) for limit in limits}
    command = [sys.executable, "-c", _SAVE_UNDER_LIMITS, str(tmp_path), *limits]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    for limit in limits:
        assert (
            f"{limit} PROBLEM the checkpoint of step 9 was not saved: a file would be larger than this process"
            in result.stdout.splitlines()[limits.index(limit)]
        ), result.stderr
        assert [path.name for path in (tmp_path / limit).iterdir()] == [older[limit].name]
        assert damage(older[limit]) is None
