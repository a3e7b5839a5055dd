"""The supervisor of one run: a small process that outlives its starter, starts the worker and journals all it says.

    python -m engine.run.supervisor RUN_PATH [--resume]

The command returns once the engine is ready, with {"ready": true, "pid": n} on stdout, or else with
{"problem": {where, what, fix}} and exit status 2.
"""

from __future__ import annotations

import os
import re
import selectors
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from engine.run.control import ControlServer
from engine.run.daemon import detach
from engine.run.devices import DeviceFeed
from engine.run.directory import RunDirectory, disk_problem
from engine.run.folding import open_journal
from engine.run.identity import ProcessIdentity
from engine.run.journal import JournalWriter
from engine.run.lock import lock_holder, take_lock
from engine.run.log import ATTEMPT_MARK, last_lines
from engine.run.processes import record_processes, recorded_processes
from engine.run.records import to_line
from engine.run.snapshot import save_snapshot
from engine.run.worker_process import WorkerProcess, exit_sentence
from profiles.problem import Problem, printable

# From this much on the journal's fold is kept, so that opening the run stays a matter of milliseconds.
_SNAPSHOT_BYTES = 1 << 23
# A worker whose supervisor was killed saves and ends by itself; one that takes longer than this is ended.
_ORPHAN_SECONDS = 60.0
_RESERVED_KINDS = frozenset({"attempt", "control", "device", "end"})
_RESERVED_FIELDS = frozenset({"v", "seq", "at", "kind"})


