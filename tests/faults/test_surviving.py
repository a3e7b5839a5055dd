"""Whether a run outlives its log-in: told before it starts, held where it can be, and nothing of the starter kept."""

from __future__ import annotations

import json
import os
import pty
import resource
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from fault_ledger import Ledger
from log_in import a_log_in
from waiting import end_of, events_of, wait_until

from engine.home import CACHE_VARIABLE
from engine.run.creating import create_run
from engine.run.directory import RunDirectory, find_run, list_runs
from engine.run.launch import launch, resume, stop
from engine.run.liveness import liveness
from engine.run.processes.identity import ProcessIdentity
from engine.run.processes.recorded import recorded_processes
from engine.run.surviving.host import ROOT_VARIABLE, Host
from engine.run.surviving.session_limits import session_limits
from engine.run.surviving.survival import survival
from engine.run.telemetry.reading import read_state
from engine.spec import RunSpec
from profiles.problem import Problem
from tui.commands.checks import check_logout
from tui.commands.log_out import warn_of_log_out
from tui.commands.output import Output
from tui.terminal import Terminal

Script = Callable[..., None]

LONG = ("train", 100_000, 0.01)
ADA = 4321  # has no name here, so that she is called by her number
SESSION = "user.slice/user-4321.slice/session-7.scope"
HER_SYSTEMD = "user.slice/user-4321.slice/user@4321.service/app.slice/vte-spawn-1.scope"
KILLS = {"etc/systemd/logind.conf": "[Login]\nKillUserProcesses=yes"}
LINGERS = {"var/lib/systemd/linger/4321": "", "run/user/4321/systemd/private": ""}
BUSY_BOX = {".dockerenv": "", "proc/self/stat": "9 (python) S 8 9", "proc/8/stat": "8 (sh) S 1 8"}


def a_host(root: Path, group: str, files: dict[str, str], user_id: int = ADA, **environment: str) -> Host:
    """A machine of `files`, with a process of `group` on it, and systemd-run installed."""
    commands = root / "usr/bin"
    for name, text in {"proc/self/cgroup": f"1:name=systemd:/\n0::/{group}\n", **files}.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    commands.mkdir(parents=True, exist_ok=True)
    (commands / "systemd-run").touch(mode=0o755)
    return Host(root, {"PATH": str(commands), **environment}, user_id)


@pytest.mark.parametrize(
    ("group", "files", "way", "holds"),
    [
        ("", {}, "fork", True),
        (SESSION, {}, "fork", True),
        (SESSION, {"etc/systemd/logind.conf": "#KillUserProcesses=yes"}, "fork", True),
        (SESSION, KILLS, "fork", False),
        (SESSION, KILLS | {"usr/lib/systemd/logind.conf.d/50.conf": "[Login]\nKillUserProcesses=no"}, "fork", True),
        (SESSION, KILLS | {"etc/systemd/logind.conf.d/9.conf": "[Login]\nKillExcludeUsers=bob 4321"}, "fork", True),
        (SESSION, {"etc/systemd/logind.conf": "[Login]\nKillOnlyUsers=bob\nKillOnlyUsers=4321"}, "fork", False),
        (SESSION, KILLS | {"etc/systemd/logind.conf.d/9.conf": "[Login]\nKillOnlyUsers=bob"}, "fork", True),
        (SESSION, {"run/systemd/logind.conf.d/s.conf": "[Login]\nStopIdleSessionSec=900"}, "fork", False),
        (SESSION, {"run/systemd/logind.conf.d/s.conf": "[Login]\nStopIdleSessionSec=infinity"}, "fork", True),
        (SESSION, KILLS | LINGERS, "scope", True),
        # A terminal of a desktop: the user's own systemd ends with the last session, whatever logind kills.
        (HER_SYSTEMD, {}, "fork", False),
        (HER_SYSTEMD, LINGERS, "scope", True),
        (HER_SYSTEMD, {"var/lib/systemd/linger/4321": ""}, "fork", True),
        (SESSION, KILLS | {"var/lib/systemd/linger/4321": ""}, "fork", False),
        ("system.slice/ssh.service", KILLS, "fork", True),
        ("", BUSY_BOX | {"proc/1/comm": "bash\n", "proc/1/stat": "1 (bash) S 0 1 1 34816"}, "fork", False),
        ("", BUSY_BOX | {"proc/1/comm": "sleep\n", "proc/1/stat": "1 (sleep) S 0 1 1 34816"}, "fork", True),
        ("", {"run/WSL/1": "", "proc/sys/kernel/osrelease": "6.6-microsoft-standard-WSL2"}, "fork", False),
    ],
)
def test_whether_a_run_outlives_its_log_in(
    tmp_path: Path, group: str, files: dict[str, str], way: str, holds: bool, ledger: Ledger
):
    found = survival(a_host(tmp_path, group, files))
    ledger.injected("a log-in that ends its processes, read from its files", not holds)
    assert (found.way, found.holds) == (way, holds)
    assert bool(found.remedy) != holds and found.why


