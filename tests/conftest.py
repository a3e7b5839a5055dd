"""Fixtures for all tests. Being here, it also lets tests in every folder import the modules beside it."""

from __future__ import annotations

import signal
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


@pytest.fixture
def finetui(tmp_path: Path) -> Finetui:
    """The finetui command with a home of its own."""
    return Finetui(tmp_path / "home")


@pytest.fixture(scope="session")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model with random weights, for all tests that only read it."""
    import tiny  # here, since most tests do without torch

    return tiny.make_model(tmp_path_factory.mktemp("llama"))
