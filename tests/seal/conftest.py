"""Users for the tests of the layers."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from launching import Account, account


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that every user may enter, which pytest's own are not."""
    folder = Path(tempfile.mkdtemp(prefix="finetui-seal-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def me(open_folder: Path) -> Account:
    """The user who runs the tests."""
    return account(False, open_folder)


@pytest.fixture
def another(open_folder: Path) -> Account:
    """An ordinary user, where root runs the tests."""
    return account(True, open_folder)


@pytest.fixture(params=["this user", "another user"])
def somebody(request: pytest.FixtureRequest, open_folder: Path) -> Account:
    """Each of both in turn."""
    return account(request.param == "another user", open_folder)
