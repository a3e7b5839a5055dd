"""The supervisor of one run: a small process that outlives its starter, starts the worker and journals all it says.

    python -m engine.run.supervisor RUN_PATH [options: see engine.run.start]

The command returns once the engine is ready, with {"ready": true, "pid": n} on stdout, or else with
{"problem": {where, what, fix}} and exit status 2.
"""

from __future__ import annotations

import os
import selectors
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from engine.logged_errors import print_error
from engine.run.attempt import Attempt
from engine.run.control import ControlServer
from engine.run.directory import RunDirectory, disk_problem
from engine.run.endings.adjusted import adjusted_spec, with_learning_rate
from engine.run.endings.aftermath import Aftermath, StoppedBy
from engine.run.endings.causes import Ending
from engine.run.endings.errors import ending_of_error, ending_of_start
from engine.run.endings.exhaustion import KillCounter
from engine.run.endings.remedies import BACK_IN_LINE
from engine.run.processes.daemon import detach
from engine.run.processes.identity import ProcessIdentity
from engine.run.processes.recorded import record_processes
from engine.run.processes.taking import ASKED_SIGNAL, catch_signals, end_orphan, start_note, take_run
from engine.run.sealing.level import level_of, with_level
from engine.run.sealing.refusing import ending_of_refusal, refused_at_once
from engine.run.sealing.trial import Prepared, Trial, registered
from engine.run.start import Start
from engine.run.telemetry.events import TESTING_SEAL, RunState
from engine.run.telemetry.reading import open_journal
from engine.run.telemetry.recording import Recording
from engine.run.telemetry.records import to_line
from engine.run.waiting.claims import Claim, drop_claim, left_claim, write_claim
from engine.run.waiting.room import device_name
from engine.run.watching.devices import DeviceFeed
from engine.seal.request import Level
from engine.seal.sealing import SealRefused
from profiles.problem import Problem

if TYPE_CHECKING:
    from engine.run.waiting.queue import PlaceInLine

_NOT_STARTED = Ending("stopped", "stopped", "before the trainer was started")


