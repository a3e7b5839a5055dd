"""Pickled weights through the real command and its sealed child: bit for bit what they were, or refused by name."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest
import tiny
import torch
from command import REPOSITORY, Finetui
from pickled_models import WHOLE, hostile, pickled, plain_pickle, repack, save, weights_of
from pty_app import PtyApp
from waiting import wait_until

from engine.convert import request
from engine.convert.pickled_folder import find_pickles
from engine.convert.request import convert_model
from engine.seal.ability import ability
from profiles.geometry import inspect_model
from profiles.problem import Problem


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """In bfloat16 and untied, so that dtypes and both matrices can be compared."""
    return tiny.make_model(tmp_path_factory.mktemp("convert") / "base", tied=False, dtype="bfloat16")


def same(found: dict[str, torch.Tensor], meant: dict[str, torch.Tensor]) -> bool:
    def bits(tensor: torch.Tensor) -> tuple[Any, ...]:
        return tensor.dtype, tensor.shape, tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()

    return found.keys() == meant.keys() and all(bits(found[name]) == bits(meant[name]) for name in meant)


@pytest.mark.parametrize(("shards", "zipped"), [(1, True), (1, False), (3, True)])
def test_a_model_comes_out_as_it_went_in(finetui: Finetui, base: Path, tmp_path: Path, shards: int, zipped: bool):
    folder = pickled(base, tmp_path / "old", shards, zipped=zipped)
    (folder / "modeling_evil.py").write_text("raise SystemExit\n")
    refused = finetui("inspect", folder)
    assert refused.status == 2 and f"finetui convert {folder} --into {folder}-safetensors" in refused.stderr
    done = finetui("convert", folder, "--into", tmp_path / "new", "--yes", "--json")
    assert done.status == 0, done.stderr
    told = done.json()
    assert told["problems"] == [] and any("modeling_evil.py" in note for note in told["notes"])
    assert same(weights_of(tmp_path / "new"), weights_of(base))
    copied = {path.name for path in folder.iterdir()} - {path.name for path in folder.glob("*.bin*")}
    assert {path.name for path in (tmp_path / "new").glob("[!m]*")} == copied - {"modeling_evil.py"}
    assert inspect_model(tmp_path / "new").problems == ()
    held = {each["layer"] for each in told["seal"]["layers"] if each["held"]}
    assert held or told["seal"]["layers"]  # what holds is told, whatever this machine allows
    again = finetui("convert", folder, "--into", tmp_path / "new", "--yes")
    assert (again.status, "is not empty" in again.stderr) == (2, True)


def test_odd_tensors_keep_their_values(base: Path, tmp_path: Path):
    folder = pickled(base, tmp_path / "old")
    shared = torch.randn(6, 4)
    numbers = torch.tensor([float("nan"), float("inf"), -0.0])
    odd = {
        "embedding": shared,
        "head": shared,
        "part": shared[2:4],
        "turned": torch.arange(12.0).reshape(3, 4).t(),
        "every second": torch.arange(10)[::2],
        "not numbers": numbers,
        "scalar": torch.tensor(7, dtype=torch.int8),
        "empty": torch.zeros(0, 4),
        "flags": torch.tensor([True, False]),
        "parameter": torch.nn.Parameter(torch.randn(3)),
    }
    save(odd, folder / WHOLE)
    done = convert_model(find_pickles(folder), tmp_path / "new")
    assert same(weights_of(tmp_path / "new"), {name: tensor.detach() for name, tensor in odd.items()})
    (note,) = done.notes
    assert "embedding, head, part shared their numbers" in note
    assert done.tensors == len(odd)


EXPECTED = {
    "a call in place of a tensor": "asks to run posix.system",
    "a call beside tensors": "asks to run posix.system",
    "eval": "asks to run builtins.eval",
    "a number": "key epoch: is a number, not a tensor",
    "a list": "holds a list, not tensors by name",
    "an optimizer": "holds an optimizer's state, no model weights",
    "a training's checkpoint": "key state_dict: holds the tensors among other things",
    "a key that is no text": "key 1: is no name of a tensor",
    "numbers of nothing": "it repeats the same numbers",
    "the same numbers a thousand times": "it repeats the same numbers",
    "a sparse tensor": "sparse",
    "complex numbers": "complex64",
    "no tensor": "holds no tensor",
    "memory": "take more memory",
    "a reserved name": "is no name of a tensor",
}


@pytest.mark.parametrize("case", EXPECTED)
def test_what_is_more_than_weights_is_refused_by_name(base: Path, tmp_path: Path, case: str):
    mark = tmp_path / "it ran"
    folder = pickled(base, tmp_path / "old")
    save(hostile(mark)[case], folder / WHOLE)
    with pytest.raises(Problem) as refused:
        convert_model(find_pickles(folder), tmp_path / "new")
    assert EXPECTED[case] in str(refused.value) and str(folder) in refused.value.where
    assert not mark.exists() and sorted(path.name for path in tmp_path.iterdir()) == ["old"]


def test_files_that_torch_did_not_write(base: Path, tmp_path: Path):
    folder = pickled(base, tmp_path / "old")
    path, mark = folder / WHOLE, tmp_path / "it ran"
    weights = path.read_bytes()
    script = tmp_path / "script.pt"
    torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), script)

    def refusal() -> str:
        with pytest.raises(Problem) as refused:
            convert_model(find_pickles(folder), tmp_path / "new")
        assert not (tmp_path / "new").exists()
        return str(refused.value)

    repack(path)
    assert "is packed, which torch.save never does" in refusal()
    path.write_bytes(weights[: len(weights) // 2])
    assert "cut off or damaged" in refusal()
    path.write_bytes(script.read_bytes())
    assert "TorchScript" in refusal()
    plain_pickle(hostile(mark)["a call in place of a tensor"], path)
    assert "asks to run posix.system" in refusal()
    plain_pickle({"a": [1, 2]}, path)
    assert "loading of weights alone does not read" in refusal()
    path.write_bytes(b"GGUF" + bytes(1000))
    assert "is a GGUF file" in refusal()
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 6629824\n")
    assert "Git LFS pointer" in refusal()
    path.unlink()
    os.mkfifo(path)
    assert "is a pipe" in refusal()
    assert not mark.exists()


# What a child that a pickle took over might do in place of converting.
LIES: dict[str, tuple[str, str]] = {
    "no message": ("print('all is well')", "other words than finetui's"),
    "another message": ("print(json.dumps({'kind': 'finished'}))", "other words than finetui's"),
    "a link": ("(into / 'model.safetensors').symlink_to('/etc/passwd'); finish()", "left model.safetensors"),
    "a pipe": ("os.mkfifo(into / 'config.json'); finish()", "left config.json"),
    "code": ("(into / 'modeling.py').write_text('print()'); finish()", "left modeling.py"),
    "no end": ("os.fork(); time.sleep(600)", "SIGKILL"),
    "a way out": (
        "import ctypes; ctypes.CDLL(None).socket(2, 1, 0); finish()",
        r"opened by a process that tried to reach a network once, and was refused: socket\(AF_INET, SOCK_STREAM\)",
    ),
}


@pytest.mark.parametrize("lie", LIES)
def test_a_child_that_was_taken_over_is_not_believed(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lie: str
):
    program, found = LIES[lie]
    if lie == "a way out":
        _require_told()
    script = tmp_path / "child.py"
    script.write_text(
        "import json, os, pathlib, sys, time\n"
        "into = pathlib.Path(json.loads(sys.stdin.readline())['into'])\n"
        "def finish(): print(json.dumps({'kind': 'finished', 'tensors': 1, 'bytes': 1, 'notes': []}))\n"
        f"{program}\n"
    )
    monkeypatch.setenv("FINETUI_SEAL_READ", str(script))
    monkeypatch.setattr(request, "module_command", lambda name: [sys.executable, str(script)])
    monkeypatch.setattr(request, "_STARTING_SECONDS", 1)
    monkeypatch.setattr(request, "_LATE_SECONDS", 1 if lie == "no end" else 60)
    with pytest.raises(Problem, match=found):
        convert_model(find_pickles(pickled(base, tmp_path / "old")), tmp_path / "new")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["child.py", "old"]


TRIES = """
import sys
class Tries:
    def find_spec(self, name, path, target=None):
        if name == "torch":
            sys.meta_path.remove(self)
            import socket
            try: socket.socket()
            except OSError: pass
