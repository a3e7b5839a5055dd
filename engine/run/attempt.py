"""One worker's try at a run, as its supervisor sees it: started, listened to, and judged by how it ended."""

from __future__ import annotations

import os
import selectors
import signal
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from engine.run.checkpoints.manifest import newest_step
from engine.run.directory import RunDirectory
from engine.run.endings.causes import Ending
from engine.run.endings.deaths import MOST_CHARACTERS, after_its_word, ending_of_death, told_ending
from engine.run.endings.descent import Shortage
from engine.run.endings.exhaustion import KillCounter, last_words_of_shortage, where_by_phase
from engine.run.endings.kernel_log import KernelLog, Xid, with_xids
from engine.run.endings.remedies import flooded_remedy
from engine.run.processes.allowance import Allowance
from engine.run.processes.identity import ProcessIdentity
from engine.run.processes.recorded import record_processes
from engine.run.processes.worker_process import Message, WorkerProcess
from engine.run.sealing.links import link_shard
from engine.run.sealing.refusing import unsealed
from engine.run.sealing.trial import Prepared
from engine.run.sealing.watch import SealWatch
from engine.run.telemetry.journal import JOURNAL_FIELDS
from engine.run.telemetry.log import ATTEMPT_MARK, cut_middle, lines_of_attempt
from engine.run.telemetry.recording import Recording, say

_RESERVED_KINDS = frozenset(
    {
        *("adjusted", "attempt", "control", "device", "end", "ladder", "queued", "restart", "stall", "throttle"),
        *("seal", "seal_check", "way_out"),
    }
)

_ONCE = frozenset({"lineage", "continued"})
"""Kinds of which a worker has one to say: it goes into files that are kept for good, each time whole."""
# After so long the next turn is that of those who ask for something. One message may take longer.
_TURN_SECONDS = 0.1
_LOOK_SECONDS = 1.0
# After the end of its worker a run waits no longer for its words to be written down, of which a training that is in
# order has some dozen left, however slow the disk is.
_MOST_LAST_WORDS, _LAST_WORDS_SECONDS = 200, 2.0
# Five times what a socket holds. What left the worker's group and has the channel may go on for ever.
_MOST_LAST_BYTES = 1 << 20


