"""What it costs to start a process sealed: milliseconds beside the same command as it is, and beside bubblewrap.

    python tests/benchmarks/seal_cost.py [REPEATS]

Each way starts `true` and Python in turn, so that whatever else the machine does falls on all of them; medians.
"launcher": its own interpreter, the layers and the report. "sealed": all that a caller of start_sealed waits for, which
finds out first which files everybody needs. bubblewrap, where it is installed, makes a network and files of its own and
drops capabilities; it has neither Landlock nor a filter of calls, and leaves inherited sockets open.
"""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

from engine import seal
from engine.modules import module_environment
from engine.seal.policy.base import base_places
from engine.seal.policy.places import Places
from engine.seal.report import SealReport
from engine.seal.request import Level, SealRequest
from engine.seal.sealing import start_sealed

REPEATS = 60
COMMANDS = {"true": ["true"], "python": [sys.executable, "-I", "-S", "-c", "pass"]}
LAUNCHER = Path(seal.__file__).with_name("launcher.py")
BUBBLEWRAP = [
    "bwrap",
    "--ro-bind",
    "/",
    "/",
    "--dev",
    "/dev",
    "--proc",
    "/proc",
    "--tmpfs",
    "/tmp",
    "--unshare-all",
    "--",
]
# One call of a filtered kind, many times: what the filter adds to each system call of a sealed process.
CALLS = (
    "import os, time\nsince = time.perf_counter()\n"
    "for _ in range(200_000): os.getppid()\nprint(time.perf_counter() - since)"
)


def plain(command: list[str]) -> None:
    subprocess.run(command, env=module_environment(), check=True)


def bubblewrapped(command: list[str]) -> None:
    subprocess.run([*BUBBLEWRAP, *command], env=module_environment(), check=True)


def launched() -> Callable[[list[str]], None]:
    places = base_places(os.environ)

    def start(command: list[str]) -> None:
        ours, theirs = os.pipe()
        asked = os.memfd_create("request")
        request = SealRequest("best", theirs, places.read, places.write, places.devices)
        os.write(asked, request.to_json().encode())
        os.lseek(asked, 0, os.SEEK_SET)
        launcher = [sys.executable, "-I", "-S", str(LAUNCHER), "--request", str(asked), "--"]
        subprocess.run([*launcher, *command], pass_fds=(asked, theirs), check=True)
        for descriptor in (asked, theirs, ours):
            os.close(descriptor)

    return start


def sealed(level: Level) -> Callable[[list[str]], SealReport]:
    def start(command: list[str]) -> SealReport:
        process, report = start_sealed(command, Places(), level, env=module_environment())
        assert process.wait() == 0, report
        return report

    return start


def main() -> None:
    repeats = int(sys.argv[1]) if len(sys.argv) > 1 else REPEATS
    ways: dict[str, Callable[[list[str]], SealReport | None]] = {
        "as it is": plain,
        "launcher": launched(),
        "sealed": sealed("best"),
    }
    if shutil.which("bwrap") is not None:
        ways["bwrap"] = bubblewrapped
    taken: dict[tuple[str, str], list[float]] = defaultdict(list)
    layers: dict[str, list[float]] = defaultdict(list)
    for _ in range(repeats):
        for name, command in COMMANDS.items():
            for way, start in ways.items():
                since = time.perf_counter()
                report = start(command)
                taken[name, way].append((time.perf_counter() - since) * 1000)
                for layer in report.layers if report else ():
                    layers[layer.layer if layer.held else f"{layer.layer} (missing)"].append(layer.milliseconds)
                if report:
                    layers["the seal"].append(report.milliseconds)
    for name in COMMANDS:
        least = statistics.median(taken[name, "as it is"])
        for way in ways:
            median = statistics.median(taken[name, way])
            print(f"{name:<8} {way:<9} {median:6.1f} ms  +{median - least:5.1f} ms  {median / least:5.2f} x")
    for name, milliseconds in layers.items():
        print(f"of it: {name:<20} {statistics.median(milliseconds):6.2f} ms")
    calls = {"as it is": calls_seconds(None), "sealed": calls_seconds("best")}
    print("a system call: " + ", ".join(f"{each / 200_000 * 1e9:.0f} ns {way}" for way, each in calls.items()))
    print(f"uid {os.geteuid()}; medians of {repeats}")


def calls_seconds(level: Level | None) -> float:
    """The least of some: anything else that happens only adds."""
    found = []
    for _ in range(5):
        command = [sys.executable, "-I", "-S", "-c", CALLS]
        if level is None:
            process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        else:
            process, _ = start_sealed(command, Places(), level, stdout=subprocess.PIPE, text=True)
        found.append(float(process.communicate()[0]))
    return min(found)


if __name__ == "__main__":
    main()