class Supervisor:
    """One attempt at a run, from its lock to its end event."""

    def __init__(self, run: RunDirectory, resume: bool):
        """Take the run and start its worker. Raises Problem when the run is not free, OSError for the disk."""
        self._run = run
        self._lock = _take_run(run)
        _end_orphan(run)
        self._folding, _ = open_journal(run)
        state = self._folding.state()
        if state.attempts and not resume:
            raise Problem(run.name, "was started before", f"Go on with `finetui resume {run.name}`.")
        self._stop_requested = self._killed = False
        self._missing_records = 0
        self._snapshot_offset = 0
        self._outcome: dict[str, Any] | None = None
        self._problem: dict[str, Any] | None = None
        self._journal = JournalWriter(run.events_path)
        self._control = self._listen()
        self._signals = _catch_signals()
        number = state.attempts + 1
        print(f"{ATTEMPT_MARK}{number}, {time.strftime('%Y-%m-%d %H:%M:%S %z')} ---", flush=True)
        self._log_start = run.log_path.stat().st_size
        try:
            self._worker = WorkerProcess(run)
        except OSError as error:
            why = f"the worker could not be started: {error.strerror}"
            self._end("failed", why)
            raise Problem(run.name, why, "Correct that, then try again.") from None
        processes = {"supervisor": ProcessIdentity.of(os.getpid()), "worker": self._worker.identity}
        record_processes(run, processes)
        resumed_from = _newest_checkpoint(run) if resume else None
        self._record("attempt", number=number, resumed_from=resumed_from, worker_pid=self._worker.pid)
        self._devices = DeviceFeed(self._worker.pid, run.path)

    def serve(self) -> None:
        """Journal, answer and pass on until the worker has ended; then write why."""
        ended = False
        with selectors.DefaultSelector() as selector:
            selector.register(self._worker.end_descriptor, selectors.EVENT_READ)
            selector.register(self._worker.channel_descriptor, selectors.EVENT_READ, self._take_messages)
            selector.register(self._signals, selectors.EVENT_READ, self._take_signals)
            selector.register(self._devices, selectors.EVENT_READ, self._take_readings)
            if self._control is not None:
                selector.register(self._control, selectors.EVENT_READ, self._serve_control)
            while not ended:
                for key, _ in selector.select(timeout=1.0):
                    if key.fd == self._worker.end_descriptor:
                        ended = True
                    else:
                        key.data()
                self._serve_control()  # after a while without news, too: it lets go of those who say nothing
                if self._worker.closed and self._worker.channel_descriptor in selector.get_map():
                    selector.unregister(self._worker.channel_descriptor)
        self._take_messages()
        self._end(*self._verdict(self._worker.wait()))

    def give_up(self, why: str) -> None:
        """End the run as failed, for a fault of ours; its worker with it."""
        self._worker.kill()
        self._end("failed", why)

    def _verdict(self, status: int) -> tuple[str, str]:
        """How the run ended and why, after its worker ended with `status`."""
        if self._problem is not None:
            return "failed", f"{self._problem.get('where')}: {self._problem.get('what')}"
        if self._outcome is not None:
            if status:
                self._record("note", text=f"after its last word {exit_sentence(status, self._log())}")
            return str(self._outcome.get("outcome")), str(self._outcome.get("why", ""))
        if self._killed:
            return "stopped", "killed on request; what was learnt after the last checkpoint is lost"
        return "failed", exit_sentence(status, self._log())

    def _end(self, outcome: str, why: str) -> None:
        self._record("end", outcome=outcome, why=why, step=self._folding.state().step)
        if self._control is not None:
            self._control.close()
            self._run.socket_path.unlink(missing_ok=True)
        self._journal.close()

    def _log(self) -> list[str]:
        return last_lines(self._run.log_path, count=500, start=self._log_start)

    def _take_messages(self) -> None:
        for message in self._worker.messages():
            if isinstance(message, bytes):
                self._record("note", text=f"the worker sent what is no event: {printable(repr(message), 200)}")
                continue
            kind = message["kind"]
            fields = {name: value for name, value in message.items() if name not in _RESERVED_FIELDS}
            if kind == "outcome":
                self._outcome = fields
            elif kind in _RESERVED_KINDS:
                self._record("note", text=f"the worker sent a {kind} event, which is not its to write")
            elif kind == "step":
                self._record(kind, **{**fields, **self._totals_with(fields)})
            else:
                if kind == "problem":
                    self._problem = fields
                self._record(kind, **fields)

    def _totals_with(self, step: dict[str, Any]) -> dict[str, Any]:
        """The run's totals after `step`: with them in the journal a reader need not add up every step."""
        tokens, seconds = self._folding.totals()
        return {
            "tokens_seen": tokens + step.get("tokens", 0),
            "training_seconds": round(seconds + step.get("seconds", 0.0), 6),
        }

    def _take_readings(self) -> None:
        for reading in self._devices.take():
            if isinstance(reading, str):
                self._record("note", text=reading)
            else:
                self._record("device", **reading)

    def _serve_control(self) -> None:
        if self._control is not None:
            self._control.serve(self._answer)

    def _take_signals(self) -> None:
        self._signals.recv(4096)
        self._request("stop", os.getpid())

    def _answer(self, command: str, asking_pid: int) -> dict[str, Any]:
        if command == "status":
            state = self._folding.state()
            return {
                "pid": os.getpid(),
                "worker_pid": self._worker.pid,
                "phase": state.phase,
                "step": state.step,
                "planned_steps": state.planned_steps,
                "stop_requested": self._stop_requested,
            }
        return self._request(command, asking_pid)

    def _request(self, command: str, asking_pid: int) -> dict[str, Any]:
        """Do what was asked, or pass it on, and journal that. A repeated stop changes nothing."""
        if command == "stop" and self._stop_requested:
            return {"ok": True, "command": command, "already": True}
        if command == "kill":
            self._killed = True
            self._worker.kill()
        elif not self._worker.send(command):
            return {"error": "the worker takes no commands now: it is ending, or too busy to read the last ones"}
        self._stop_requested |= command == "stop"
        self._record("control", command=command, by=asking_pid)
        return {"ok": True, "command": command}

    def _record(self, kind: str, **fields: Any) -> None:
        """Journal one event. On a full disk training goes on, and the gap is told when there is room again."""
        try:
            event = self._journal.append(kind, **fields)
        except OSError as error:
            self._missing_records += 1
            print(f"not journalled ({error.strerror}): {kind} {fields}", file=sys.stderr, flush=True)
            return
        self._folding.add(event)
        if self._journal.offset() - self._snapshot_offset > _SNAPSHOT_BYTES:
            self._keep_snapshot()
        if self._missing_records:
            missing, self._missing_records = self._missing_records, 0
            self._record("note", text=f"{missing} records before this one could not be written: see engine.log")

    def _keep_snapshot(self) -> None:
        self._snapshot_offset = self._journal.offset()
        try:
            save_snapshot(self._run, self._folding.state(), self._folding.recent, self._snapshot_offset)
        except OSError as error:
            print(f"the journal's fold was not kept ({error.strerror})", file=sys.stderr, flush=True)

    def _listen(self) -> ControlServer | None:
        try:
            return ControlServer(self._run)
        except OSError as error:
            text = f"no control socket ({error.strerror}): of the commands only stop works"
            self._record("note", text=text)
            return None