def test_root_has_the_machines_systemd_and_behind_sudo_it_is_the_session_of_who_logged_in(tmp_path: Path):
    booted = {"run/systemd/system/x": ""}
    assert survival(a_host(tmp_path / "a", "user.slice/user-0.slice/session-1.scope", KILLS, 0)).way == "fork"
    assert survival(a_host(tmp_path / "b", SESSION, KILLS | booted, 0)).way == "scope"
    assert not survival(a_host(tmp_path / "c", SESSION, KILLS, 0)).holds


@pytest.mark.parametrize(("answer", "holds"), [("b true", False), ("b false", True), ("nonsense", False)])
def test_the_log_in_manager_is_asked_before_its_files_are_believed(tmp_path: Path, answer: str, holds: bool):
    host = a_host(tmp_path, SESSION, KILLS | {"run/dbus/system_bus_socket": ""})
    busctl = tmp_path / "usr/bin/busctl"
    busctl.write_text(f"#!/bin/sh\necho {answer}\n")
    busctl.chmod(0o755)
    assert survival(Host(host.root, {"PATH": f"{busctl.parent}:{os.environ['PATH']}"}, ADA)).holds == holds


def test_what_else_of_a_session_ends_a_run_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    mounts = "1 0 0:1 / / rw - ext4 /dev/a rw\n2 1 0:2 / /home/a\\040b rw - fuse.sshfs x rw,user_id=4321\n"
    monkeypatch.setenv("FINETUI_HOME", "/home/a b/finetui")
    host = a_host(tmp_path, "system.slice/jupyter.service", {"proc/self/mountinfo": mounts}, SLURM_JOB_ID="17")
    told = " ".join(f"{each.what} {each.remedy}" for each in session_limits(host))
    assert "Slurm job 17" in told and "jupyter.service" in told and "fuse.sshfs" in told
    assert session_limits(a_host(tmp_path / "b", SESSION, {})) == []

    before = resource.getrlimit(resource.RLIMIT_CPU)
    resource.setrlimit(resource.RLIMIT_CPU, (1 << 30, before[1]))
    try:
        (limit,) = session_limits(a_host(tmp_path / "c", SESSION, {}))
    finally:
        resource.setrlimit(resource.RLIMIT_CPU, before)
    assert "processor time to 1,073,741,824 s" in limit.what and "ulimit -t unlimited" in limit.remedy


# Before a run and while it starts


def fake_systemd_run(root: Path, ending: str) -> Path:
    """A machine whose systemd-run writes down how it was called, and does `ending`."""
    command = root / "usr/bin/systemd-run"
    command.write_text(f'#!/bin/sh\necho "$XDG_RUNTIME_DIR $@" >> {root}/called\n{ending}\n')
    return root / "called"


@pytest.fixture
def killing_host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """This process's machine ends a session's processes, and its user lingers."""
    user = os.getuid()
    lingers = {name.replace("4321", str(user)): "" for name in LINGERS}
    name = Host().user
    files = KILLS | lingers | {f"var/lib/systemd/linger/{name}": ""}
    files |= {"etc/systemd/logind.conf.d/9.conf": "[Login]\nKillExcludeUsers="}
    a_host(tmp_path / "root", f"user.slice/user-{user}.slice/session-7.scope", files)
    monkeypatch.setenv(ROOT_VARIABLE, str(tmp_path / "root"))
    monkeypatch.setenv("PATH", f"{tmp_path}/root/usr/bin:{os.environ['PATH']}")
    return tmp_path / "root"


