"""Another user of the machine: what finetui keeps is closed to them, and what they prepared for it is not used."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from command import REPOSITORY, Finetui
from fault_ledger import Ledger
from waiting import events_of, wait_until

from engine.run.launch import launch, stop
from engine.run.liveness import liveness
from engine.run.private import require_own
from engine.run.processes.recorded import recorded_processes
from engine.spec import RunSpec
from profiles.problem import Problem

Script = Callable[..., None]

OTHER, THIRD = 1001, 1002
_OPEN_UMASK = ("sh", "-c", 'umask 000; exec "$@"', "sh")


def as_user(user: int, *command: object, **options: object) -> subprocess.CompletedProcess[str]:
    """Run a command as another user, with nothing of root left."""
    return subprocess.run(
        ["setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups", *map(str, command)],
        capture_output=True,
        text=True,
        check=False,
        **options,  # type: ignore[call-overload]
    )


def _can_act() -> bool:
    """Whether this is root, and its Python one that others can run: it may lie in root's own folder."""
    return os.geteuid() == 0 and as_user(OTHER, sys.executable, "-c", "import fcntl, socket").returncode == 0


needs_root = pytest.mark.skipif(not _can_act(), reason="only root can act as several users, with a Python for all")


@pytest.fixture
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder where anybody makes names, as /tmp, that every user reaches."""
    folder = Path("/tmp") / f"finetui-shared-{os.getpid()}-{tmp_path_factory.mktemp('shared').name}"
    folder.mkdir()
    folder.chmod(0o1777)
    yield folder
    shutil.rmtree(folder)


def modes(folder: Path) -> dict[str, str]:
    """What others may do with `folder` and all that is in it, by name; empty where nothing."""
    found = {}
    for path in (folder, *folder.rglob("*")):
        mode = stat.S_IMODE(path.lstat().st_mode)
        if not path.is_symlink() and mode & 0o077:
            found[path.relative_to(folder).as_posix()] = f"{mode:o}"
    return found


def test_whatever_the_umask_nothing_is_open_but_what_is_handed_over(
    finetui: Finetui, llama: Path, tmp_path: Path, ledger: Ledger
) -> None:
    """A whole story under a umask of 000: data piped in, a run, its answers, an export."""
    rows = "".join(f'{{"prompt": "Where does it hurt, {at}?", "completion": "The head."}}\n' for at in range(8))
    sets = ("train.max_steps=2", "train.probe=false", "evaluation.answers=1", "evaluation.max_new_tokens=4")
    options = [word for each in (*sets, 'data.personal="pseudonymise"') for word in ("--set", each)]
    started = finetui("train", "--model", llama, "--data", "-", *options, stdin=rows, before=_OPEN_UMASK)
    assert started.status == 0, started.stderr
    watched = finetui("watch", "latest", before=_OPEN_UMASK)
    assert watched.status == 0, watched.stdout + watched.stderr
    talked = finetui("chat", "latest", "--once", "Where?", "--max-new-tokens", "4", before=_OPEN_UMASK)
    assert talked.status == 0, talked.stderr
    out = tmp_path / "out" / "adapter"
    exported = finetui("export", "latest", "--to", "adapter", "--into", out, before=_OPEN_UMASK)
    assert exported.status == 0, exported.stderr
    assert modes(finetui.home) == {}
    assert list(finetui.home.rglob("*.safetensors")), "there is something to look at"
    given = {stat.S_IMODE(path.stat().st_mode) for path in (out, *out.rglob("*")) if path.is_file()}
    assert given == {0o666}, "what is handed over has the modes that the person's umask leaves"
    assert {stat.S_IMODE(each.stat().st_mode) for each in (out, out.parent)} == {0o777}
    ledger.injected("umask of 000")


def test_what_an_earlier_version_left_open_is_closed_and_told(finetui: Finetui) -> None:
    runs = finetui.home / "runs"
    runs.mkdir(parents=True)
    finetui.home.chmod(0o755)
    runs.chmod(0o755)
    told = finetui("runs")
    assert told.status == 0 and str(runs) in told.stderr and "closed now" in told.stderr
    assert stat.S_IMODE(runs.stat().st_mode) == 0o700
    assert stat.S_IMODE(finetui.home.stat().st_mode) == 0o755, "a folder that FINETUI_HOME names may hold other things"
    assert finetui("runs").stderr == ""

    runs.chmod(0o750)
    (check,) = [each for each in finetui("doctor", "--json").json()["checks"] if each["name"] == "private"]
    assert check["level"] == "warn" and stat.S_IMODE(runs.stat().st_mode) == 0o700


@needs_root
def test_a_live_run_is_closed_to_another_user(
    home: Path, shared: Path, spec: RunSpec, script: Script, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They cannot list it, read it, ask its engine, hold its locks, signal it, or stall it."""
    monkeypatch.setenv("FINETUI_HOME", str(shared / "home"))
    script(["train", 100_000, 0.01])
    run = launch(spec)
    wait_until(lambda: any(event["kind"] == "step" for event in events_of(run)))
    engine = recorded_processes(run)["supervisor"]
    worker = recorded_processes(run)["worker"]
    socket = f"""
import socket, sys
socket.socket(socket.AF_UNIX).connect({str(run.socket_path)!r})
"""
    lock = f"""
import fcntl
fcntl.lockf(open({str(run.lock_path)!r}, "r+b"), fcntl.LOCK_EX | fcntl.LOCK_NB)
"""
    tries: dict[str, tuple[object, ...]] = {
        "list its folder": ("ls", run.path),
        "list all runs": ("ls", run.path.parent),
        "read its journal": ("cat", run.events_path),
        "read its log": ("cat", run.log_path),
        "read its spec": ("cat", run.spec_path),
        "connect to its engine": (sys.executable, "-c", socket),
        "lock it": (sys.executable, "-c", lock),
        "make a file in its folder": ("touch", run.path / "theirs"),
        "make a run among its runs": ("mkdir", run.path.parent / "theirs"),
        "replace its folder": ("mv", run.path, shared / "taken"),
        "replace all of them": ("mv", run.path.parent, shared / "taken"),
        "signal its engine": ("kill", "-STOP", engine.pid),
        "signal its trainer": ("kill", "-STOP", worker.pid),
        "read its trainer's memory map": ("cat", f"/proc/{worker.pid}/maps"),
        "read its engine's environment": ("cat", f"/proc/{engine.pid}/environ"),
        "read through its descriptors": ("ls", f"/proc/{worker.pid}/fd"),
        "slow its trainer": ("renice", "19", worker.pid),
    }
    reached = [what for what, command in tries.items() if as_user(OTHER, *command).returncode == 0]
    assert reached == []
    seen = as_user(OTHER, "cat", f"/proc/{worker.pid}/cmdline", f"/proc/{engine.pid}/cmdline").stdout
    assert "test.jsonl" not in seen and "base" not in seen, "titles name the run's folder and no input"
    before = events_of(run)[-1]
    wait_until(lambda: events_of(run)[-1] != before)
    ledger.injected("another user at a live run", len(tries))
    stop(run)
    wait_until(lambda: liveness(run) != "live")
    assert events_of(run)[-1]["cause"] == "stopped"


