"""Nothing that finetui reads is run: its own code, read as text, has no pickle, no marshal, no eval, no remote code."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from command import REPOSITORY

from engine import wire
from engine.data.contents import PlainText
from engine.data.source import Source
from profiles.problem import Problem

PACKAGES = ("engine", "profiles", "tui")
# The script that made the bundled model hands its own work to processes of its own, and no person runs it; the probe
# that shared memory works within a seal makes a lock as DataLoaders do, and sends nothing.
EXCEPTED = {"engine/demo/pretrain.py": {"multiprocessing"}, "engine/seal/proof/probes/needs.py": {"multiprocessing"}}
MODULES = {
    "pickle",
    "cPickle",
    "_pickle",
    "marshal",
    "shelve",
    "dill",
    "cloudpickle",
    "joblib",
    "multiprocessing",
    "yaml",
}
CALLS = {"eval", "exec", "compile", "__import__"}
METHODS = {
    *("broadcast_object_list", "all_gather_object", "gather_object", "scatter_object_list", "send_object_list"),
    *("add_safe_globals", "safe_globals", "set_default_mmap_options"),
}
"""Of torch's, which pickle or let more be unpickled."""
MUST_BE = {"weights_only": True, "allow_pickle": False, "trust_remote_code": False}


def faults(tree: ast.AST) -> Iterator[tuple[str, int]]:
    """(what, line) of each way by which data could become code."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((name.name, node.lineno) for name in node.names if name.name.split(".")[0] in MODULES)
        elif isinstance(node, ast.ImportFrom):
            names = [node.module or "", *(name.name for name in node.names)]
            yield from ((name, node.lineno) for name in names if name.split(".")[0] in MODULES)
        elif isinstance(node, ast.Call):
            yield from ((what, node.lineno) for what in call_faults(node))


def call_faults(call: ast.Call) -> Iterator[str]:
    name = call.func.id if isinstance(call.func, ast.Name) else ""
    method = call.func.attr if isinstance(call.func, ast.Attribute) else ""
    owner = call.func.value.id if method and isinstance(call.func.value, ast.Name) else ""  # type: ignore[union-attr]
    keywords = {each.arg: each.value for each in call.keywords}
    if name in CALLS or method in METHODS or (owner, method) in {("torch", "save"), ("jit", "load"), ("hub", "load")}:
        yield name or method
    for argument, value in MUST_BE.items():
        given = keywords.get(argument)
        if given is not None and not (isinstance(given, ast.Constant) and given.value is value):
            yield f"{argument} is not {value}"
    if (owner, method) == ("torch", "load") and "weights_only" not in keywords:
        yield "torch.load without weights_only"
    is_auto = owner.startswith("Auto") or owner == "kind"
    if is_auto and method in ("from_pretrained", "from_config") and "trust_remote_code" not in keywords:
        yield f"{owner}.{method} without trust_remote_code"
    if is_auto and method == "from_pretrained" and "local_files_only" not in keywords:
        yield f"{owner}.{method} without local_files_only"


def test_no_code_of_ours_runs_what_it_reads():
    found = []
    files = [path for package in PACKAGES for path in sorted((Path(REPOSITORY) / package).rglob("*.py"))]
    for path in files:
        name = path.relative_to(REPOSITORY).as_posix()
        for what, line in faults(ast.parse(path.read_text(encoding="utf-8"))):
            if what.split(".")[0] not in EXCEPTED.get(name, set()):
                found.append(f"{name}:{line}: {what}")
    assert found == []
    assert len(files) > 400


@pytest.mark.parametrize(
    "code",
    [
        "import pickle",
        "from multiprocessing import Pool",
        "torch.load(path)",
        "torch.load(path, weights_only=False)",
        "np.load(path, allow_pickle=True)",
        "AutoConfig.from_pretrained(path, local_files_only=True)",
        "AutoModel.from_pretrained(path, local_files_only=True, trust_remote_code=asked)",
        "exec(text)",
        "dist.broadcast_object_list(values)",
    ],
)
def test_what_is_looked_for_would_be_found(code: str):
    assert list(faults(ast.parse(code)))


def test_values_between_processes_come_through_as_they_are():
    value = {
        "rows": [1, 2.5, None, True, "\ud83d", (1, (2,)), {3, 4}, frozenset({5})],
        Path("a") / "b": b"\x00\xff",
        7: Source(Path("x"), columns={"question": "ask"}),
        "problem": PlainText("text"),
    }
    back = wire.from_bytes(wire.to_bytes(value))
    assert back == value and list(map(type, back["rows"])) == list(map(type, value["rows"]))
    for array in (
        np.arange(6, dtype=np.uint16).reshape(2, 3),
        np.zeros((0, 64)),
        np.array([b"ab", b"c"]),
        np.array([True]),
    ):
        came = wire.from_bytes(wire.to_bytes([array]))[0]
        assert came.dtype == array.dtype and came.shape == array.shape and came.tolist() == array.tolist()
    problem = wire.from_bytes(wire.to_bytes(Problem("a", "b", "c")))
    assert isinstance(problem, Problem) and problem.as_dict() == {"where": "a", "what": "b", "fix": "c"}


def _message(text: str) -> bytes:
    return len(text).to_bytes(8, "little") + text.encode()


@pytest.mark.parametrize(
    "data",
    [
        b"\x80\x04.",
        _message("[")[:-1],
        _message("{}"),
        _message('{"$": "os:system", "of": "touch it-ran"}'),
        _message('{"$": "subprocess:Popen", "of": {"args": "x"}}'),
        _message('{"$": "engine.data.crew:subprocess", "of": {}}'),
        _message('{"$": "engine.data.crew:_load", "of": {}}'),
        _message('{"$": "engine.data.crew:_Worker", "of": {"opening": ""}}'),
        _message('{"$": "engine.data.gone:It", "of": {}}'),
        _message('{"$": "engine.data.source:Source.__init__", "of": {}}'),
        _message('{"$": "engine.data.source:Source", "of": {"nonsense": 1}}'),
        _message('{"$": "array", "of": 0, "dtype": "O", "shape": [1]}') + _message("12345678"),
        _message('{"$": "array", "of": 0, "dtype": "<i8", "shape": [1000000000000]}') + _message("12345678"),
        _message('{"$": "bytes", "of": 9}'),
        _message("[" * 100_000),
    ],
)
def test_whatever_else_is_answered_is_refused(data: bytes):
    with pytest.raises(wire.NotPlain):
        wire.from_bytes(data)
