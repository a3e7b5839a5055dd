"""What the crew's tests have done by other processes."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

from profiles.problem import Problem


def squares(setup):
    def square(number):
        print("a library's chatter")  # must not reach the protocol
        return os.getpid(), number * number + setup

    return square


def faulty(setup):
    def act(item):
        if item == "problem":
            raise Problem("here", "is wrong", "Do better.")
        if item == "fault":
            raise ValueError("a bug")
        if item == "modules":
            return sorted(set(sys.modules) & {"torch", "transformers", "pydantic", "textual"})
        if item == "die":
            print("these are my last words", file=sys.stderr, flush=True)
            os.kill(os.getpid(), signal.SIGKILL)
        if item == "die once" and not (mark := Path(setup)).exists():
            mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        if item == "sleep":
            Path(setup).write_text(str(os.getpid()))
            time.sleep(600)
        return item

    return act