if "engine.convert" in sys.orig_argv: sys.meta_path.insert(0, Tries())
"""


def test_a_try_to_reach_a_network_is_told_with_its_line_and_nothing_is_kept(
    finetui: Finetui, base: Path, tmp_path: Path
):
    _require_told()
    first = tmp_path / "first"
    first.mkdir()
    (first / "sitecustomize.py").write_text(TRIES)
    folder = pickled(base, tmp_path / "old")
    run = finetui.with_environment(PYTHONPATH=f"{first}{os.pathsep}{REPOSITORY}")
    refused = run("convert", folder, "--into", tmp_path / "new", "--yes")
    assert refused.status == 2 and "opened by a process that tried to reach a network once" in refused.stderr
    assert "socket(AF_INET), in first/sitecustomize.py:8" in refused.stderr, refused.stderr
    assert "Nothing was written" in refused.stderr and not (tmp_path / "new").exists()


def _require_told() -> None:
    if "seccomp" not in ability().held:
        pytest.skip("this kernel tells of no try")


def test_folders_that_do_not_tell_what_their_weights_are(base: Path, tmp_path: Path):
    def refusal(folder: Path) -> str:
        with pytest.raises(Problem) as refused:
            find_pickles(folder)
        return str(refused.value)

    assert "has safetensors already" in refusal(base)
    folder = pickled(base, tmp_path / "sharded", 3)
    index = folder / f"{WHOLE}.index.json"
    told = json.loads(index.read_text())
    index.write_text(json.dumps({"weight_map": {**told["weight_map"], "a": "../../evil.bin"}}))
    assert "'../../evil.bin', no file name here" in refusal(folder)
    index.write_text(json.dumps({"weight_map": {**told["weight_map"], "a": "gone.bin"}}))
    assert "names gone.bin, which the folder does not have" in refusal(folder)
    name, file = next(iter(told["weight_map"].items()))
    index.write_text(json.dumps({"weight_map": {**told["weight_map"], "absent.weight": file}}))
    with pytest.raises(Problem, match=r"tensor absent\.weight: is not in this file, though the index says so"):
        convert_model(find_pickles(folder), tmp_path / "new")
    del told["weight_map"][name]
    index.write_text(json.dumps(told))
    with pytest.raises(Problem, match="is in this file, and the index does not know it"):
        convert_model(find_pickles(folder), tmp_path / "new")
    index.unlink()
    assert len(find_pickles(folder).files) == 3
    (folder / file).unlink()
    assert "has 2 of the 3 weight files" in refusal(folder)
    other = pickled(base, tmp_path / "other")
    (other / WHOLE).rename(other / "optimizer.pt")
    assert "optimizer.pt is another part of a training" in refusal(other)
    (other / "a.pt").write_bytes(b"1")
    (other / "b.pt").write_bytes(b"1")
    assert "nothing tells which is the model" in refusal(other)
    (other / "consolidated.00.pth").write_bytes(b"1")
    assert "Meta's own layout" in refusal(other)


def test_a_person_is_asked_on_a_terminal_and_nobody_is_assumed_to_agree(finetui: Finetui, base: Path, tmp_path: Path):
    folder = pickled(base, tmp_path / "old")
    refused = finetui("convert", folder, "--into", tmp_path / "new", stdin="y\n")
    assert refused.status == 2 and "add --yes" in refused.stderr
    command = finetui.argv("convert", folder, "--into", tmp_path / "new")
    for answer, there in (("\n", False), ("y\n", True)):
        with PtyApp(command, finetui.environ(), columns=120, rows=24) as app:
            app.wait_for("Open it? [y/N]", 60)
            assert "A pickle is a small program" in app.text
            app.type(answer)
            assert app.wait_for_exit(120) == 0
            assert ("; 0 attempts" in app.text) == (there and "seccomp" in ability().held)
        assert (tmp_path / "new").exists() == there


def test_killed_in_the_middle_it_leaves_nothing_of_the_target(base: Path, tmp_path: Path):
    folder = pickled(base, tmp_path / "old", 3)
    code = (
        "import os, signal, sys; from pathlib import Path\n"
        "from engine.convert.request import convert_model; from engine.convert.pickled_folder import find_pickles\n"
        "def tell(detail, done, total):\n"
        "    if done and detail.startswith('writing'):\n"
        "        print(open(f'/proc/self/task/{os.getpid()}/children').read(), flush=True)\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
        "convert_model(find_pickles(Path(sys.argv[1])), Path(sys.argv[2]), tell)\n"
    )
    command = [sys.executable, "-c", code, str(folder), str(tmp_path / "new")]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    assert done.returncode == -signal.SIGKILL
    (child,) = map(int, done.stdout.split())
    wait_until(lambda: not _is_running(child))
    assert not (tmp_path / "new").exists()
    convert_model(find_pickles(folder), tmp_path / "new")
    assert same(weights_of(tmp_path / "new"), weights_of(base))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["new", "old"]


def _is_running(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
