"""An export's process that was taken over: of what it leaves nothing but an export gets to the person."""

from __future__ import annotations

import hashlib
import os
import stat
import sys
from pathlib import Path
from typing import Any

import pytest
import tiny
from fault_ledger import Ledger
from recorded_runs import audit_of

from engine.export import request
from engine.export.request import export_run
from profiles.problem import Problem

CHILD = Path(__file__).with_name("leaving_child.py")

FOUND = {
    "a link": ("notes.txt", "is a link, and no file"),
    "a link to a folder": ("1_Pooling", "is a link, and no file|no export has"),
    "a hard link": ("README.md", "another name elsewhere"),
    "a pipe": ("pipe.txt", "is a pipe, and no file"),
    "a socket": ("socket.txt", "is a socket, and no file"),
    "set-id": ("README.md", "set-id"),
    "code": ("modeling_llama.py", "no export has"),
    "a path of Python's": ("site.pth", "no export has"),
    "a pickle": ("pytorch_model.bin", "no export has"),
    "a hidden file": (".gitattributes", "no export has"),
    "a hidden text": (".a.txt", "no export has"),
    "a control character": (r"a\\x1b\[2J.txt", "no export has"),
    "a folder": ("code", "a folder that no export has"),
    "a file in a folder": ("1_Pooling/evil.py", "no export has"),
    "named code": ("config.json", "names code to be run"),
    "a module": ("modules.json", r"names code to be run \(subprocess.Popen\)"),
    "no JSON": ("config.json", "JSON"),
    "no weights": ("model.safetensors", "safetensors"),
    "too large": ("more.txt", "1.0 TiB, which is more than this export can have"),
    "very many": ("", "holds more than 2,000 files"),
    "a link in its place": ("", "is no folder"),
    "a file in its place": ("", "is no folder"),
    "no folder": ("", "was not written"),
    "still writing": ("adapter_model.safetensors", "is still being written"),
    "no words": ("the export to", "its process "),
    "odd words": ("the export to", "its process "),
}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return tiny.make_run(tmp_path_factory.mktemp("home"))


@pytest.fixture
def leaves(monkeypatch: pytest.MonkeyPatch) -> Any:
    def leave(what: str) -> None:
        command = [sys.executable, str(CHILD), what]
        monkeypatch.setattr(request, "module_command", lambda _, *arguments: [*command, *arguments])
        monkeypatch.setenv("FINETUI_SEAL_READ", str(CHILD))

    return leave


@pytest.mark.parametrize("what", FOUND)
def test_what_is_no_export_is_named_and_nothing_is_delivered(
    run: Any, leaves: Any, tmp_path: Path, ledger: Ledger, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    leaves(what)
    if what == "still writing":  # with the filter nothing outlives the child
        monkeypatch.setenv("FINETUI_SEAL_WITHOUT", "seccomp")
    place, why = FOUND[what]
    with pytest.raises(Problem, match=why) as refused:
        export_run(run, "adapter", tmp_path / "out")
    assert refused.value.where.endswith(place.replace("\\\\", "\\").replace("\\[", "[")) or place == "the export to"
    assert "othing was written there" in refused.value.fix
    ledger.injected("an export with something planted in it")
    assert list(tmp_path.iterdir()) == [] and (run.outputs / "adapter" / "adapter_config.json").is_file()


def test_an_export_is_recorded_as_it_was_measured_and_not_as_its_process_says(
    run: Any, leaves: Any, tmp_path: Path
) -> None:
    leaves("nothing")
    into = export_run(run, "adapter", tmp_path / "out")
    umask = os.umask(0o077)
    os.umask(umask)
    for path in (into, *into.iterdir()):
        wanted = 0o777 if path.is_dir() else 0o666
        assert stat.S_IMODE(path.stat().st_mode) == wanted & ~umask, path
    files = next(entry for entry in reversed(audit_of(run)) if entry["what"] == "exported")["facts"]["files"]
    assert files.keys() == {path.name for path in into.iterdir()}
    for name, told in files.items():
        content = (into / name).read_bytes()
        assert told == {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
