"""One worker's try at a run, as its supervisor sees it: started, listened to, and judged by how it ended."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from engine.run.checkpoints.manifest import newest_step
from engine.run.directory import RunDirectory
from engine.run.endings.causes import Ending
from engine.run.endings.deaths import after_its_word, ending_of_death, told_ending
from engine.run.endings.descent import Shortage
from engine.run.endings.exhaustion import KillCounter, last_words_of_shortage, where_by_phase
from engine.run.endings.kernel_log import KernelLog, Xid, with_xids
from engine.run.processes.identity import ProcessIdentity
from engine.run.processes.recorded import record_processes
from engine.run.processes.worker_process import WorkerProcess
from engine.run.sealing.links import link_shard
from engine.run.sealing.refusing import unsealed
from engine.run.sealing.trial import Prepared
from engine.run.sealing.watch import SealWatch
from engine.run.telemetry.journal import JOURNAL_FIELDS
from engine.run.telemetry.log import ATTEMPT_MARK, lines_of_attempt
from engine.run.telemetry.recording import Recording, say

_RESERVED_KINDS = frozenset(
    {
        *("adjusted", "attempt", "control", "device", "end", "ladder", "queued", "restart", "stall", "throttle"),
        *("seal", "seal_check", "way_out"),
    }
)


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
        state = recording.state()
        self._anyway, self._on_gpu, self._misses_gpu = anyway, state.plan.get("device") == "cuda", False
        number = state.attempts + 1
        say(f"{ATTEMPT_MARK}{number}, {time.strftime('%Y-%m-%d %H:%M:%S %z')} ---")
        kills.rose()  # what the kernel ended before is none of this attempt's
        self._kernel_log = KernelLog()
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
            resumed_from=newest_step(run.checkpoints),
            worker_pid=worker.pid,
            adjusted=dict(state.adjusted),
        )
        self.seal = SealWatch(recording, worker, prepared)
        self.seal.begin(number)
        self._require_seal()

    def take_messages(self) -> bool:
        """Journal what the worker said since the last call, or of very much the first part; whether it was anything."""
        anything = False
        for message in self.worker.messages():
            anything = True
            if self._misses_gpu:
                continue  # what it learnt before it was killed is not the run's
            if isinstance(message, bytes):
                # Of what it was, not a word: half an event may well hold a row of somebody's data.
                self._note(f"the trainer sent what is no event ({len(message):,} bytes)")
                continue
            kind = message["kind"]
            fields = {name: value for name, value in message.items() if name not in JOURNAL_FIELDS}
            if kind == "lineage":
                self._recording.audit.prepared(fields.get("data"))
            elif kind == "keep_shard":
                self._keep_shard(fields.get("shard"))
            elif kind == "outcome":
                self._outcome = fields
                self.seal.last_word()
            elif kind == "out_of_memory":
                self._shortage = Shortage.from_message(fields)
            elif kind in _RESERVED_KINDS:
                self._note(f"the trainer sent a {kind} event, which is not its to write")
            elif kind == "step":
                self._recording.add_step(fields)
            else:
                self._problem = fields if kind == "problem" else self._problem
                if kind == "plan" and self._lost_its_gpu(fields):
                    self._misses_gpu = True
                    self.worker.kill()
                    continue
                self._recording.add(kind, **fields)
                if kind == "plan":
                    self._on_plan(fields)
                elif kind == "checkpoint":
                    self.seal.check(fields.get("step"))
                    self._require_seal()
        return anything

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

    def clean_up(self) -> int:
        """Take in the last words of a worker that has ended, and end what it left running; its exit status."""
        self.worker.kill()  # what it left, so that nobody says anything more
        while self.take_messages():
            pass
        self.seal.end(self._recording.state().step)
        self._xids = self._kernel_log.xids()
        self._kernel_log.close()
        return self.worker.wait()

    def want_of_memory(self, status: int, *, killed: bool) -> Shortage | None:
        """Where and how memory ran out, if that is why the worker ended: as it said itself, or the kernel or its log
        do where it died without a word. `killed`: on a person's request."""
        if self._seal_broke():
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
        if self._misses_gpu:
            return Ending("failed", "device_lost", "the GPU that the run learnt on before is not there any more")
        if self._outcome is not None:
            if status and self._outcome.get("outcome") != "failed":
                self._note(after_its_word(status, self._log()))
            return told_ending(self._outcome)
        if self._problem is not None:
            what = f"{self._problem.get('where')}: {self._problem.get('what')}"
            return Ending("failed", "input", what, str(self._problem.get("fix") or ""))
        if killed:
            return Ending("stopped", "stopped", "without saving; what was learnt after the last checkpoint is lost")
        return ending_of_death(status, self._log(), kernel_counts=self._kills.counts)

    def _note(self, text: str) -> None:
        self._recording.add("note", text=text)

    def _log(self) -> list[str]:
        return lines_of_attempt(self._run.log_path)
