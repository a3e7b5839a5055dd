"""The supervisor of one run: a small process that outlives its starter, starts the worker and journals all it says.

    python -m engine.run.supervisor RUN_PATH [--resume] [--queue]

The command returns once the engine is ready, with {"ready": true, "pid": n} on stdout, or else with
{"problem": {where, what, fix}} and exit status 2.
"""

from __future__ import annotations

import os
import selectors
import signal
import sys
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from engine.run.ballast import Ballast
from engine.run.claims import Claim, drop_claim, write_claim
from engine.run.control import ControlServer
from engine.run.daemon import detach
from engine.run.descent import Shortage, go_down
from engine.run.devices import DeviceFeed
from engine.run.directory import RunDirectory, disk_problem
from engine.run.events import Event
from engine.run.exhaustion import KillCounter, last_words_of_shortage, where_by_phase
from engine.run.folding import open_journal
from engine.run.identity import ProcessIdentity
from engine.run.journal import JournalWriter
from engine.run.log import ATTEMPT_MARK, last_lines
from engine.run.processes import record_processes
from engine.run.queue import PlaceInLine
from engine.run.records import to_line
from engine.run.room import device_name
from engine.run.snapshot import save_snapshot
from engine.run.taking import catch_signals, end_orphan, newest_checkpoint_step, take_run
from engine.run.worker_process import WorkerProcess, exit_sentence
from profiles.problem import Problem, printable

# From this much on the journal's fold is kept, so that opening the run stays a matter of milliseconds.
_SNAPSHOT_BYTES = 1 << 23
_RESERVED_KINDS = frozenset({"attempt", "control", "device", "end", "ladder", "queued"})
_RESERVED_FIELDS = frozenset({"v", "seq", "at", "kind"})


