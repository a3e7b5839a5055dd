"""The bundle for machines without a network: what it packs, what its script refuses, and, slow, the whole of it
installed and used where no network is."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from command import REPOSITORY

from engine.airgap.bundle import CONSTRAINTS, PYTHON_TAG, SUMS, WHEELS, finish, make_bundle, own_wheel
from profiles.problem import Problem

_WITHOUT_A_NETWORK = ("unshare", "--net", "--map-root-user")


def without_a_network(*command: object, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run the command in a network of its own, which has no way out, and out of sight of this machine's pip.conf."""
    # This very Python, which a version manager may keep where no name leads to it.
    python = Path(sys.executable).resolve()
    environment = {"PATH": os.environ["PATH"], "HOME": "/nonexistent", "LANG": "C.UTF-8", "PYTHON": str(python)}
    environment |= variables
    return subprocess.run(
        [*_WITHOUT_A_NETWORK, *map(str, command)], env=environment, capture_output=True, text=True, check=False
    )


@pytest.fixture
def private_network() -> None:
    """Skips where the machine gives a process no network of its own."""
    if shutil.which("unshare") is None or without_a_network("true").returncode:
        pytest.skip("this machine makes no private network")


def put_wheel(folder: Path, name: str, version: str, needs: str = "") -> Path:
    """A wheel as pip installs it: a module and a command of that name, which tells the version."""
    path = folder / f"{name}-{version}-py3-none-any.whl"
    about = f"{name}-{version}.dist-info"
    metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n" + (
        f"Requires-Dist: {needs}\n" if needs else ""
    )
    files = {
        f"{name}.py": f"def main():\n    print({f'{name} {version}'!r})\n",
        f"{about}/METADATA": metadata,
        f"{about}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{about}/entry_points.txt": f"[console_scripts]\n{name} = {name}:main\n",
    }
    with zipfile.ZipFile(path, "w") as wheel:
        for inner, text in files.items():
            wheel.writestr(inner, text)
        wheel.writestr(f"{about}/RECORD", "".join(f"{inner},,\n" for inner in (*files, f"{about}/RECORD")))
    return path


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """As `make bundle` leaves it, with small wheels in place of finetui and what it needs."""
    folder = tmp_path / "bundle"
    (folder / WHEELS).mkdir(parents=True)
    put_wheel(folder / WHEELS, "finetui", "0.1.0", "helper>=1")
    put_wheel(folder / WHEELS, "helper", "1.5")
    put_wheel(folder / WHEELS, "helper", "1.6")
    (folder / CONSTRAINTS).write_text("helper==1.5\n")
    finish(folder)
    return folder


def test_it_installs_from_its_folder_alone_in_the_pinned_versions(
    bundle: Path, tmp_path: Path, private_network: None
) -> None:
    target = tmp_path / "a place" / "venv"
    done = without_a_network("sh", bundle / "install.sh", target, PIP_INDEX_URL="http://192.0.2.1/", PIP_FIND_LINKS="/")
    assert done.returncode == 0, done.stderr
    assert "Installed: finetui 0.1.0" in done.stdout
    told = without_a_network(target / "bin" / "helper")
    assert told.stdout == "helper 1.5\n"
    assert (target / "share" / "finetui" / CONSTRAINTS).read_text() == "helper==1.5\n"

    again = without_a_network("sh", bundle / "install.sh", target)
    assert again.returncode == 2 and "is there already" in again.stderr
    assert without_a_network(target / "bin" / "helper").stdout == "helper 1.5\n", "what was there is left alone"


def _damage(folder: Path) -> None:
    path = folder / WHEELS / "helper-1.5-py3-none-any.whl"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def _lose(folder: Path) -> None:
    (folder / WHEELS / "helper-1.5-py3-none-any.whl").unlink()


def _add(folder: Path) -> None:
    put_wheel(folder / WHEELS, "helper", "9.9")


