"""Hostile model folders through the reader of shapes and through what hands them to transformers: each a Problem that
names what is wrong, in little memory, and no file of theirs waited for."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import tiny
from command import REPOSITORY, Finetui
from hostile_folders import FOLDERS

from engine.methods.loading import load_base
from profiles.problem import Problem

ADDRESS_SPACE_BYTES = 768 << 20
"""Python with profiles.geometry takes some 30 MiB; the largest header that is read takes 200 as objects."""
PROCESSOR_SECONDS = 20

_READ_ALL = """
import json, resource, sys
from pathlib import Path
from profiles.geometry import inspect_model
resource.setrlimit(resource.RLIMIT_AS, ({0}, {0}))
for folder in sys.argv[1:]:
    used = resource.getrusage(resource.RUSAGE_SELF)
    resource.setrlimit(resource.RLIMIT_CPU, (int(used.ru_utime + used.ru_stime) + {1}, -1))
    print(json.dumps([str(problem) for problem in inspect_model(Path(folder)).problems]), flush=True)
"""


@pytest.fixture(scope="session")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.make_model(tmp_path_factory.mktemp("hostile") / "good")


def spoilt(good: Path, folder: Path, case: str) -> Path:
    folder.mkdir(parents=True)
    for path in good.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    FOLDERS[case][0](folder)
    return folder


def test_each_is_told_within_bounds(good: Path, tmp_path: Path):
    folders = {case: spoilt(good, tmp_path / str(number) / "model", case) for number, case in enumerate(FOLDERS)}
    done = subprocess.run(
        [sys.executable, "-c", _READ_ALL.format(ADDRESS_SPACE_BYTES, PROCESSOR_SECONDS), *map(str, folders.values())],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    told = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.returncode == 0, (list(folders)[len(told)], done.stderr[-2000:])
    for (case, folder), problems in zip(folders.items(), told, strict=True):
        expected = FOLDERS[case][1]
        assert any(expected in problem and str(folder) in problem for problem in problems), (case, problems)
        assert all("\n  fix: " in problem and not set(problem) & set("\x1b\x07") for problem in problems), problems


# Numbers that do no harm: transformers says itself that they are wrong.
_SEEN_BY_TRANSFORMERS = ("width as text", "1e308 wide", "negative vocabulary", "true as a number")


def _unloadable() -> list[str]:
    """Cases that the loading of weights itself must refuse; those of the tokenizer and of sizes are told elsewhere."""
    loadable = ("quantised by code", "terminal codes")
    tokenizers = ("tokenizer", "added tokens", "template is a key", "template of")
    return [case for case in FOLDERS if not any(word in case for word in tokenizers) and case not in loadable]


@pytest.mark.parametrize("case", _unloadable())
def test_none_reaches_the_library_that_loads_weights(good: Path, tmp_path: Path, case: str, monkeypatch: Any):
    import torch
    import transformers

    def fail(*_: Any, **__: Any) -> None:
        raise AssertionError("transformers was handed the folder")

    folder = spoilt(good, tmp_path / "model", case)
    if case in _SEEN_BY_TRANSFORMERS:
        expected = "cannot be loaded"
    else:
        monkeypatch.setattr(transformers.PreTrainedModel, "from_pretrained", fail)
        monkeypatch.setattr(transformers.AutoModelForCausalLM, "from_pretrained", fail)
        expected = str(folder)
    with pytest.raises(Problem) as refused:
        load_base(folder, dtype=torch.float32, device="cpu")
    assert expected in str(refused.value)


def test_a_link_that_a_model_would_have_is_followed(good: Path, tmp_path: Path):
    """Hugging Face's cache, and a folder whose weights lie on another disk."""
    from profiles.geometry import inspect_model

    blobs, snapshot = tmp_path / "models--a--b" / "blobs", tmp_path / "models--a--b" / "snapshots" / "1"
    snapshot.mkdir(parents=True)
    blobs.mkdir()
    for number, path in enumerate(good.iterdir()):
        (blobs / f"{number:040}").write_bytes(path.read_bytes())
        (snapshot / path.name).symlink_to(f"../../blobs/{number:040}")
    assert inspect_model(snapshot).problems == ()
    folder = tmp_path / "linked"
    folder.mkdir()
    for path in good.iterdir():
        (folder / path.name).symlink_to(path)
    assert inspect_model(folder).problems == ()


def test_python_files_of_a_folder_never_run(good: Path, tmp_path: Path, finetui: Finetui):
    """Without a field that names them, in every place where a library would look."""
    import torch

    folder = tmp_path / "model"
    for path in good.iterdir():
        folder.mkdir(exist_ok=True)
        (folder / path.name).write_bytes(path.read_bytes())
    mark = tmp_path / "it ran"
    code = f"open({str(mark)!r}, 'w')\n"
    for name in ("modeling_llama.py", "sitecustomize.py", "torch.py", "__init__.py", "custom_generate/generate.py"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(code)
    (folder / "custom_generate" / "requirements.txt").write_text("evil\n")
    assert finetui("inspect", folder).status == 0
    model = load_base(folder, dtype=torch.float32, device="cpu")
    assert model.generate(torch.tensor([[1, 2]]), max_new_tokens=2).shape[1] >= 3
    assert not mark.exists()
