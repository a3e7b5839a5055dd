"""What a control socket may meet. After each the run goes on, answers, and holds on to nothing that was sent."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import stat
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import pytest
from fault_ledger import Ledger
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from waiting import end_of, standing_still, wait_until

from engine.run.control import COMMANDS, ask
from engine.run.directory import RunDirectory
from engine.run.launch import launch, stop
from engine.run.liveness import liveness
from engine.run.processes.recorded import recorded_processes
from engine.run.telemetry.reading import read_state
from engine.spec import RunSpec
from profiles.problem import Problem

NOBODY = 65534


@pytest.fixture
def run(spec: RunSpec, script: Callable[..., None]) -> RunDirectory:
    """A run that lives, with a step every 10 ms."""
    script(["train", 100_000, 0.01])
    run = launch(spec)
    wait_until(lambda: read_state(run).step > 0)
    for _ in range(2):  # between two answers all was done that follows on a worker's start, and all is open that stays
        ask(run, "status")
    return run


@contextmanager
def connected(run: RunDirectory) -> Iterator[socket.socket]:
    folder = os.open(run.path, os.O_PATH)
    try:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(20)
            connection.connect(f"/proc/self/fd/{folder}/{run.socket_path.name}")
            yield connection
    finally:
        os.close(folder)


def descriptors(run: RunDirectory) -> int:
    """How many the supervisor has open."""
    return len(list(Path(f"/proc/{recorded_processes(run)['supervisor'].pid}/fd").iterdir()))


def require_going_on(run: RunDirectory, ledger: Ledger) -> None:
    """It answers, it was not asked to stop, and it takes further steps."""
    try:
        told = ask(run, "status")
        assert told["pid"] == recorded_processes(run)["supervisor"].pid and not told["stop_requested"]
        wait_until(lambda: ask(run, "status")["step"] > told["step"])
    except BaseException:
        ledger.lost("control socket")
        raise


_ALMOST = st.one_of(
    st.binary(max_size=200),
    st.binary(min_size=4000, max_size=20_000),
    st.recursive(
        st.none() | st.booleans() | st.floats() | st.text() | st.integers(),
        lambda values: st.lists(values) | st.dictionaries(st.sampled_from(["command", "v", "é"]), values),
    ).map(lambda value: json.dumps(value).encode()),
    st.fixed_dictionaries({"command": st.text()}).map(lambda value: json.dumps(value).encode()),
    st.sampled_from(COMMANDS).flatmap(lambda word: st.integers(0, 20).map(lambda n: b'{"command":"%a"' % word[:n])),
    st.sampled_from(
        [b"[" * 4000, b'{"command":"\\ud800"}', b'{"command":1e999}', b'{"command":"status","command":[]}']
    ),
)


def test_garbage_in_any_pieces_neither_stops_nor_delays_a_run(run: RunDirectory, ledger: Ledger):
    before = descriptors(run)
    tried = 0

    @settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
    @given(st.lists(_ALMOST, min_size=1, max_size=4), st.booleans(), st.sampled_from(["read", "shut", "close"]))
    def send(pieces: list[bytes], newline: bool, way: str) -> None:
        nonlocal tried
        tried += 1
        with connected(run) as connection:
            with suppress(BrokenPipeError, ConnectionResetError):  # it was answered before all was sent
                for piece in pieces:
                    connection.sendall(piece)
                if newline:
                    connection.sendall(b"\n")
            if way != "close":
                with suppress(OSError):
                    connection.shutdown(socket.SHUT_WR)
                if way == "read":
                    assert "error" in json.loads(connection.makefile("rb").readline())
        assert not ask(run, "status")["stop_requested"]

    send()
    require_going_on(run, ledger)
    wait_until(lambda: descriptors(run) <= before)
    ledger.injected("garbage on the control socket", tried)


def test_a_huge_message_is_turned_away_and_not_held(run: RunDirectory, ledger: Ledger):
    supervisor = psutil.Process(recorded_processes(run)["supervisor"].pid)
    before_bytes = supervisor.memory_info().rss
    sent_bytes = 0
    with connected(run) as connection, suppress(BrokenPipeError, ConnectionResetError):
        for _ in range(64):
            connection.sendall(b'"' * (1 << 20))
            sent_bytes += 1 << 20
    assert sent_bytes < 16 << 20
    require_going_on(run, ledger)
    assert supervisor.memory_info().rss - before_bytes < 16 << 20
    ledger.injected("huge control message")


def test_thousands_at_once_are_turned_away_and_one_who_asks_is_heard(run: RunDirectory, ledger: Ledger):
    before = descriptors(run)
    over = threading.Event()
    heard = 0

    def ask_again_and_again() -> None:
        nonlocal heard
        while not over.is_set():
            with suppress(Problem):  # who is slow to say what it wants may be let go among thousands, and asks again
                ask(run, "status")
                heard += 1

    asking = threading.Thread(target=ask_again_and_again)
    asking.start()
    calls = 0
    while calls < 3_000 or (not heard and calls < 300_000):
        callers = [socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) for _ in range(60)]
        folder = os.open(run.path, os.O_PATH)
        for caller in callers:
            with suppress(BlockingIOError):  # so many wait that the kernel turns it away
                caller.connect(f"/proc/self/fd/{folder}/{run.socket_path.name}")
            calls += 1
            with suppress(OSError):
                caller.send(b'{"command":')
        os.close(folder)
        for caller in callers:
            caller.close()
    over.set()
    asking.join(60)
    assert heard > 0 and not asking.is_alive()
    require_going_on(run, ledger)
    wait_until(lambda: descriptors(run) <= before)
    ledger.injected("control connections at once", calls)


def test_descriptors_that_are_sent_along_are_not_kept(run: RunDirectory, ledger: Ledger):
    before = descriptors(run)
    for data in (b'{"command":"status"}\n', b"x" * 3000, b'{"comm'):
        reader, writer = os.pipe()
        with connected(run) as connection:
            socket.send_fds(connection, [data], [writer] * 200)
            os.close(writer)
            connection.shutdown(socket.SHUT_WR)
            assert connection.makefile("rb").readline()
        # The pipe ends once nobody has its other end.
        assert os.read(reader, 1) == b""
        os.close(reader)
        ledger.injected("descriptors sent to the control socket", 200)
    require_going_on(run, ledger)
    wait_until(lambda: descriptors(run) <= before)


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become another user")
def test_another_user_is_neither_heard_nor_believed(run: RunDirectory, ledger: Ledger):
    def as_nobody(work: Callable[[], bytes]) -> tuple[int, int]:
        """A pipe with what `work` returned in a process of another user, and that process."""
        reader, writer = os.pipe()
        if child := os.fork():
            os.close(writer)
            return reader, child
        try:
            os.chdir(run.path)
            os.setgroups([])
            os.setgid(NOBODY)
            os.setuid(NOBODY)
            os.write(writer, work())
        finally:
            os._exit(0)

    def answer_to(work: Callable[[], bytes]) -> bytes:
        reader, child = as_nobody(work)
        with os.fdopen(reader, "rb") as file:
            answer = file.read()
        os.waitpid(child, 0)
        return answer

    def stop_it() -> bytes:
        with socket.socket(socket.AF_UNIX) as connection:
            try:
                connection.connect(run.socket_path.name)
            except PermissionError:
                return b"not permitted"
            connection.sendall(b'{"command":"kill"}\n')
            return connection.makefile("rb").readline()

    assert stat.S_IMODE(run.socket_path.stat().st_mode) == 0o600
    assert answer_to(stop_it) == b"not permitted"
    run.path.chmod(0o777)
    assert answer_to(stop_it) == b"not permitted"
    run.socket_path.chmod(0o666)
    assert b"belongs to another user" in answer_to(stop_it)
    require_going_on(run, ledger)
    ledger.injected("control message from another user", 3)

    # And the other way round: one who took the socket's place is told nothing.
    def listen_instead() -> bytes:
        Path(run.socket_path.name).unlink()
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(run.socket_path.name)
            listener.listen()
            os.write(ready_writer, b"x")
            with listener.accept()[0] as connection:
                return b"heard: " + connection.recv(1000)

    ready, ready_writer = os.pipe()
    with standing_still(recorded_processes(run)["supervisor"]):  # it takes its place again as soon as it looks
        reader, child = as_nobody(listen_instead)
        assert os.read(ready, 1)
        with pytest.raises(Problem, match="another user listens"):
            ask(run, "stop")
    with os.fdopen(reader, "rb") as file:
        assert file.read() == b"heard: "
    os.waitpid(child, 0)
    wait_until(lambda: _answers(run))
    require_going_on(run, ledger)


def test_one_who_drips_is_let_go_and_a_socket_that_was_removed_is_put_there_again(run: RunDirectory, ledger: Ledger):
    with connected(run) as slow:
        slow.setblocking(False)
        told = b""
        drips = iter(b'{"command":"kill"' + b" " * 3000)
        while not told:
            with suppress(BrokenPipeError, ConnectionResetError, BlockingIOError):
                slow.send(bytes([next(drips)]))
            ask(run, "status")
            with suppress(BlockingIOError):
                told = slow.recv(1000)
            threading.Event().wait(0.02)
    assert b"nothing was asked in time" in told
    require_going_on(run, ledger)
    ledger.injected("slow control message")

    elsewhere, supervisor = run.path / "elsewhere", recorded_processes(run)["supervisor"]
    elsewhere.touch()
    with standing_still(supervisor):  # it puts its socket there again as soon as it looks
        run.socket_path.unlink()
        run.socket_path.symlink_to(elsewhere)
        with pytest.raises(Problem):
            ask(run, "status")
    wait_until(lambda: _answers(run))
    assert elsewhere.exists() and stat.S_IMODE(run.socket_path.lstat().st_mode) == 0o600
    require_going_on(run, ledger)
    # A folder is not removed; the run is stopped by a signal, and ends as it should.
    with standing_still(supervisor):
        run.socket_path.unlink()
        run.socket_path.mkdir()
        with pytest.raises(Problem):
            ask(run, "status")
    stop(run)
    wait_until(lambda: liveness(run) == "ended")
    assert end_of(run)["outcome"] == "stopped" and run.socket_path.is_dir()
    ledger.injected("control socket replaced", 2)


def test_a_run_whose_folder_was_moved_goes_on_and_is_asked_there(run: RunDirectory, ledger: Ledger, tmp_path: Path):
    moved = RunDirectory(run.path.rename(tmp_path / "moved"))
    require_going_on(moved, ledger)
    ask(moved, "stop")
    wait_until(lambda: liveness(moved) != "live")
    assert read_state(moved).outcome is not None and not moved.socket_path.exists()
    ledger.injected("run folder moved")


def test_an_engine_whose_folder_was_deleted_ends_when_told_to(run: RunDirectory, ledger: Ledger):
    processes = recorded_processes(run)
    with standing_still(processes["supervisor"]):  # which else might write there meanwhile
        shutil.rmtree(run.path)
    with pytest.raises(Problem, match="no engine listens"):
        ask(run, "status")
    assert processes["supervisor"].is_alive() and processes["worker"].is_alive()
    processes["supervisor"].send(signal.SIGTERM)
    assert processes["supervisor"].wait(30) and processes["worker"].wait(30)
    ledger.injected("run folder deleted")


def _answers(run: RunDirectory) -> bool:
    with suppress(Problem):
        return bool(ask(run, "status"))
    return False
