"""The stacks that a worker writes when it is asked: taken whole or not yet."""

from __future__ import annotations

import signal
import subprocess
import sys

from waiting import wait_until

from engine.run.watching.stacks import Stacks

# Stands in the middle of writing, as one that got no processor there; of each half it says that it is written.
_WRITING = """
import os, signal, sys
def write(number, frame):
    for half in ("Thread 0x1 (most recent call first):\\n", "  File \\"a.py\\", line 1 in <module>\\n"):
        os.write(int(sys.argv[1]), half.encode())
        print(flush=True)
        sys.stdin.readline()
def block_and_write(number, frame):
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])  # as the kernel does for a handler that is not Python's
    write(number, frame)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGUSR1])
signal.signal(signal.SIGUSR1, block_and_write)
print(flush=True)
while True:
    signal.pause()
"""


def test_stacks_that_are_just_being_written_are_not_taken_for_whole() -> None:
    stacks = Stacks()
    command = [sys.executable, "-c", _WRITING, str(stacks.fileno())]
    with subprocess.Popen(command, stdin=-1, stdout=-1, pass_fds=[stacks.fileno()], bufsize=0) as worker:
        assert worker.stdin is not None and worker.stdout is not None
        worker.stdout.readline()
        assert stacks.read() == "" and stacks.ask(worker.pid)
        for _ in range(2):
            worker.stdout.readline()
            assert stacks.read() == ""
            worker.stdin.write(b"\n")
        assert wait_until(stacks.read).splitlines()[-1] == '  File "a.py", line 1 in <module>'
        worker.send_signal(signal.SIGKILL)
    stacks.close()
