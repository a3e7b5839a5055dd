"""How a run comes by names of its own for shards of the cache where the kernel refuses it the links."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from engine.data.prepare import cache
from engine.data.prepare.cache import ShardKeeper


@pytest.fixture
def shards(tmp_path: Path) -> list[Path]:
    """Two shards of a cache, in `tmp_path`/cache."""
    paths = [tmp_path / "cache" / "recipe" / f"{name}.safetensors" for name in "ab"]
    paths[0].parent.mkdir(parents=True)
    for path in paths:
        path.write_text(path.name)
    return paths


@pytest.fixture
def link(monkeypatch: pytest.MonkeyPatch) -> Callable[[Path, Path], None]:
    """What makes links still, outside of a seal in which the disk of one mount is another than that of the next."""
    outside = os.link

    def refuse(source: Path, target: Path) -> None:
        raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))

    monkeypatch.setattr(os, "link", refuse)
    return outside


def test_a_link_that_somebody_outside_makes_is_taken_in_place_of_what_is_there(
    tmp_path: Path, shards: list[Path], link: Callable[[Path, Path], None]
) -> None:
    kept, asked = tmp_path / "run", []

    def ask(name: str) -> bool:
        asked.append(name)
        (kept / name).unlink(missing_ok=True)
        link(tmp_path / "cache" / name, kept / name)
        return True

    (kept / "recipe").mkdir(parents=True)
    (kept / "recipe" / "a.safetensors").write_text("of an earlier start")
    keeper = ShardKeeper(tmp_path / "cache", kept, ask)
    for shard in shards:
        keeper.keep(shard)
    assert asked == ["recipe/a.safetensors", "recipe/b.safetensors"]
    assert all((kept / name).samefile(shard) for name, shard in zip(asked, shards, strict=True))
    assert len(list((kept / "recipe").iterdir())) == 2


@pytest.mark.parametrize("answer", [None, False, True], ids=["nobody", "gone", "never done"])
def test_without_anybody_who_makes_links_shards_are_copied(
    tmp_path: Path, shards: list[Path], link: object, monkeypatch: pytest.MonkeyPatch, answer: bool | None
) -> None:
    monkeypatch.setattr(cache, "_LINK_SECONDS", 0.01)
    asked: list[str] = []

    def ask(name: str) -> bool:
        asked.append(name)
        return bool(answer)

    keeper = ShardKeeper(tmp_path / "cache", tmp_path / "run", None if answer is None else ask)
    for shard in shards:
        keeper.keep(shard)
    assert len(asked) == (answer is not None)  # whoever did not do it once is not waited for again
    kept = sorted((tmp_path / "run" / "recipe").iterdir())
    assert [path.read_text() for path in kept] == ["a.safetensors", "b.safetensors"]
    assert [path.stat().st_nlink for path in kept] == [1, 1]