def _tamper(folder: Path) -> None:
    with (folder / CONSTRAINTS).open("a") as file:
        file.write("other==1\n")


def _lack(folder: Path) -> None:
    """A wheel was never packed: all sums are right, and pip cannot do it."""
    for path in (folder / WHEELS).glob("helper-*"):
        path.unlink()
    finish(folder)


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (_damage, "wheels/helper-1.5-py3-none-any.whl: damaged"),
        (_lose, "wheels/helper-1.5-py3-none-any.whl: No such file"),
        (_add, "wheels/helper-9.9-py3-none-any.whl: was not packed"),
        (_tamper, "constraints.txt: damaged"),
        (_lack, "helper>=1"),
    ],
)
def test_a_folder_that_is_not_whole_installs_nothing(
    bundle: Path, tmp_path: Path, spoil: Callable[[Path], None], words: str, private_network: None
) -> None:
    spoil(bundle)
    done = without_a_network("sh", bundle / "install.sh", tmp_path / "venv")
    assert done.returncode == 2
    assert words in done.stderr and "fix:" in done.stderr
    assert not (tmp_path / "venv").exists()


def test_another_python_is_told(bundle: Path, tmp_path: Path) -> None:
    script = bundle / "install.sh"
    script.write_text(script.read_text().replace(PYTHON_TAG, "3.99"))
    done = subprocess.run(["sh", script, tmp_path / "venv"], capture_output=True, text=True, check=False)
    assert done.returncode == 2 and "Python 3.99" in done.stderr
    assert not (tmp_path / "venv").exists()


def test_finetuis_own_wheel_has_what_it_reads_at_run_time(tmp_path: Path) -> None:
    with zipfile.ZipFile(own_wheel(tmp_path)) as wheel:
        names = wheel.namelist()
    for folder in ("engine", "tui", "profiles"):
        for path in (REPOSITORY / folder).rglob("*"):
            name = path.relative_to(REPOSITORY).as_posix()
            if path.suffix in (".py", ".toml", ".jinja", ".tcss", ".safetensors", ".sh") and "demo" not in path.parts:
                assert name in names
    assert not [name for name in names if name.startswith("tests/")]


def test_a_folder_with_something_in_it_is_not_filled(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("")
    with pytest.raises(Problem, match="is not empty"):
        make_bundle(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


@pytest.mark.slow
def test_the_real_one_is_installed_and_trains_without_a_network(
    tmp_path: Path, llama: Path, private_network: None
) -> None:
    folder = make_bundle(tmp_path / "bundle")
    assert (folder / SUMS).is_file()
    venv = tmp_path / "venv"
    done = without_a_network("sh", folder / "install.sh", venv)
    assert done.returncode == 0, done.stderr
    home = {"FINETUI_HOME": str(tmp_path / "home"), "OMP_NUM_THREADS": "2"}
    finetui = venv / "bin" / "finetui"
    assert without_a_network(finetui, "--version").stdout.startswith("finetui ")
    looked = without_a_network(finetui, "doctor", "--offline", llama, **home)
    assert looked.returncode == 0, looked.stdout
    assert "fail" not in looked.stdout and looked.stdout.endswith("ready\n")
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"prompt": "Where does it hurt?", "completion": "The head."}\n' * 8)
    options = ("--set", "train.max_steps=2", "--set", "evaluation.answers=0", "--set", "train.probe=false")
    trained = without_a_network(finetui, "train", "--model", llama, "--data", rows, *options, **home)
    assert trained.returncode == 0, trained.stderr
    watched = without_a_network(finetui, "watch", "latest", **home)
    assert watched.returncode == 0, watched.stdout + watched.stderr
    out = without_a_network(finetui, "export", "latest", "--to", "adapter", "--into", tmp_path / "out", **home)
    assert out.returncode == 0 and (tmp_path / "out" / "adapter_model.safetensors").is_file(), out.stderr
