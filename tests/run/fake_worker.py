"""A worker without torch: it does one action after another of a script, over the real channel.

    python fake_worker.py SCRIPT RUN_PATH

SCRIPT is a JSON list of [action, argument...]; see the functions below.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from engine.run.endings.adjusted import adjusted_from_environment
from engine.run.processes.channel import Channel
from engine.run.processes.leash import Leash
from engine.run.watching.stacks import register_stacks


class FakeWorker:
    def __init__(self, run_path: Path):
        self.run_path = run_path
        self.channel = Channel.from_environment()
        self.channel.install_sigterm()
        register_stacks()
        Leash.from_environment().let_save()
        self.adjusted = adjusted_from_environment()
        self.step = 0

    def send(self, kind: str, fields: dict[str, Any]) -> None:
        self.channel.send(kind, **fields)

    def train(self, steps: int, seconds: float, tell_end: bool = True) -> None:
        """Take steps, from the newest checkpoint on; save and end when told to stop."""
        for saved in (self.run_path / "checkpoints").glob("step-*"):
            self.step = max(self.step, int(saved.name.removeprefix("step-")))
        self.channel.send("plan", planned_steps=steps)
        while self.step < steps:
            for command in self.channel.commands():
                self.channel.send("note", text=f"got {command}")
                if command == "stop":
                    self.save()
                    self.channel.send("outcome", outcome="stopped", why=f"after step {self.step}", step=self.step)
                    sys.exit(0)
                if command == "save":
                    self.save()
            self._take_step(steps)
            time.sleep(seconds)
        if tell_end:
            self.channel.send("outcome", outcome="finished", why="all steps are done", step=self.step)

    def take(self, steps: int, seconds: float) -> None:
        """Take as many steps, and hear nothing."""
        for _ in range(steps):
            self._take_step(1000)
            time.sleep(seconds)

    def _take_step(self, steps: int) -> None:
        self.step += 1
        self.channel.send(
            "step",
            step=self.step,
            epoch=self.step / steps,
            loss=1 / self.step,
            learning_rate=1e-3,
            gradient_norm=0.5,
            target_tokens=10,
            tokens=20,
            seconds=0.01,
            memory_bytes=1 << 20,
        )

    def idle_until(self, fifo: str) -> None:
        """Say nothing until somebody writes to `fifo`."""
        Path(fifo).read_bytes()

    def spin_until(self, path: str) -> None:
        """Be lost in native code, which lets no other thread of Python run; not so once the file `path` is there."""
        if not Path(path).exists():
            print(3**10**9)

    def suspend(self) -> None:
        """As if somebody had pressed Ctrl+Z."""
        os.kill(os.getpid(), signal.SIGSTOP)

    def block(self) -> None:
        """Wait in the kernel, where no signal but a kill is heard: so does who shares its memory with a new process."""
        ctypes.CDLL(None).vfork()
        self.channel.send("note", text="blocked")  # by the new process: the silence begins once this one waits
        time.sleep(600)

    def save(self) -> None:
        # It is there already where a stop comes before the first step of a run that goes on.
        (self.run_path / "checkpoints" / f"step-{self.step:06}").mkdir(parents=True, exist_ok=True)
        self.channel.send("checkpoint", step=self.step, bytes=1, seconds=0.0, best=False, held_out_loss=None)

    def need(self, where: str, field: str, enough: object) -> None:
        """Run out of memory at `where`, as the real worker tells it, until the ladder has made `field` that small."""
        if self.adjusted.get(field) != enough:
            self.channel.send("out_of_memory", where=where, what="CUDA out of memory. Tried to allocate", device="cuda")
            sys.exit(3)

    def need_unheard(self, where: str, until: str) -> None:
        """Run out of memory and take in no more commands, but end only once the file `until` is there."""
        self.channel.send("note", text="deaf")
        self.channel.send("out_of_memory", where=where, what="CUDA out of memory. Tried to allocate", device="cuda")
        self.channel._connection.close()
        while not Path(until).exists():
            time.sleep(0.01)
        sys.exit(3)

    def save_at(self, step: int) -> None:
        """Have a checkpoint of `step`, unless there is one."""
        self.step = step
        if not (self.run_path / "checkpoints" / f"step-{step:06}").exists():
            self.save()

    def crash_unless(self, field: str, text: str, number: int) -> None:
        """Say `text` as native code does and die of a signal, until the ladder has changed `field`."""
        if field not in self.adjusted:
            os.write(2, f"{text}\n".encode())
            os.kill(os.getpid(), number)

    def flood(self) -> None:
        """Say something as fast as it is taken in, for ever."""
        words = b'{"kind":"phase","phase":"training","detail":"of many"}\n' * 1000
        while True:
            self.channel._connection.sendall(words)

    def await_stop(self) -> None:
        """Go on once told to stop."""
        while "stop" not in self.channel.commands():
            time.sleep(0.01)

    def write(self, text: str) -> None:
        """Print, as libraries do: on Python's stdout and, past it, on the descriptor."""
        print(text)
        os.write(2, f"{text} (native)\n".encode())

    def garble(self, text: str) -> None:
        self.channel._connection.sendall(text.encode("utf-8", "surrogateescape"))

    def save_slowly(self, seconds: float) -> None:
        """Once told to stop, write for so long; only then is something saved."""
        self.await_stop()
        end = time.monotonic() + seconds
        with (self.run_path / "checkpoints" / "half-saved").open("wb", buffering=0) as file:
            while time.monotonic() < end:
                file.write(bytes(1 << 12))
                time.sleep(0.05)
        self.step = 7
        self.save()

    def leave_child(self) -> None:
        """Start a process that would outlive us and hold the channel open, as a forked data worker does."""
        child = subprocess.Popen(["sleep", "600"], pass_fds=[self.channel._connection.fileno()])
        self.channel.send("note", text=f"child {child.pid}")

    def execute(self, code: str) -> None:
        """Run a few lines of Python; `worker` is this worker in them."""
        exec(code, {"worker": self})

    def kill(self, number: int) -> None:
        os.kill(os.getpid(), number)

    def die_unprepared(self, number: int) -> None:
        """Die of a signal that is usually taken for a command, as while the training libraries are loaded."""
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)

    def kill_once(self, number: int, mark: str) -> None:
        """Die of a signal, but not again once the file `mark` is there."""
        if not Path(mark).exists():
            Path(mark).touch()
            os.kill(os.getpid(), number)

    def learn_and_die(self, steps: int, until: int) -> None:
        """Take `steps` steps from the newest checkpoint on, save and die, until the checkpoint is of step `until`."""
        saved = [int(each.name.removeprefix("step-")) for each in (self.run_path / "checkpoints").glob("step-*")]
        self.step = max(saved, default=0)
        if self.step < until:
            self.train(self.step + steps, 0.0, tell_end=False)
            self.save()
            os.kill(os.getpid(), signal.SIGKILL)

    def tell_adjusted(self) -> None:
        """Say which fields the supervisor handed over as changed."""
        self.channel.send("note", text=f"adjusted {json.dumps(self.adjusted)}")

    def hang(self) -> None:
        """Take in nothing, and no signal that can be refused."""
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        self.channel.send("note", text="hanging")
        time.sleep(600)

    def fail(self, text: str) -> None:
        raise RuntimeError(text)

    def finish(self) -> None:
        self.channel.send("outcome", outcome="finished", why="all is done", step=self.step)

    def leave(self, status: int) -> None:
        sys.exit(status)


if __name__ == "__main__":
    worker = FakeWorker(Path(sys.argv[2]))
    for action, *values in json.loads(sys.argv[1]):
        getattr(worker, action)(*values)