class Supervisor:
    """One engine's life with a run, from its lock to its end event: the wait for memory, then attempt after attempt,
    each a rung further down the ladder or begun again after a death that another try may not meet, until a worker
    ends for a reason of its own."""

    def __init__(self, run: RunDirectory, start: Start):
        """Take the run, and where it is to wait a place in the line for memory. Raises Problem when the run is not free
        or cannot be sealed as it is to be, OSError for the disk."""
        self._run, self._start = run, start
        self._lock = take_run(run)
        end_orphan(run)
        folding, _ = open_journal(run)
        state = folding.state()
        if state.attempts and not start.resume:
            raise Problem(run.name, "was started before", f"Go on with `finetui resume {run.name}`.")
        self._stop_requested = self._stop_asked = self._killed = self._restart_asked = False
        self._attempt: Attempt | None = None
        self._kills = KillCounter()
        if not start.queue and (left := left_claim(run)) is not None and left.waiting:
            drop_claim(run)  # an earlier engine died with it; now it would hold up those that wait
        self._place = _place_in_line(run, state, start) if start.queue else None
        changed = [fields for fields in _adjusted(run, state, start) if fields is not None]
        self._recording = Recording(run, folding)
        self._aftermath = Aftermath(run, self._recording)
        if (note := start_note()) is not None:
            self._recording.add("note", text=note)
        self._recording.audit.started(start.resume, start.arguments())
        for fields in changed:
            self._recording.add("adjusted", **fields)
        self._control = self._listen()
        self._signals = catch_signals()
        self._devices = DeviceFeed(run.path)
        record_processes(run, {"supervisor": ProcessIdentity.of(os.getpid())})
        if (refusal := refused_at_once(run, self._level)) is not None:
            ending = self._end(refusal)
            raise Problem(run.name, ending.why, ending.remedy)

    def serve(self) -> None:
        """Wait for the memory where that was asked; then start a worker, journal, answer and pass on until the last one
        has ended, and write why."""
        with selectors.DefaultSelector() as selector:
            selector.register(self._signals, selectors.EVENT_READ, self._take_signals)
            if self._control is not None:
                selector.register(self._control, selectors.EVENT_READ, self._serve_control)
            if self._place is not None and not self._wait_in_line(selector, self._place):
                self._leave_the_line(self._place)
                return
            ending = None
            while ending is None:
                try:
                    prepared = self._prepare(selector)
                    if isinstance(prepared, Ending):
                        ending = prepared
                    else:
                        ending = self._follow(selector, self._start_worker(prepared))
                except SealRefused as refused:
                    self._serve_once(selector, seconds=0.0)  # what tells all processes to end may end a launcher first
                    ending = _NOT_STARTED if self._is_to_end else ending_of_refusal(self._run, refused)
                except OSError as error:
                    ending = ending_of_start(error)
        self._end(ending)

    def give_up(self, fault: Exception) -> None:
        """End the run as failed, for a fault of ours; its worker with it."""
        if self._attempt is not None:
            self._attempt.worker.kill()
        self._end(ending_of_error(fault))

    def _wait_in_line(self, selector: selectors.BaseSelector, place: PlaceInLine) -> bool:
        """Whether the memory is this run's now; False when it was stopped while it waited."""
        self._devices.follow(None)
        while not self._is_to_end:
            its_turn, facts = place.look()
            if its_turn:
                return True
            if facts is not None:
                self._recording.add("queued", **facts)
            self._serve_once(selector, seconds=0.25)
        return False

    def _leave_the_line(self, place: PlaceInLine) -> None:
        """End a run that was stopped while it waited; its place is kept where no person wanted that."""
        comes_back = self._stopped_by == "signal"
        place.leave(comes_back=comes_back)
        why = "while it waited in the queue; nothing was started"
        self._end(Ending("stopped", "stopped", why, BACK_IN_LINE if comes_back else ""), claim_stays=comes_back)

    def _prepare(self, selector: selectors.BaseSelector) -> Prepared | Ending:
        """Have the next worker's seal tried, and serve meanwhile; how the run ends where that is what comes of it.
        Raises OSError."""
        if self._level == "off":
            return Prepared("off", untried="it is off")
        self._recording.add("phase", phase="preparing", detail=TESTING_SEAL, done=0, total=0)
        trial = Trial(self._run, self._level)
        try:
            while not (trial.over or self._is_to_end):
                with registered(selector, trial):
                    self._serve_once(selector, seconds=1.0)
            # A stop of the same turn, too: a trainer that is yet to come would not hear of it.
            return _NOT_STARTED if self._is_to_end else trial.result()
        finally:
            trial.close()

    def _start_worker(self, prepared: Prepared) -> Attempt:
        """Begin an attempt. Raises SealRefused, OSError when no process can be started."""
        self._attempt = attempt = Attempt(
            self._run, self._recording, self._kills, self._promise, prepared, anyway=self._start.anyway
        )
        self._devices.follow(attempt.worker.pid)
        return attempt

    def _follow(self, selector: selectors.BaseSelector, attempt: Attempt) -> Ending | None:
        """Serve until the worker has ended; how the run ended, or None when it goes on with another worker."""
        worker = attempt.worker
        selector.register(worker.end_descriptor, selectors.EVENT_READ)
        attempt.seal.register(selector)
        while not self._serve_once(selector, seconds=attempt.listen(selector)):
            attempt.look()
        attempt.seal.unregister()
        if worker.channel_descriptor in selector.get_map():
            selector.unregister(worker.channel_descriptor)
        selector.unregister(worker.end_descriptor)
        status = attempt.clean_up(self._serve_control)
        self._attempt = None  # the worker's number may be another process's from now on
        stopping, asked = self._is_to_end, self._restart_asked
        self._restart_asked = False
        shortage = attempt.want_of_memory(status, killed=self._killed or asked)
        if shortage is not None:
            return self._aftermath.of_shortage(shortage, stopping=stopping)
        verdict = attempt.verdict(status, killed=self._killed, lost_gpus=self._devices.lost)
        return self._aftermath.of_ending(verdict, stopping=stopping, restart_asked=asked)

    def _serve_once(self, selector: selectors.BaseSelector, seconds: float) -> bool:
        """Do what there is to do, waiting up to `seconds` for it; True once the worker has ended."""
        ended = False
        for key, _ in selector.select(timeout=seconds):
            if self._attempt is not None and key.fd == self._attempt.worker.end_descriptor:
                ended = True
            else:
                key.data()
        self._take_readings()
        self._serve_control()  # after a while without news, too: it lets go of those who say nothing
        return ended

    def _end(self, ending: Ending, *, claim_stays: bool = False) -> Ending:
        """Journal the end and let go of the run; the ending with its remedy."""
        ending = self._aftermath.write_end(ending, self._stopped_by)
        if not claim_stays:
            drop_claim(self._run)
        self._devices.close()
        if self._control is not None:
            self._control.close()
        self._recording.close()
        return ending

    @property
    def _is_to_end(self) -> bool:
        return self._stop_requested or self._killed

    @property
    def _level(self) -> Level:
        """Of the seal, as it is to be now."""
        return level_of(self._run, self._recording.state().adjusted)

    @property
    def _stopped_by(self) -> StoppedBy:
        """Who stopped the run, where somebody did."""
        if self._killed:
            return "kill"
        return "request" if self._stop_asked else "signal"

    def _promise(self, plan: dict[str, Any]) -> None:
        """Let those that wait for memory know what this run is going to take."""
        needed, device = plan.get("predicted_peak_bytes"), device_name(plan, self._recording.state().device)
        if isinstance(needed, int) and device is not None:
            with suppress(OSError):
                write_claim(self._run, Claim(device, needed, time.time(), waiting=False))

    def _take_readings(self) -> None:
        for kind, fields in self._devices.take(self._recording.state):
            self._recording.add(kind, **fields)

    def _serve_control(self) -> None:
        if self._control is not None:
            self._control.serve(self._answer)

    def _take_signals(self) -> None:
        self._stop_asked |= ASKED_SIGNAL in self._signals.recv(4096)
        self._request("stop", os.getpid())

    def _answer(self, command: str, asking_pid: int) -> dict[str, Any]:
        if command == "status":
            state = self._recording.state()
            return {
                "pid": os.getpid(),
                "worker_pid": self._attempt.worker.pid if self._attempt is not None else None,
                "phase": state.phase,
                "step": state.step,
                "planned_steps": state.planned_steps,
                "stop_requested": self._stop_requested,
            }
        self._stop_asked |= command in ("stop", "kill")
        return self._request(command, asking_pid)

    def _request(self, command: str, asking_pid: int) -> dict[str, Any]:
        """Do what was asked, or pass it on, and journal that. A repeated stop changes nothing, but for a run that is
        paused before its last save: it then ends without."""
        if command == "stop" and self._stop_requested and self._recording.state().phase != "paused":
            return {"ok": True, "command": command, "already": True}
        worker = self._attempt.worker if self._attempt is not None else None
        if command == "kill":
            self._killed = True
            if worker is not None:
                worker.kill()
        elif worker is None:
            if command != "stop":
                if self._recording.state().phase == "queued":
                    return {"error": "the run waits in the queue: it has no trainer yet"}
                return {"error": "it has no trainer yet: its seal is being tested", "fix": "Ask again in a moment."}
        elif command == "restart":
            if self._stop_requested:
                return {"error": "the run was asked to stop; kill it if it does not come to that"}
            self._restart_asked = True
            worker.kill()
        elif not worker.send(command):
            if command != "stop":
                return {"error": "the trainer takes no commands now: it is ending, or too busy to read the last ones"}
            worker.terminate()  # as a signal it cannot be missed; one that has ended already is not followed by another
        self._stop_requested |= command == "stop"
        self._recording.add("control", command=command, by=asking_pid)
        return {"ok": True, "command": command}

    def _listen(self) -> ControlServer | None:
        try:
            return ControlServer(self._run)
        except OSError as error:
            text = f"no control socket ({error.strerror}): of the commands only stop works"
            self._recording.add("note", text=text)
            return None