class Attempt:
    """A worker that was started with what the ladder changed so far."""

    def __init__(
        self,
        run: RunDirectory,
        recording: Recording,
        kills: KillCounter,
        on_plan: Callable[[dict[str, Any]], None],
        prepared: Prepared,
        *,
        anyway: bool,
    ):
        """Start the worker, sealed as `prepared`, and journal that; `on_plan` is called with what it says it will do;
        `anyway` has it go on though things changed since the checkpoint. Raises SealRefused, OSError."""
        self._run, self._recording, self._kills, self._on_plan = run, recording, kills, on_plan
        self._outcome: dict[str, Any] | None = None
        self._problem: dict[str, Any] | None = None
        self._shortage: Shortage | None = None
        self._xids: list[Xid] = []
        self._allowance, self._excess = Allowance(), ""
        self._said: set[str] = set()
        self._ended_at: float | None = None
        self._last_words, self._untold = 0, 0
        state = recording.state()
        self._anyway, self._on_gpu, self._misses_gpu = anyway, state.plan.get("device") == "cuda", False
        number = state.attempts + 1
        say(f"{ATTEMPT_MARK}{number}, {time.strftime('%Y-%m-%d %H:%M:%S %z')} ---")
        kills.rose()  # what the kernel ended before is none of this attempt's
        self._kernel_log = KernelLog()
        resumed_from = newest_step(run.checkpoints)  # before the worker may have saved one of its own
        self.worker = worker = WorkerProcess(run, state.adjusted, prepared, anyway=anyway)
        processes = {"supervisor": ProcessIdentity.of(os.getpid()), "worker": worker.identity}
        try:
            recording.write_in_reserve(lambda: record_processes(run, processes))
        except OSError:
            worker.kill()  # it runs, and nothing could be written about it
            raise
        recording.add(
            "attempt",
            number=number,
            resumed_from=resumed_from,
            worker_pid=worker.pid,
            adjusted=dict(state.adjusted),
        )
        self.seal = SealWatch(recording, worker, prepared)
        self.seal.begin(number)
        self._require_seal()

    def listen(self, selector: selectors.BaseSelector) -> float:
        """Have the supervisor's loop hear the worker, or not for now where it said more than it may; how many seconds
        that loop may wait for something to do."""
        wait, descriptor = self._allowance.wait_seconds(), self.worker.channel_descriptor
        listens = wait <= 0 and not self.worker.closed
        if listens != (descriptor in selector.get_map()):
            if listens:
                selector.register(descriptor, selectors.EVENT_READ, self.take_messages)
            else:
                selector.unregister(descriptor)
        if wait > 0:
            self.worker.watch.was_not_heard()
            return min(wait, _LOOK_SECONDS)
        return 0.0 if self.worker.has_more else _LOOK_SECONDS

    def look(self) -> None:
        """Do what is due, whether the worker says anything or not; to be called about once a second."""
        if self.worker.has_more and self._allowance.wait_seconds() <= 0:
            self.take_messages()
        for kind, fields in self.worker.watch.look():
            self._recording.add(kind, **fields)
        self.seal.look()
        self._recording.audit.look()
        self._require_seal()
        cut_middle(sys.stderr.fileno())

    def take_messages(self) -> bool:
        """Journal what the worker said since the last call, or of very much the first part; whether it was anything."""
        until, anything = time.monotonic() + _TURN_SECONDS, False
        for message in self.worker.messages():
            anything = True
            if self._misses_gpu or self._excess:
                continue  # what it said before it was killed is not the run's, or is too much
            self._take(message)
            waits = self._ended_at is None and self._allowance.wait_seconds() > 0
            if waits or time.monotonic() > until:
                break  # others want to be heard
        return anything

    def _take(self, message: Message) -> None:
        record = message.record
        kind = record["kind"] if record is not None else ""
        if self._ended_at is not None:
            self._last_words += 1
            late = time.monotonic() > self._ended_at + _LAST_WORDS_SECONDS
            if late and self._last_words > _MOST_LAST_WORDS and not self._decides(kind):
                self._untold += 1
                return
        self._allowance.take(kind, message.size_bytes)
        if excess := self._allowance.excess:
            self._excess = excess
            self.worker.kill()
        elif record is None:
            # Of what it was, not a word: half an event may well hold a row of somebody's data.
            self._note(f"the trainer sent what is no event ({message.size_bytes:,} bytes)")
        elif kind in _RESERVED_KINDS:
            self._note(f"the trainer sent a {kind} event, which is not its to write")
        elif kind in _ONCE and kind in self._said:
            self._note(f"the trainer sent a second {kind} event, which was not kept")
        else:
            self._said |= {kind} & _ONCE
            self._take_event(kind, {name: value for name, value in record.items() if name not in JOURNAL_FIELDS})

    def _decides(self, kind: str) -> bool:
        """Whether how the run ended, or where it was, is told from it."""
        return kind in ("outcome", "out_of_memory", "step", "phase") or (kind == "problem" and self._problem is None)

    def _take_event(self, kind: str, fields: dict[str, Any]) -> None:
        if kind == "lineage":
            self._recording.audit.prepared(fields.get("data"))
        elif kind == "keep_shard":
            self._keep_shard(fields.get("shard"))
        elif kind == "outcome":
            self._outcome = fields
            self.seal.last_word()
        elif kind == "out_of_memory":
            self._shortage = Shortage.from_message(fields)
        elif kind == "step":
            self._recording.add_step(fields)
        else:
            self._problem = fields if kind == "problem" else self._problem
            if kind == "plan" and self._lost_its_gpu(fields):
                self._misses_gpu = True
                self.worker.kill()
                return
            self._recording.add(kind, **fields)
            if kind == "plan":
                self._on_plan(fields)
            elif kind == "checkpoint":
                self.seal.check(step if type(step := fields.get("step")) is int else None)
                self._require_seal()

    def _keep_shard(self, name: Any) -> None:
        """Give the run its own name for a shard of the cache, which the worker cannot do within its seal. Of what does
        not come about the worker makes a copy."""
        try:
            link_shard(self._run, name)
        except ValueError:
            self._note("the trainer asked for a link to what is no shard")
        except OSError as error:
            say(f"a shard was not linked: {error.strerror}")

    def _require_seal(self) -> None:
        """End a worker whose seal is required and does not hold."""
        if self._seal_broke():
            self.worker.kill()

    def _lost_its_gpu(self, plan: dict[str, Any]) -> bool:
        """Whether the GPU is gone that the run learnt on before: on the CPU it would go on for weeks, unasked."""
        return self._on_gpu and plan.get("device") == "cpu" and not self._anyway

    def clean_up(self, meanwhile: Callable[[], None]) -> int:
        """Take in the last words of a worker that has ended, and end what it left running; its exit status. `meanwhile`
        is called a few times a second."""
        self.worker.kill()  # what it left, so that nobody says anything more
        self._ended_at = time.monotonic()
        most_bytes = self.worker.received_bytes + _MOST_LAST_BYTES
        while (self.worker.received_bytes < most_bytes or self.worker.has_more) and self.take_messages():
            meanwhile()
        if self._untold:
            self._note(f"{self._untold:,} of the trainer's last messages were not written down: there were too many")
        self._recording.audit.look(everything=True)
        self.seal.end(self._recording.state().step)
        self._xids = self._kernel_log.xids()
        self._kernel_log.close()
        return self.worker.wait()

    def want_of_memory(self, status: int, *, killed: bool) -> Shortage | None:
        """Where and how memory ran out, if that is why the worker ended: as it said itself, or the kernel or its log
        do where it died without a word. `killed`: on a person's request."""
        if self._seal_broke() or self._excess:
            return None
        if self._shortage is not None:
            return self._shortage
        if status == 0 or self._outcome or self._problem or self._misses_gpu or killed:
            return None
        state = self._recording.state()
        where = where_by_phase(state.phase, state.phase_detail)
        if status == -signal.SIGKILL:
            return Shortage(where, "the kernel ended the trainer") if self._kills.rose() else None
        said = last_words_of_shortage(self._log())
        return Shortage(where, said) if said is not None else None

    def verdict(self, status: int, *, killed: bool, lost_gpus: Sequence[str] = ()) -> Ending:
        """How the run ended, after its worker ended with `status` for another reason; its remedy is empty where the
        cause's usual one will do. `lost_gpus` are those that the driver does not reach any more."""
        ending = self._cause(status, killed)
        ending = with_xids(ending, self._xids, self.worker.pid)
        if lost_gpus and ending.cause in ("driver_fault", "worker_crashed"):
            why = f"{ending.why}; the driver does not reach {', '.join(lost_gpus)} any more"
            return replace(ending, cause="device_lost", why=why)
        return ending

    def _seal_broke(self) -> bool:
        return bool(self.seal.fault) and self.worker.seal.level == "required"

    def _cause(self, status: int, killed: bool) -> Ending:
        if self._seal_broke():
            return unsealed(self._run, f"the seal is required, and did not hold: {self.seal.fault}")
        if self._excess:
            why = f"the trainer {self._excess}; it was ended"
            return Ending("failed", "fault", why, flooded_remedy(self._run))
        if self._misses_gpu:
            return Ending("failed", "device_lost", "the GPU that the run learnt on before is not there any more")
        if self._outcome is not None:
            if status and self._outcome.get("outcome") != "failed":
                self._note(after_its_word(status, self._log()))
            return told_ending(self._outcome)
        if self._problem is not None:
            what = f"{self._problem.get('where')}: {self._problem.get('what')}"
            fix = str(self._problem.get("fix") or "")
            return Ending("failed", "input", what[:MOST_CHARACTERS], fix[:MOST_CHARACTERS])
        if killed:
            return Ending("stopped", "stopped", "without saving; what was learnt after the last checkpoint is lost")
        return ending_of_death(status, self._log(), kernel_counts=self._kills.counts)

    def _note(self, text: str) -> None:
        self._recording.add("note", text=text)

    def _log(self) -> list[str]:
        return lines_of_attempt(self._run.log_path)
