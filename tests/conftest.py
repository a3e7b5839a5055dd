"""Fixtures for all tests. Being here, it also lets tests in every folder import the modules beside it."""

from __future__ import annotations

from pathlib import Path

import pytest
from command import Finetui


@pytest.fixture
def finetui(tmp_path: Path) -> Finetui:
    """The finetui command with a home of its own."""
    return Finetui(tmp_path / "home")
