"""Fixtures for all tests. Being here, it also lets tests in every folder import the modules beside it."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
from command import Finetui

# Where the tests themselves are started in the background, a shell has them ignore Ctrl-C, and whatever they start
# inherits that; what is tested here is what a person in front of a terminal gets.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def finetui(tmp_path: Path) -> Finetui:
    """The finetui command with a home of its own."""
    return Finetui(tmp_path / "home")