def _adjusted(run: RunDirectory, state: RunState, start: Start) -> Iterator[dict[str, Any] | None]:
    """The fields of the `adjusted` events for what a person says with this start. Raises Problem."""
    if start.learning_rate is not None:
        yield with_learning_rate(run.spec(), state.adjusted, start.learning_rate)
    if start.seal is not None:
        yield with_level(run, state.adjusted, start.seal)


def _place_in_line(run: RunDirectory, state: RunState, start: Start) -> PlaceInLine:
    """Raises Problem, OSError."""
    from engine.run.waiting.queue import PlaceInLine  # here, since a run that does not wait is started sooner without

    return PlaceInLine(run, adjusted_spec(run.spec(), state.adjusted), start)


def main(arguments: list[str]) -> int:
    """Start the engine of the run in `arguments` in the background, and say how that went; the exit status."""
    path, start = Start.parse(arguments)
    run = RunDirectory(path)
    try:
        if not run.spec_path.is_file():
            raise Problem(str(run.path), "is not a run's folder: it has no spec.toml", "Give the path of a run.")
        answer = detach(run.log_path, lambda ready: _engine(run, start, ready))
    except Problem as problem:
        answer = to_line({"problem": problem.as_dict()})
    except OSError as error:
        answer = to_line({"problem": disk_problem(run.path, error).as_dict()})
    sys.stdout.buffer.write(answer)
    return 0 if b'"ready"' in answer else 2


def _engine(run: RunDirectory, start: Start, ready: Callable[[bytes], None]) -> None:
    """The life of the detached process. `ready` is called once, with the answer for the starter."""
    try:
        supervisor = Supervisor(run, start)
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
        print_error(error)
        supervisor.give_up(error)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