def main(arguments: list[str]) -> int:
    """Start the engine of the run in `arguments` in the background, and say how that went; the exit status."""
    resume = "--resume" in arguments
    (path,) = (argument for argument in arguments if argument != "--resume")
    run = RunDirectory(Path(path).absolute())
    try:
        if not run.spec_path.is_file():
            raise Problem(str(run.path), "is not a run's folder: it has no spec.toml", "Give the path of a run.")
        answer = detach(run.log_path, lambda ready: _engine(run, resume, ready))
    except Problem as problem:
        answer = to_line({"problem": problem.as_dict()})
    except OSError as error:
        answer = to_line({"problem": disk_problem(run.path, error).as_dict()})
    sys.stdout.buffer.write(answer)
    return 0 if b'"ready"' in answer else 2


def _engine(run: RunDirectory, resume: bool, ready: Callable[[bytes], None]) -> None:
    """The life of the detached process. `ready` is called once, with the answer for the starter."""
    try:
        supervisor = Supervisor(run, resume)
    except Problem as problem:
        ready(to_line({"problem": problem.as_dict()}))
        return
    except OSError as error:
        ready(to_line({"problem": disk_problem(run.path, error).as_dict()}))
        return
    ready(to_line({"ready": True, "pid": os.getpid()}))
    try:
        supervisor.serve()
    except Exception as error:
        traceback.print_exc()
        supervisor.give_up(f"a fault in finetui's supervisor: {type(error).__name__}: {printable(error, 200)}")


def _take_run(run: RunDirectory) -> int:
    try:
        return take_lock(run.lock_path)
    except BlockingIOError:
        holder = lock_holder(run.lock_path)
        who = f"process {holder}" if holder and holder > 0 else "another machine or container"
        raise Problem(run.name, f"is already in the hands of {who}", f"Watch it: `finetui watch {run.name}`.") from None


def _end_orphan(run: RunDirectory) -> None:
    """Wait until a worker is gone whose supervisor was killed: two workers must not write one run's checkpoints."""
    worker = recorded_processes(run).get("worker")
    if worker is None or not worker.send(signal.SIGTERM) or worker.wait(_ORPHAN_SECONDS):
        return
    worker.send(signal.SIGKILL)
    if not worker.wait(_ORPHAN_SECONDS / 4):
        fix = "It hangs in the kernel, perhaps in a driver; restart the machine if it stays."
        raise Problem(run.name, f"its last worker, process {worker.pid}, does not end even when killed", fix)


def _newest_checkpoint(run: RunDirectory) -> int | None:
    """The step of the newest checkpoint, which the worker will try first; None when there is none."""
    try:
        names = [entry.name for entry in run.checkpoints.iterdir()]
    except FileNotFoundError:
        return None
    return max((int(match[1]) for name in names if (match := re.fullmatch(r"step-(\d+)", name))), default=None)


def _catch_signals() -> socket.socket:
    """From now on SIGTERM and SIGINT only make the returned socket readable."""
    reader, writer = socket.socketpair()
    reader.setblocking(False)
    writer.setblocking(False)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)
    signal.set_wakeup_fd(writer.detach())
    return reader


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