def test_where_logging_out_kills_a_run_is_started_in_a_scope_of_its_own(
    killing_host: Path, spec: RunSpec, script: Script
):
    called = fake_systemd_run(killing_host, 'while [ "$1" != -- ]; do shift; done; shift; exec "$@"')
    script(LONG)
    run = launch(spec)
    stop(run)
    end_of(run)
    wait_until(lambda: liveness(run) != "live")
    script(["train", 1, 0])
    resume(run)
    first, second = (line.split() for line in called.read_text().splitlines())
    assert first[:5] == [f"{killing_host}/run/user/{os.getuid()}", "--user", "--scope", "--quiet", "--collect"]
    names = [next(word for word in words if word.startswith("--unit=finetui-")) for words in (first, second)]
    assert all(run.name in name for name in names) and names[0] != names[1]


def test_where_systemd_makes_no_scope_the_run_starts_without_and_that_is_said(
    killing_host: Path, spec: RunSpec, script: Script, ledger: Ledger
):
    called = fake_systemd_run(killing_host, "echo 'Failed to connect to bus: gone' >&2; exit 1")
    ledger.injected("systemd-run fails")
    script(LONG)
    said: list[str] = []
    run = launch(spec, tell=said.append)
    told = "systemd made no scope for this run (Failed to connect to bus: gone): logging out may end it"
    assert called.exists() and said == [told]
    assert liveness(run) == "live"
    assert [event["text"] for event in events_of(run) if event["kind"] == "note"][:1] == [told]


