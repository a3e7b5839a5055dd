"""Fixtures for all tests. Being here, it also lets tests in every folder import the modules beside it."""

from __future__ import annotations

import signal
import zlib
from pathlib import Path

import pytest
from command import Finetui

# The hooks and the fixture `ledger` of the fault tests; hooks are only found here, where every process looks.
from fault_ledger import ledger, pytest_runtest_logreport, pytest_terminal_summary  # noqa: F401
from hypothesis import settings

# How long an example takes says nothing on a shared machine. `make test` says the same of the same tree each time; its
# examples are drawn anew by `make test-all`.
settings.register_profile("same", deadline=None, derandomize=True)
settings.register_profile("drawn", deadline=None)
settings.load_profile("same")

# Where the tests themselves are started in the background, a shell has them ignore Ctrl-C, and whatever they start
# inherits that; what is tested here is what a person in front of a terminal gets.
signal.signal(signal.SIGINT, signal.default_int_handler)


# Folders of files that take little time each.
_QUICK = ("data", "profiles")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files that mostly wait among those that compute, which keeps processors busy, and quick ones last, so that no
    test process waits long for another one at the end. The order is the same each time."""
    tests = Path(__file__).parent

    def place(item: pytest.Item) -> tuple[bool, int]:
        file = item.path.relative_to(tests)
        return file.parts[0] in _QUICK, zlib.crc32(str(file).encode())

    items.sort(key=place)


@pytest.fixture
def finetui(tmp_path: Path) -> Finetui:
    """The finetui command with a home of its own."""
    return Finetui(tmp_path / "home")


@pytest.fixture(scope="session")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model with random weights, for all tests that only read it."""
    import tiny  # here, since most tests do without torch

    return tiny.make_model(tmp_path_factory.mktemp("llama"))