class Supervisor:
    """One engine's life with a run, from its lock to its end event: the wait for memory, then attempt after attempt,
    each a rung further down the ladder, until a worker ends for another reason than want of memory."""

    def __init__(self, run: RunDirectory, resume: bool, queue: bool):
        """Take the run and start its worker, or with `queue` a place in the line for memory. Raises Problem when the
        run is not free or cannot be started, OSError for the disk."""
        self._run = run
        self._lock = take_run(run)
        end_orphan(run)
        self._folding, _ = open_journal(run)
        if self._folding.state().attempts and not resume:
            raise Problem(run.name, "was started before", f"Go on with `finetui resume {run.name}`.")
        self._stop_requested = self._killed = False
        self._missing_records = 0
        self._snapshot_offset = 0
        self._log_start = 0
        self._worker: WorkerProcess | None = None
        self._outcome: dict[str, Any] | None = None
        self._problem: dict[str, Any] | None = None
        self._shortage: Shortage | None = None
        self._kills = KillCounter()
        self._place = PlaceInLine(run, run.spec()) if queue else None
        self._journal = JournalWriter(run.events_path)
        self._ballast = Ballast(run.ballast_path)
        self._control = self._listen()
        self._signals = catch_signals()
        self._devices = DeviceFeed(run.path)
        record_processes(run, {"supervisor": ProcessIdentity.of(os.getpid())})
        if self._place is None:
            try:
                self._start_worker()
            except OSError as error:
                why = self._not_started(error)
                raise Problem(run.name, why, "Correct that, then try again.") from None

    def serve(self) -> None:
        """Wait for the memory where that was asked; then journal, answer and pass on until the last worker has ended,
        and write why."""
        with selectors.DefaultSelector() as selector:
            selector.register(self._signals, selectors.EVENT_READ, self._take_signals)
            selector.register(self._devices, selectors.EVENT_READ, self._take_readings)
            if self._control is not None:
                selector.register(self._control, selectors.EVENT_READ, self._serve_control)
            if self._place is not None and not self._wait_in_line(selector, self._place):
                self._end("stopped", "stopped while it waited for memory; nothing was started")
                return
            ending = self._follow_worker(selector) if self._worker is not None else None
            while ending is None:
                try:
                    self._start_worker()
                except OSError as error:
                    self._not_started(error)
                    return
                ending = self._follow_worker(selector)
        self._end(*ending)

    def give_up(self, why: str) -> None:
        """End the run as failed, for a fault of ours; its worker with it."""
        if self._worker is not None:
            self._worker.kill()
        self._end("failed", why)

    def _wait_in_line(self, selector: selectors.BaseSelector, place: PlaceInLine) -> bool:
        """Whether the memory is this run's now; False when it was stopped while it waited."""
        self._devices.follow(None)
        while not (self._stop_requested or self._killed):
            its_turn, facts = place.look()
            if its_turn:
                return True
            if facts is not None:
                self._record("queued", **facts)
            self._serve_once(selector, seconds=0.25)
        return False

    def _start_worker(self) -> None:
        """Begin an attempt. Raises OSError when no process can be started."""
        state = self._folding.state()
        number = state.attempts + 1
        _say(f"{ATTEMPT_MARK}{number}, {time.strftime('%Y-%m-%d %H:%M:%S %z')} ---")
        self._log_start = self._run.log_path.stat().st_size
        self._outcome = self._problem = self._shortage = None
        self._kills.rose()  # what the kernel ended before is none of this attempt's
        self._worker = worker = WorkerProcess(self._run, state.adjusted)
        processes = {"supervisor": ProcessIdentity.of(os.getpid()), "worker": worker.identity}
        record_processes(self._run, processes)
        self._record(
            "attempt",
            number=number,
            resumed_from=newest_checkpoint_step(self._run),
            worker_pid=worker.pid,
            adjusted=dict(state.adjusted),
        )
        self._devices.follow(worker.pid)

    def _not_started(self, error: OSError) -> str:
        """End the run as failed; the sentence that says why."""
        if self._worker is not None:
            self._worker.kill()  # it runs, and nothing could be written about it
        why = f"the worker could not be started: {error.strerror}"
        self._end("failed", why)
        return why

    def _follow_worker(self, selector: selectors.BaseSelector) -> tuple[str, str] | None:
        """Serve until the worker has ended; how the run ended and why, or None when it goes on a rung further down."""
        worker = self._worker
        assert worker is not None
        selector.register(worker.end_descriptor, selectors.EVENT_READ)
        selector.register(worker.channel_descriptor, selectors.EVENT_READ, self._take_messages)
        while not self._serve_once(selector, seconds=1.0):
            if worker.closed and worker.channel_descriptor in selector.get_map():
                selector.unregister(worker.channel_descriptor)
        if worker.channel_descriptor in selector.get_map():
            selector.unregister(worker.channel_descriptor)
        selector.unregister(worker.end_descriptor)
        self._take_messages()
        status = worker.wait()
        self._worker = None  # its number may be another process's from now on
        shortage = self._shortage or self._unsaid_shortage(status)
        return self._verdict(status) if shortage is None else self._go_down(shortage)

    def _serve_once(self, selector: selectors.BaseSelector, seconds: float) -> bool:
        """Do what there is to do, waiting up to `seconds` for it; True once the worker has ended."""
        ended = False
        for key, _ in selector.select(timeout=seconds):
            if self._worker is not None and key.fd == self._worker.end_descriptor:
                ended = True
            else:
                key.data()
        self._serve_control()  # after a while without news, too: it lets go of those who say nothing
        return ended

    def _unsaid_shortage(self, status: int) -> Shortage | None:
        """Want of memory that a worker died of without a word of its own, as the kernel or its log tells."""
        if status == 0 or self._outcome or self._problem or self._killed:
            return None
        state = self._folding.state()
        where = where_by_phase(state.phase, state.phase_detail)
        if status == -signal.SIGKILL:
            return Shortage(where, "the kernel ended the worker") if self._kills.rose() else None
        said = last_words_of_shortage(self._log())
        return Shortage(where, said) if said is not None else None

    def _go_down(self, shortage: Shortage) -> tuple[str, str] | None:
        """Journal the next rung, which the next attempt takes; or the run's end when there is none, or none wanted."""
        state = self._folding.state()
        learnt_to = newest_checkpoint_step(self._run)
        stopping = self._stop_requested or self._killed
        try:
            self._record("ladder", **go_down(self._run.spec(), state, shortage, learnt_to))
        except Problem as problem:
            if not stopping:
                self._record("problem", **problem.as_dict())
                return "failed", f"{problem.where}: {problem.what}"
        if stopping:
            rest = f"; the checkpoint of step {learnt_to} remains" if learnt_to else ""
            return "stopped", f"stopped on request, but memory ran out before the last steps were saved{rest}"
        return None

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
        drop_claim(self._run)
        self._ballast.give_up()
        if self._control is not None:
            self._control.close()
            self._run.socket_path.unlink(missing_ok=True)
        self._journal.close()

    def _log(self) -> list[str]:
        return last_lines(self._run.log_path, count=500, start=self._log_start)

    def _take_messages(self) -> None:
        assert self._worker is not None
        for message in self._worker.messages():
            if isinstance(message, bytes):
                self._record("note", text=f"the worker sent what is no event: {printable(repr(message), 200)}")
                continue
            kind = message["kind"]
            fields = {name: value for name, value in message.items() if name not in _RESERVED_FIELDS}
            if kind == "outcome":
                self._outcome = fields
            elif kind == "out_of_memory":
                self._shortage = Shortage.from_message(fields)
            elif kind in _RESERVED_KINDS:
                self._record("note", text=f"the worker sent a {kind} event, which is not its to write")
            elif kind == "step":
                self._record(kind, **{**fields, **self._totals_with(fields)})
            else:
                if kind == "problem":
                    self._problem = fields
                self._record(kind, **fields)
                if kind == "plan":
                    self._promise(fields)

    def _promise(self, plan: dict[str, Any]) -> None:
        """Let those that wait for memory know what this run, which did not wait, is going to take."""
        needed, device = plan.get("predicted_peak_bytes"), device_name(plan, self._folding.state().device)
        if self._place is None and isinstance(needed, int) and device is not None:
            with suppress(OSError):
                write_claim(self._run, Claim(device, needed, time.time(), waiting=False))

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
                "worker_pid": self._worker.pid if self._worker is not None else None,
                "phase": state.phase,
                "step": state.step,
                "planned_steps": state.planned_steps,
                "stop_requested": self._stop_requested,
            }
        return self._request(command, asking_pid)

    def _request(self, command: str, asking_pid: int) -> dict[str, Any]:
        """Do what was asked, or pass it on, and journal that. A repeated stop changes nothing, but for a run that is
        paused before its last save: it then ends without."""
        if command == "stop" and self._stop_requested and self._folding.state().phase != "paused":
            return {"ok": True, "command": command, "already": True}
        if command == "kill":
            self._killed = True
            if self._worker is not None:
                self._worker.kill()
        elif self._worker is None:
            if command != "stop":
                return {"error": "the run waits for memory: it has no worker yet"}
        elif not self._worker.send(command):
            return {"error": "the worker takes no commands now: it is ending, or too busy to read the last ones"}
        self._stop_requested |= command == "stop"
        self._record("control", command=command, by=asking_pid)
        return {"ok": True, "command": command}

    def _record(self, kind: str, **fields: Any) -> None:
        """Journal one event. On a full disk training goes on, and the gap is told when there is room again."""
        try:
            event = self._append(kind, fields)
        except OSError as error:
            self._missing_records += 1
            _say(f"not journalled ({error.strerror}): {kind} {fields}")
            return
        self._folding.add(event)
        if self._journal.offset() - self._snapshot_offset > _SNAPSHOT_BYTES:
            self._keep_snapshot()
        if self._missing_records:
            missing, self._missing_records = self._missing_records, 0
            self._record("note", text=f"{missing} records before this one could not be written: see engine.log")

    def _append(self, kind: str, fields: dict[str, Any]) -> Event:
        """Write one event; what a person must know also where the disk is full. Raises OSError."""
        try:
            return self._journal.append(kind, **fields)
        except OSError:
            # Steps and gauges can wait until there is room; that the run waits for room cannot.
            if kind in ("step", "device") or not self._ballast.give_up():
                raise
            return self._journal.append(kind, **fields)

    def _keep_snapshot(self) -> None:
        self._snapshot_offset = self._journal.offset()
        try:
            save_snapshot(self._run, self._folding.state(), self._folding.recent, self._snapshot_offset)
        except OSError as error:
            _say(f"the journal's fold was not kept ({error.strerror})")

    def _listen(self) -> ControlServer | None:
        try:
            return ControlServer(self._run)
        except OSError as error:
            text = f"no control socket ({error.strerror}): of the commands only stop works"
            self._record("note", text=text)
            return None


def _say(text: str) -> None:
    """Into engine.log, which a full disk does not take either."""
    with suppress(OSError):
        print(text, file=sys.stderr, flush=True)


def main(arguments: list[str]) -> int:
    """Start the engine of the run in `arguments` in the background, and say how that went; the exit status."""
    resume, queue = "--resume" in arguments, "--queue" in arguments
    (path,) = (argument for argument in arguments if not argument.startswith("--"))
    run = RunDirectory(Path(path).absolute())
    try:
        if not run.spec_path.is_file():
            raise Problem(str(run.path), "is not a run's folder: it has no spec.toml", "Give the path of a run.")
        answer = detach(run.log_path, lambda ready: _engine(run, resume, queue, ready))
    except Problem as problem:
        answer = to_line({"problem": problem.as_dict()})
    except OSError as error:
        answer = to_line({"problem": disk_problem(run.path, error).as_dict()})
    sys.stdout.buffer.write(answer)
    return 0 if b'"ready"' in answer else 2


def _engine(run: RunDirectory, resume: bool, queue: bool, ready: Callable[[bytes], None]) -> None:
    """The life of the detached process. `ready` is called once, with the answer for the starter."""
    try:
        supervisor = Supervisor(run, resume, queue)
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


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
