"""A run's process has ended and its number is another's now: that one is never signalled, and the run goes on."""

from __future__ import annotations

import dataclasses
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from fault_ledger import Ledger
from waiting import kill_run, wait_until

from engine.run.directory import RunDirectory
from engine.run.launch import launch, resume, stop
from engine.run.liveness import liveness
from engine.run.processes.identity import ProcessIdentity
from engine.run.processes.orphans import find_orphans
from engine.run.processes.recorded import record_processes
from engine.run.summary import summarise
from engine.run.telemetry.reading import read_state
from engine.spec import RunSpec
from profiles.problem import Problem

Script = Callable[..., None]

LONG = ("train", 100_000, 0.01)


@pytest.fixture
def stranger() -> Iterator[subprocess.Popen[bytes]]:
    """A process of this user that is none of ours."""
    process = subprocess.Popen(["sleep", "600"])
    yield process
    assert process.poll() is None, "a stranger was signalled"
    process.kill()
    process.wait()


def killed(spec: RunSpec) -> RunDirectory:
    """A run all of whose processes were killed."""
    run = launch(spec)
    wait_until(lambda: read_state(run).step > 2)
    kill_run(run)
    wait_until(lambda: liveness(run) == "died")
    return run


def mistaken(identity: ProcessIdentity, how: str) -> ProcessIdentity:
    """What pid.json has of a process whose number another got: started earlier, or before the machine did."""
    if how == "earlier":
        return dataclasses.replace(identity, start_time=identity.start_time - 1)
    return dataclasses.replace(identity, boot_id="00000000-0000-0000-0000-000000000000")


@pytest.mark.parametrize("how", ["earlier", "before a restart"])
def test_who_has_the_number_now_is_left_alone(
    spec: RunSpec, script: Script, how: str, stranger: subprocess.Popen[bytes], ledger: Ledger
):
    script(LONG)
    run = killed(spec)
    was = mistaken(ProcessIdentity.of(stranger.pid), how)
    record_processes(run, {"supervisor": was, "worker": was})
    ledger.injected("a pid reused")
    assert not any(was.send(number) for number in (signal.SIGTERM, signal.SIGKILL)) and was.wait(0)
    assert summarise(run).state == "failed"
    wait_until(lambda: find_orphans() == [])
    with pytest.raises(Problem, match="is not running"):
        stop(run)
    resume(run)
    wait_until(lambda: read_state(run).attempts == 2 and liveness(run) == "live")
    assert stranger.poll() is None
    stop(run)
    wait_until(lambda: liveness(run) != "live")


@pytest.mark.parametrize(
    "content", ["", "[]", "{", '{"worker": {"pid": 1}}', '{"worker": {"pid": -1, "start_time": 1}}']
)
def test_a_damaged_record_signals_nobody(spec: RunSpec, script: Script, content: str, ledger: Ledger):
    script(LONG)
    run = killed(spec)
    run.pid_path.write_text(content)
    ledger.injected("a damaged pid.json")
    resume(run)
    wait_until(lambda: liveness(run) == "live" and read_state(run).attempts == 2)


# As the first process of a pid namespace, so that the kernel can be told which number comes next.
_REUSE = """
import os, pathlib, signal, subprocess, sys, time
from engine.run.launch import launch, resume, stop
from engine.run.liveness import liveness
from engine.run.processes.recorded import recorded_processes
from engine.run.telemetry.reading import read_state
from engine.spec import load_spec

def reap():
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        pass

def until(condition):
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        reap()  # the first process of a namespace inherits those that nobody waits for
        time.sleep(0.02)

run = launch(load_spec(pathlib.Path(sys.argv[1])))
until(lambda: read_state(run).step > 2)
processes = recorded_processes(run)
for process in processes.values():
    process.send(signal.SIGKILL)
# A number stays taken for as long as it is also that of a session, whose last process may be another one.
until(lambda: [entry.name for entry in pathlib.Path("/proc").iterdir() if entry.name.isdecimal()] == [str(os.getpid())])
strangers = []
for process in processes.values():
    pathlib.Path("/proc/sys/kernel/ns_last_pid").write_text(str(process.pid - 1))
    strangers.append(os.posix_spawn("/bin/sleep", ["sleep", "600"], {}))
assert strangers == [process.pid for process in processes.values()], strangers
assert not any(process.is_alive() or process.send(signal.SIGKILL) for process in processes.values())
resume(run)
until(lambda: read_state(run).attempts == 2)
for pid in strangers:
    assert os.waitpid(pid, os.WNOHANG) == (0, 0), "a stranger was signalled"
stop(run)
until(lambda: liveness(run) != "live")
print("left alone")
"""


def test_a_number_that_the_kernel_gave_away_again(spec: RunSpec, script: Script, tmp_path: Path, ledger: Ledger):
    script(LONG)
    spec_path = tmp_path / "spec.toml"
    spec_path.write_text(spec.to_toml())
    alone = ["unshare", "--user", "--map-root-user", "--pid", "--fork", "--mount-proc"]
    if not shutil.which("unshare") or subprocess.run([*alone, "true"], capture_output=True, check=False).returncode:
        pytest.skip("no pid namespace can be made here")
    done = subprocess.run(
        [*alone, sys.executable, "-c", _REUSE, str(spec_path)],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "left alone\n"), done.stderr
    ledger.injected("a pid reused by the kernel", 2)
