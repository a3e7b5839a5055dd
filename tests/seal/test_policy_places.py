"""Which files a sealed process is given: what was named, where its links lead, and nothing that a link smuggles in."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from pathlib import Path

import pytest

from engine.data.prepare.sealed_places import preparing_places
from engine.seal.policy.base import base_places
from engine.seal.policy.caches import clear_left, scratch
from engine.seal.policy.links import hops, with_links
from engine.seal.policy.places import Places, reading_places


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    home = tmp_path / "home"
    (home / ".ssh").mkdir(parents=True)
    (home / ".ssh" / "id_ed25519").write_text("a key")
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.delenv("FINETUI_HOME", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    return home


@pytest.mark.parametrize("disk", ["home", "memory"])
def test_a_model_of_the_hub_s_cache_is_given_its_own_blobs_and_no_others(
    home: Path, disk: str, request: pytest.FixtureRequest
) -> None:
    """Also where the cache lies in memory, beneath /dev, into which no link is followed otherwise."""
    if disk == "memory":
        home = Path(tempfile.mkdtemp(dir="/dev/shm"))
        request.addfinalizer(lambda: shutil.rmtree(home))
    blobs = home / ".cache/huggingface/hub/models--a--b/blobs"
    snapshot = blobs.parent / "snapshots" / "1234"
    snapshot.mkdir(parents=True)
    blobs.mkdir()
    for name in ("aa", "bb", "of-another-revision"):
        (blobs / name).write_text(name)
    (snapshot / "config.json").symlink_to("../../blobs/aa")
    (snapshot / "model.safetensors").symlink_to("../../blobs/bb")
    short = home / "model"
    short.symlink_to(snapshot)
    assert set(with_links(short)) == {str(each) for each in (short, snapshot, blobs / "aa", blobs / "bb")}


def test_links_that_lead_to_secrets_or_out_of_a_model_s_folder_are_not_followed(home: Path) -> None:
    key = home / ".ssh" / "id_ed25519"
    (home / "data").mkdir()
    (home / "data" / "rows.jsonl").symlink_to(key)
    (home / "data" / "more").symlink_to(home / ".ssh")
    (home / "data" / "passwords").symlink_to("/etc/shadow")
    (home / "data" / "own.jsonl").symlink_to(home / "elsewhere.jsonl")
    (home / "elsewhere.jsonl").write_text("{}")
    assert set(with_links(home / "data")) == {str(home / "data"), str(home / "elsewhere.jsonl")}
    model = home / "model"
    model.mkdir()
    (model / "config.json").write_text("{}")
    (home / "x.pem").write_text("another key")
    (model / "chat_template.jinja").symlink_to(home / "x.pem")
    assert with_links(model) == [str(model)]
    # A person who names a place means it.
    assert str(key) in with_links(key)


def test_links_on_the_way_are_found_as_the_kernel_follows_them(home: Path) -> None:
    (home / "disk" / "inner").mkdir(parents=True)
    (home / "disk" / "rows.jsonl").write_text("{}")
    (home / "way").symlink_to("disk/inner")
    # By its name alone way/.. would be the home folder.
    path = home / "way" / ".." / "rows.jsonl"
    assert list(hops(path)) == [path, home / "way", home / "disk" / "rows.jsonl"]
    (home / "circle").symlink_to("circle")
    (home / "broken").symlink_to("nowhere")
    assert with_links(home / "circle")
    assert with_links(home / "broken") == [str(home / "broken")]
    assert with_links(home / "missing") == []


def test_folders_within_linked_folders_are_followed_once(home: Path) -> None:
    for name in ("one", "two"):
        (home / name).mkdir()
    (home / "one" / "two").symlink_to(home / "two")
    (home / "two" / "one").symlink_to(home / "one")
    assert set(with_links(home / "one")) == {str(home / name) for name in ("one", "two")}


def test_a_folder_that_very_many_links_lead_into_is_given_whole(home: Path) -> None:
    for folder in ("pool", "data"):
        (home / folder).mkdir()
    for number in range(600):
        (home / "pool" / f"{number}.jsonl").touch()
        (home / "data" / f"{number}.jsonl").symlink_to(f"../pool/{number}.jsonl")
    assert set(with_links(home / "data")) == {str(home / "data"), str(home / "pool")}


@pytest.mark.skipif(os.geteuid() == 0 and not hasattr(os, "setresuid"), reason="needs another user")
def test_what_may_not_be_looked_at_is_passed_over(home: Path) -> None:
    closed = home / "closed"
    (closed / "inner").mkdir(parents=True)
    closed.chmod(0)
    child = os.fork()
    if child == 0:  # as nobody, where this is root
        status = 1
        try:
            if os.geteuid() == 0:
                home.parent.chmod(0o711)
                os.setresuid(65534, 65534, 65534)
            status = int(with_links(closed / "inner") != [])
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_the_interpreter_and_the_libraries_are_given_and_the_home_folder_is_not(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = home / "lib.so"
    own.touch()
    environment = {
        "PYTHONPATH": os.pathsep.join((str(home), str(home / "packages"))),
        "LD_PRELOAD": str(own),
        "LD_LIBRARY_PATH": f"/:{home.parent}",
        "FINETUI_SEAL_READ": str(home / ".ssh"),
        "FINETUI_SEAL_WRITE": str(home / "packages"),
    }
    (home / "packages").mkdir()
    monkeypatch.setattr(sys, "path", ["", str(home), *sys.path[1:]])
    places = base_places(environment)
    python = {str(hop) for path in (sys.executable, sys.prefix, sys.base_prefix) for hop in hops(path)}
    assert python | {str(home / "packages"), str(own)} <= set(places.read)
    assert {str(home), str(home.parent), "/", "/etc", "/root", "/home"}.isdisjoint(places.read)
    assert str(home / ".ssh") in places.read and set(places.write) == {str(home / "packages"), str(scratch())}
    assert not places.devices
    assert all(Path(each).is_symlink() or Path(each).exists() for each in places.read)


def test_data_that_is_not_there_and_values_of_other_kinds_are_passed_over(home: Path) -> None:
    """What is wrong with them the process itself tells."""
    data = {"train": [str(home / "rows.jsonl"), {"path": 3}, {}], "benchmarks": None, "held_out": {"path": "/nowhere"}}
    places = preparing_places(home / "model", data)
    assert places.read == ()
    assert set(places.write) == {str(home / ".cache/finetui" / name) for name in ("scratch", "prepared", "tokenizers")}
    (home / "rows.jsonl").touch()
    (home / "own.jinja").touch()
    found = preparing_places(home / "model", data | {"chat_template": str(home / "own.jinja")})
    assert found.read == (str(home / "rows.jsonl"), str(home / "own.jinja"))


def test_the_key_of_pseudonyms_is_made_before_its_folder_is_closed(home: Path) -> None:
    key = home / ".local/share/finetui/pseudonyms.key"
    places = preparing_places(home / "model", {"personal": "pseudonymise"})
    assert key.stat().st_size == 32 and places.read == (str(key),)


def test_places_are_joined_and_named_once(home: Path) -> None:
    (home / "a").touch()
    one, other = reading_places([home / "a"], [home / "w"]), reading_places([home / "a"])
    assert (home / "w").is_dir(), "a folder that is written to is made out here, where it can be"
    assert one | other | Places() == one == Places(read=(str(home / "a"),), write=(str(home / "w"),))


def test_what_killed_processes_left_is_cleared_after_a_month(home: Path) -> None:
    scratch = home / ".cache/finetui/scratch"
    (scratch / "pymp-old" / "inner").mkdir(parents=True)
    for name in ("old", "new"):
        (scratch / name).touch()
    (scratch / "link").symlink_to(home / ".ssh")
    month_ago = 1_000_000_000.0
    for name in ("old", "pymp-old", "link"):
        os.utime(scratch / name, (month_ago, month_ago), follow_symlinks=False)
    clear_left()
    assert [path.name for path in scratch.iterdir()] == ["new"]
    assert (home / ".ssh" / "id_ed25519").exists()