def test_commands_say_it_before_they_start_a_run(
    killing_host: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    (killing_host / f"var/lib/systemd/linger/{Host().user}").unlink()
    (check,) = check_logout(Host())
    assert check.level == "warn" and "KillUserProcesses=yes" in check.found and "enable-linger" in check.fix
    warn_of_log_out(Output(Terminal(), sys.stdout, sys.stderr))
    said = capsys.readouterr()
    assert said.out == "" and said.err == (
        "warning: Systemd ends a session's processes here (KillUserProcesses=yes), and runs with them.\n"
        "  Run `loginctl enable-linger` once: it keeps what you start after you log out.\n"
    )


# Logging out


@pytest.mark.parametrize("lingering", [True, False])
def test_logging_out_for_real(
    spec: RunSpec, script: Script, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lingering: bool, ledger: Ledger
):
    """With the kernel's control groups and a systemd of the user: what was told before the start is what happens."""
    script(LONG)
    with a_log_in(lingering=lingering) as log_in:
        monkeypatch.setenv(ROOT_VARIABLE, str(log_in.root))
        spec_path = tmp_path / "spec.toml"
        spec_path.write_text(spec.to_toml())
        starter = (
            "import sys; from pathlib import Path; from engine.run.launch import launch;"
            "from engine.run.surviving.survival import survival; from engine.spec import load_spec;"
            "print(survival().holds); launch(load_spec(Path(sys.argv[1])), tell=print)"
        )
        said = subprocess.check_output(log_in.starting([sys.executable, "-c", starter, str(spec_path)]), text=True)
        run = find_run("latest")
        wait_until(lambda: read_state(run).step > 0)
        assert said.split() == [str(lingering)]
        log_in.log_out()
        ledger.injected("log-out with KillUserProcesses=yes")
        if lingering:
            step = read_state(run).step
            wait_until(lambda: read_state(run).step > step + 5)
            stop(run)
        wait_until(lambda: liveness(run) != "live")
        resume(run)
        assert liveness(run) == "live"
        stop(run)
        wait_until(lambda: liveness(run) != "live")


# What an engine takes along from its starter


def open_files(process: ProcessIdentity) -> list[str]:
    """What its descriptors lead to, but for those that it closes meanwhile."""
    targets = []
    for entry in Path(f"/proc/{process.pid}/fd").iterdir():
        with suppress(FileNotFoundError):
            targets.append(os.readlink(entry))  # noqa: PTH115
    return targets


_AWKWARD_STARTER = """
import os, signal, subprocess, sys
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
signal.signal(signal.SIGINT, signal.SIG_IGN)
signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD))
os.umask(0)
os.execvp(sys.argv[1], sys.argv[1:])
"""


def test_an_engine_keeps_nothing_of_its_starter(spec: RunSpec, script: Script):
    """Its pipes, terminal, signals and folders: what is kept open would never end for whoever waits for it."""
    script(LONG)
    run = create_run(spec)
    reader, writer = os.pipe()
    terminal, mine = pty.openpty()
    # What a log-in names: an agent, a multiplexer, folders that go at log-out.
    session = {"SSH_AUTH_SOCK": "/tmp/agent", "TMUX": "/tmp/tmux", "XDG_RUNTIME_DIR": "/run/user/4321"}
    environment = {**os.environ, **session, "TMPDIR": "/tmp/nix-shell.1", "TMP": "/srv/scratch"}
    command = [sys.executable, "-P", "-m", "engine.run.supervisor", str(run.path)]
    started = subprocess.run(
        [sys.executable, "-c", _AWKWARD_STARTER, *command],
        env=environment | {"PYTHONPATH": str(Path(__file__).parents[2])},
        stdin=mine,
        stdout=subprocess.PIPE,
        stderr=mine,
        pass_fds=[writer],
        start_new_session=True,
        check=False,
    )
    os.close(writer)
    os.close(mine)
    assert json.loads(started.stdout)["ready"], run.log_path.read_text()
    assert os.read(reader, 1) == b"", "the pipe is open in none of the engine's processes"
    os.close(terminal)

    wait_until(lambda: read_state(run).step > 0)
    processes = recorded_processes(run)
    for name, process in processes.items():
        folder = Path(f"/proc/{process.pid}")
        assert not any(target.startswith(("/dev/pts", "/dev/tty", "/dev/ptmx")) for target in open_files(process)), name
        fields = (folder / "stat").read_text().rpartition(")")[2].split()
        assert fields[4] == "0", "no terminal controls it"
        assert (folder / "cwd").resolve() == (Path("/") if name == "supervisor" else run.path)
    variables = Path(f"/proc/{processes['worker'].pid}/environ").read_bytes().decode().split("\0")
    given = dict(variable.partition("=")[::2] for variable in variables)
    assert not given.keys() & session.keys()
    # A sealed process has one place for what is temporary, below finetui's own cache.
    assert given["TMP"] == given["TMPDIR"] and Path(given["TMP"]).is_relative_to(given[CACHE_VARIABLE])
    # SIGTERM was kept out, and is heard; how the worker ended can be asked, though its end was to be told to nobody.
    processes["worker"].send(signal.SIGTERM)
    assert end_of(run)["outcome"] == "stopped"
    wait_until(lambda: liveness(run) != "live")


def test_a_starter_that_is_killed_while_the_engine_starts_takes_nothing_along(
    spec: RunSpec, script: Script, home: Path, tmp_path: Path, ledger: Ledger
):
    script(LONG)
    spec_path = tmp_path / "spec.toml"
    spec_path.write_text(spec.to_toml())
    starter = (
        "import sys; from pathlib import Path; from engine.run.launch import launch;"
        "from engine.spec import load_spec; launch(load_spec(Path(sys.argv[1])))"
    )
    for number in range(3):
        process = subprocess.Popen(
            [sys.executable, "-c", starter, str(spec_path)],
            env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])},
            start_new_session=True,
        )
        run = wait_until(lambda number=number: _run_number(number))
        wait_until(lambda run=run: run.log_path.exists())  # its engine was forked off, or is about to be
        process.kill()
        process.wait()
        ledger.injected("SIGKILL of the starter while the engine starts")
        wait_until(lambda run=run: liveness(run) == "live" and read_state(run).step > 0)
        stop(run)
        wait_until(lambda run=run: liveness(run) != "live")


def _run_number(number: int) -> RunDirectory | None:
    try:
        runs = list_runs()
    except Problem:
        return None
    return runs[0] if len(runs) > number else None
