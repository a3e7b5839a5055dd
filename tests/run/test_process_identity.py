"""A process is known by more than its number: threads, other namespaces and damaged files stand for no process."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.run.directory import RunDirectory
from engine.run.processes.identity import ProcessIdentity
from engine.run.processes.recorded import record_processes, recorded_processes

CONTAINED = ("unshare", "--pid", "--fork", "--mount-proc")
"""Starts a command in a pid namespace of its own."""

_VALUES = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)


def test_a_process_is_itself_by_all_of_its_marks_and_by_no_fewer():
    us = ProcessIdentity.of(os.getpid())
    assert us.is_alive() and ProcessIdentity.from_dict(json.loads(json.dumps(us.as_dict()))) == us
    for other in (
        dataclasses.replace(us, start_time=us.start_time + 1),
        dataclasses.replace(us, boot_id="00000000-0000-0000-0000-000000000000"),
        dataclasses.replace(us, namespace=us.namespace + 1),
        dataclasses.replace(us, pid=(1 << 22) - 1),
    ):
        assert not other.is_alive() and not other.send(signal.SIGKILL) and other.wait(0)


def test_a_number_that_is_a_threads_by_now_is_no_process():
    over = threading.Event()
    thread = threading.Thread(target=over.wait)
    thread.start()
    try:
        assert thread.native_id is not None
        taken = ProcessIdentity.of(thread.native_id)
        assert not taken.is_alive() and not taken.send(signal.SIGKILL) and taken.wait(0)
    finally:
        over.set()
        thread.join()


def can_make_namespaces() -> bool:
    if shutil.which(CONTAINED[0]) is None:
        return False
    return subprocess.run([*CONTAINED, "true"], check=False, capture_output=True).returncode == 0


@pytest.mark.skipif(not can_make_namespaces(), reason="this user may make no pid namespace here")
def test_a_process_of_another_container_is_none_of_ours():
    code = (
        "import json, os, sys; from engine.run.processes.identity import ProcessIdentity;"
        "print(json.dumps(ProcessIdentity.of(os.getpid()).as_dict()), flush=True); sys.stdin.read()"
    )
    command = [*CONTAINED, sys.executable, "-c", code]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=Path.cwd()) as inside:
        assert inside.stdout is not None
        there = ProcessIdentity.from_dict(json.loads(inside.stdout.readline()))
        assert there is not None and there.pid == 1
        assert there.boot_id == ProcessIdentity.of(1).boot_id, "one machine"
        # Even where number and start are those of a process that we do see.
        ours = ProcessIdentity.of(1)
        assert ours.is_alive() and not dataclasses.replace(there, start_time=ours.start_time).is_alive()
        assert not there.is_alive() and inside.poll() is None


@settings(deadline=None)
@given(
    st.dictionaries(st.sampled_from(["pid", "start_time", "boot_id", "namespace"]), _VALUES) | _VALUES | st.binary(),
)
def test_a_damaged_pid_file_names_nobody_and_breaks_nothing(tmp_path_factory: pytest.TempPathFactory, value: object):
    run = RunDirectory(tmp_path_factory.mktemp("run"))
    record_processes(run, {"supervisor": ProcessIdentity.of(os.getpid())})
    assert recorded_processes(run)["supervisor"].is_alive()
    data = value if isinstance(value, bytes) else json.dumps({"worker": value, "supervisor": [value]}).encode()
    for damaged in (data, run.pid_path.read_bytes()[:-9], b"[" * 100_000):
        run.pid_path.write_bytes(damaged)
        assert not any(process.is_alive() for process in recorded_processes(run).values())
