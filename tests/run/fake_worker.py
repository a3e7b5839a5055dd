"""A worker without torch: it does one action after another of a script, over the real channel.

    python fake_worker.py SCRIPT RUN_PATH

SCRIPT is a JSON list of [action, argument...]; see the functions below.
"""

from __future__ import annotations

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


class FakeWorker:
    def __init__(self, run_path: Path):
        self.run_path = run_path
        self.channel = Channel.from_environment()
        self.channel.install_sigterm()
        self.adjusted = adjusted_from_environment()
        self.step = 0

    def send(self, kind: str, fields: dict[str, Any]) -> None:
        self.channel.send(kind, **fields)

    def train(self, steps: int, seconds: float) -> None:
        """Take steps, from the newest checkpoint on; save and end when told to stop."""
        for saved in (self.run_path / "checkpoints").glob("step-*"):
            self.step = max(self.step, int(saved.name.removeprefix("step-")))
        self.channel.send("plan", planned_steps=steps)
        while self.step < steps:
            for command in self.channel.commands():
                self.channel.send("note", text=f"got {command}")
                if command == "stop":
                    self.save()
                    self.channel.send("outcome", outcome="stopped", why="stopped on request", step=self.step)
                    sys.exit(0)
                if command == "save":
                    self.save()
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
            time.sleep(seconds)
        self.channel.send("outcome", outcome="finished", why="all steps are done", step=self.step)

    def save(self) -> None:
        (self.run_path / "checkpoints" / f"step-{self.step:06}").mkdir(parents=True)
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

    def leave_child(self) -> None:
        """Start a process that would outlive us and hold the channel open, as a forked data worker does."""
        child = subprocess.Popen(["sleep", "600"], pass_fds=[self.channel._connection.fileno()])
        self.channel.send("note", text=f"child {child.pid}")

    def kill(self, number: int) -> None:
        os.kill(os.getpid(), number)

    def hang(self) -> None:
        """Take in nothing, and no signal that can be refused."""
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        self.channel.send("note", text="hanging")
        time.sleep(600)

    def fail(self, text: str) -> None:
        raise RuntimeError(text)

    def leave(self, status: int) -> None:
        sys.exit(status)


if __name__ == "__main__":
    worker = FakeWorker(Path(sys.argv[2]))
    for action, *values in json.loads(sys.argv[1]):
        getattr(worker, action)(*values)
