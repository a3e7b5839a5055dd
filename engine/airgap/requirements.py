"""Which packages finetui needs, with what those need, in which versions, and which of them are here."""

from __future__ import annotations

import re
import sys
import tomllib
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from pathlib import Path

_ROOT = Path(__file__).resolve().parents[2]
_NAME = re.compile(r"[A-Za-z0-9._-]+")
_PIN = re.compile(r"^([A-Za-z0-9._-]+)==([^\s;#]+)", re.M)
# What is imported under another name than it is installed under.
_MODULES = {"nvidia-ml-py": "pynvml", "pyyaml": "yaml"}


@dataclass(frozen=True, slots=True)
class Package:
    """One package that finetui needs, itself or for another."""

    name: str
    version: str | None
    """The version that is here; None where it is not."""
    pinned: str | None
    """The version that finetui was tested with; None where nobody says."""
    is_own: bool
    """Whether finetui itself imports it."""

    @property
    def module(self) -> str:
        return _MODULES.get(self.name, self.name.replace("-", "_"))

    @property
    def is_as_pinned(self) -> bool:
        """A build's label, such as +cpu, makes no other version."""
        return self.pinned is None or self.version is None or self.version.partition("+")[0] == self.pinned


def needed_packages() -> list[Package]:
    """All packages, those that finetui imports first, and each by name."""
    pins = _pins()
    own = {_canonical(text) for text in _own_requirements()}
    found: dict[str, str | None] = {}
    waiting = sorted(own)
    while waiting:
        name = waiting.pop()
        if name in found:
            continue
        try:
            package = metadata.distribution(name)
        except metadata.PackageNotFoundError:
            found[name] = None  # and what it needs is not known
            continue
        found[name] = package.version
        waiting += [_canonical(text) for text in package.requires or () if _is_meant(text)]
    packages = [Package(name, version, pins.get(name), name in own) for name, version in found.items()]
    return sorted(packages, key=lambda each: (not each.is_own, each.name))


def _own_requirements() -> list[str]:
    project = _ROOT / "pyproject.toml"
    if project.is_file():  # run from its source tree, where what is installed may be of an earlier version
        return list(tomllib.loads(project.read_text(encoding="utf-8"))["project"]["dependencies"])
    return [text for text in metadata.requires("finetui") or () if _is_meant(text)]


def _pins() -> dict[str, str]:
    """By name, what constraints.txt says: that of the source tree, or the one that a bundle was installed with."""
    for path in (_ROOT / "constraints.txt", Path(sys.prefix, "share", "finetui", "constraints.txt")):
        if path.is_file():
            pins = _PIN.findall(path.read_text(encoding="utf-8"))
            return {_canonical(name): version.partition("+")[0] for name, version in pins}
    return {}


def _canonical(requirement: str) -> str:
    match = _NAME.match(requirement)
    assert match is not None, requirement
    return re.sub(r"[-_.]+", "-", match.group()).lower()


def _is_meant(requirement: str) -> bool:
    """Whether it holds for this Python and platform, and for no extra."""
    _, divided, condition = requirement.partition(";")
    return not divided or any(marker.evaluate({"extra": ""}) for marker in _marker(condition.strip()))


@cache
def _marker(condition: str) -> tuple:
    """The condition, or nothing where the package that reads it is itself missing, which is told."""
    try:
        from packaging.markers import Marker
    except ImportError:
        return ()
    return (Marker(condition),)
