"""Packs finetui with every wheel that it needs into one folder, to be installed where there is no network.

    python -m engine.airgap.bundle [--into FOLDER] [--torch LABEL]

The wheels are for the platform and the Python that this runs on, in the versions of constraints.txt. Where they come
from is decided by pip's own configuration. `make bundle` calls this from the source tree.
"""

from __future__ import annotations

import argparse
import hashlib
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

from engine.run.sizes import size_text
from profiles.problem import Problem

ROOT = Path(__file__).resolve().parents[2]
WHEELS, SUMS, CONSTRAINTS, INSTALL, SCRIPT = "wheels", "SHA256SUMS", "constraints.txt", "INSTALL.txt", "install.sh"
PYTHON_TAG = f"{sys.version_info.major}.{sys.version_info.minor}"
_SETUPTOOLS = 77
"""The first that reads the project's licence as it is written (pyproject.toml asks for the same)."""
_PIP_SECONDS = 3 * 3600
"""A CUDA build of torch with its libraries has some 4 GB; over a slow line that takes an hour."""


def make_bundle(into: Path, torch: str = "") -> Path:
    """Fill the folder `into` (it must not exist, or be empty) and return it.

    `torch` is the label of one of torch's builds ("cpu", "cu130"), where the one that pip would choose is not wanted.
    Raises Problem when a wheel cannot be had, or the folder not be written.
    """
    into = into.absolute()
    if into.exists() and any(into.iterdir()):
        raise Problem(str(into), "is not empty", "Give a folder that does not exist yet, or remove that one.")
    wheels = into / WHEELS
    try:
        wheels.mkdir(parents=True, exist_ok=True)
        constraints = _constraints(torch)
        (into / CONSTRAINTS).write_text(constraints, encoding="utf-8")
        own = own_wheel(wheels)
        options = ("--only-binary", ":all:", "--constraint", str(into / CONSTRAINTS), "--dest", str(wheels))
        _pip("fetching the wheels", "download", *options, str(own))
        finish(into)
    except OSError as error:
        raise Problem(str(error.filename or into), f"cannot be written: {error.strerror}", "Free its disk.") from None
    return into


def finish(into: Path) -> None:
    """Put beside the wheels and constraints in `into` what installs them: the script, its text and the sums of all."""
    names = sorted(path.name for path in (into / WHEELS).iterdir())
    (version,) = [name.split("-")[1] for name in names if name.startswith("finetui-")]
    (into / INSTALL).write_text(_install_text(version, names, into / WHEELS), encoding="utf-8")
    script = Path(__file__).with_name(SCRIPT).read_text(encoding="utf-8")
    script = script.replace("@PYTHON@", PYTHON_TAG).replace("@VERSION@", version)
    (into / SCRIPT).write_text(script, encoding="utf-8")
    (into / SCRIPT).chmod(0o755)
    files = sorted(path for path in into.rglob("*") if path.is_file() and path.name != SUMS)
    lines = [f"{sha256_of(path)}  {path.relative_to(into).as_posix()}\n" for path in files]
    (into / SUMS).write_text("".join(lines), encoding="ascii")


def platform_tag() -> str:
    """The platform of the wheels in a word: "cp311-linux_x86_64"."""
    return f"cp{PYTHON_TAG.replace('.', '')}-{re.sub('[^A-Za-z0-9]+', '_', sysconfig.get_platform())}"


def _constraints(torch: str) -> str:
    text = (ROOT / CONSTRAINTS).read_text(encoding="utf-8")
    if not torch:
        return text
    if not re.fullmatch(r"[a-z0-9.]+", torch):
        raise Problem("TORCH", "is no label of a build of torch", "Give one such as cpu or cu130.")
    return re.sub(r"(?m)^(torch==[^+\s]+).*$", rf"\1+{torch}", text)


def own_wheel(wheels: Path) -> Path:
    """finetui's own wheel, built from the source tree. Raises Problem."""
    # setuptools builds in the tree and leaves its folders there; a copy keeps the tree clean.
    with tempfile.TemporaryDirectory() as scratch:
        copy = Path(scratch, "finetui")
        skipped = shutil.ignore_patterns("__pycache__", "*.egg-info", ".*", "build", "dist", "tests")
        shutil.copytree(ROOT, copy, ignore=skipped)
        # The setuptools that is here is as good as one that pip would fetch, unless it is too old for the project.
        here = ("--no-build-isolation",) if _setuptools_here() >= _SETUPTOOLS else ()
        _pip("building finetui's own wheel", "wheel", "--no-deps", *here, "--wheel-dir", str(wheels), str(copy))
    (own,) = wheels.glob("finetui-*.whl")
    return own


def _setuptools_here() -> int:
    """Its major version; 0 where there is none."""
    try:
        return int(metadata.version("setuptools").partition(".")[0])
    except (metadata.PackageNotFoundError, ValueError):
        return 0


def _pip(doing: str, *arguments: str) -> None:
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet", *arguments]
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, timeout=_PIP_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        raise Problem(doing, f"took more than {_PIP_SECONDS // 3600} hours", "Try again on a faster line.") from None
    if done.returncode:
        fix = "pip says above what it lacks; where it looks is its own configuration (pip config list)."
        raise Problem(doing, f"failed: pip ended with {done.returncode}", fix)


def _install_text(version: str, names: Sequence[str], wheels: Path) -> str:
    size = sum((wheels / name).stat().st_size for name in names)
    build = next((name.split("-")[1] for name in names if name.startswith("torch-")), "none")
    return f"""finetui {version}, for a machine without a network
{"=" * (len(version) + 41)}

{len(names)} wheels, {size_text(size)}, for Python {PYTHON_TAG} on {sysconfig.get_platform()}; torch {build}.

1. Copy this whole folder to the machine.
2. There:    sh install.sh [DIR]
   It checks every file against SHA256SUMS, makes a virtual environment in DIR (finetui-venv here, unless you say),
   and installs from this folder alone. Python {PYTHON_TAG} with its venv module is all that the machine must have.
3. Then:     DIR/bin/finetui doctor --offline MODEL
   says what is still missing for the way from the model in folder MODEL to a finished run. A model is not in here:
   copy its whole folder (config.json, tokenizer files, all *.safetensors and their index).

SHA256SUMS tells damage in transit. That nobody changed the folder on purpose it does not tell: compare the sum of
SHA256SUMS itself with the one that was printed when the bundle was made.
"""


def sha256_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit status: 0, or 2 after a Problem."""
    parser = argparse.ArgumentParser(prog="make bundle", description=__doc__, allow_abbrev=False)
    parser.add_argument("--into", type=Path, help="the folder to fill; dist/finetui-... by default")
    parser.add_argument("--torch", default="", metavar="LABEL", help="a build of torch, such as cpu or cu130")
    given = parser.parse_args(arguments)
    label = f"-{given.torch}" if given.torch else ""
    try:
        bundle = make_bundle(given.into or ROOT / "dist" / f"finetui-bundle-{platform_tag()}{label}", given.torch)
    except Problem as problem:
        print(problem, file=sys.stderr)
        return 2
    files = [path for path in bundle.rglob("*") if path.is_file()]
    size = sum(path.stat().st_size for path in files)
    print(f"{bundle}: {len(files)} files, {size_text(size)}")
    print(f"SHA-256 of its {SUMS}: {sha256_of(bundle / SUMS)}")
    print(f"Copy the folder to the other machine, and there: sh {SCRIPT} [DIR]")
    return 0


if __name__ == "__main__":
    sys.exit(main())