def hostile_link(home: Path) -> None:
    """Another user makes `runs` a link to a place where they may read."""
    as_user(THIRD, "mkdir", "-m", "777", home.parent / "theirs")
    as_user(THIRD, "ln", "-s", home.parent / "theirs", home / "runs")


def hostile_folder(home: Path) -> None:
    as_user(THIRD, "mkdir", "-m", "777", home / "runs")


def hostile_home(home: Path) -> None:
    home.rmdir()
    as_user(THIRD, "mkdir", "-m", "1777", home)


def hostile_link_to_own(home: Path) -> None:
    """A link of theirs that leads into a folder of one's own, which finetui would then fill and close."""
    mine = home.parent / "mine"
    mine.mkdir()
    os.chown(mine, OTHER, OTHER)
    as_user(THIRD, "ln", "-s", mine, home / "runs")


HOSTILE = (hostile_link, hostile_folder, hostile_home, hostile_link_to_own)


@needs_root
@pytest.mark.parametrize("user", [0, OTHER])
@pytest.mark.parametrize("prepare", HOSTILE)
def test_a_home_that_another_user_prepared_is_refused(
    prepare: Callable[[Path], None], user: int, shared: Path, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("FINETUI_HOME", raising=False)
    home = shared / "home"
    home.mkdir()
    home.chmod(0o1777)
    prepare(home)
    program = f"""
import os, sys
sys.path.insert(0, {str(REPOSITORY)!r})
from engine.run.directory import runs_root
from engine.run.private import private_folder
from engine.run.private_home import guard_home
from profiles.problem import Problem
for attempt in (guard_home, lambda: private_folder(runs_root())):
    try:
        attempt()
    except Problem as problem:
        print(problem.what)
"""
    told = _as(user, program, home)
    lines = told.splitlines()
    assert len(lines) == 2 and all("another user" in line for line in lines), told
    theirs = shared / "theirs"
    assert not theirs.exists() or not any(theirs.iterdir())
    ledger.injected("a home that another user prepared")


@needs_root
def test_a_run_of_another_user_is_not_gone_on_with(shared: Path, ledger: Ledger) -> None:
    """Whoever resumes it would write what is learnt from their own data into that folder."""
    run = shared / "20260101T000000Z-theirs"
    run.mkdir()
    run.chmod(0o777)
    os.chown(run, THIRD, THIRD)
    with pytest.raises(Problem, match="another user"):
        require_own(run)
    ledger.injected("a run that another user prepared")


def _as(user: int, program: str, home: Path) -> str:
    """What a program of ours prints as `user`."""
    environment = {"PATH": os.environ["PATH"], "FINETUI_HOME": str(home), "HOME": str(home.parent)}
    command = [sys.executable, "-c", program]
    if user:
        command = ["setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups", *command]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, cwd="/")
    assert done.returncode == 0, done.stderr
    return done.stdout
