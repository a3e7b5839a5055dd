"""What the app costs on a pty: milliseconds to its first text, memory, and bytes a second, idle and with a live run.

    python tests/benchmarks/app_cost.py [--seconds 15] [--json]

A run folder is made up (tests/tui/fake_run.py) whose journal takes a step and a device reading a second. This process
plays the terminal and counts every byte; what SSH adds is not in it. Start-up is the median of several, and is shown
beside that of the least Textual app, which is its floor on this machine at this moment.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import psutil

REPOSITORY = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(REPOSITORY / "tests"), str(REPOSITORY / "tests" / "tui")]

from fake_run import make_run  # noqa: E402
from pty_app import PtyApp  # noqa: E402

OPEN_APP = [sys.executable, "-m", "tui"]
LEAST_APP = (
    "from textual.app import App\n"
    "from textual.widget import Widget\n"
    "class Least(Widget):\n"
    "    def render(self): return 'finetui'\n"
    "class LeastApp(App):\n"
    "    def compose(self): yield Least()\n"
    "LeastApp().run()\n"
)
STARTS = 5
SIZES = ((80, 24), (200, 50))


def start_milliseconds(command: list[str], home: Path) -> float:
    """From starting the process to its name on the screen, the median of some starts."""
    taken = []
    for _ in range(STARTS):
        with _open(command, home, 80, 24) as terminal:
            terminal.wait_for("finetui")
            taken.append((terminal.seconds_since_start()) * 1000)
    return statistics.median(taken)


def measure(home: Path, size: tuple[int, int], keys: str, waits_for: str, seconds: float) -> dict[str, float]:
    """Bytes a second and processor share over `seconds`, and memory at the end, once `keys` led to `waits_for`."""
    with _open(OPEN_APP, home, *size) as terminal:
        terminal.wait_for("finetui")
        if keys:
            terminal.wait_until_quiet()
            terminal.type(keys)
        terminal.wait_for(waits_for)
        terminal.pump(2)
        process = psutil.Process(terminal.process.pid)
        before = sum(process.cpu_times()[:2])
        written = terminal.pump(seconds)
        memory = process.memory_full_info()
        return {
            "bytes_per_second": round(written / seconds, 1),
            "cpu_percent": round((sum(process.cpu_times()[:2]) - before) / seconds * 100, 1),
            "rss_mib": round(memory.rss / 2**20, 1),
            "uss_mib": round(memory.uss / 2**20, 1),
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=15, help="length of each measurement")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    results: dict[str, object] = {}
    with tempfile.TemporaryDirectory() as folder:
        ended, live = Path(folder, "ended"), Path(folder, "live")
        make_run(ended, "ended", until=1200, outcome="finished")
        results["start_ms"] = round(start_milliseconds(OPEN_APP, ended))
        results["least_textual_app_start_ms"] = round(start_milliseconds([sys.executable, "-c", LEAST_APP], ended))
        for size in SIZES:
            name = "x".join(map(str, size))
            results[f"idle_monitor_{name}"] = measure(ended, size, "\r", "0 % → 94 %", options.seconds)
        program = [sys.executable, str(REPOSITORY / "tests/tui/fake_run.py"), str(live), "live", "--seconds", "600"]
        with subprocess.Popen(program, stdout=subprocess.PIPE) as player:
            assert player.stdout is not None
            player.stdout.readline()
            for size in SIZES:
                name = "x".join(map(str, size))
                results[f"live_monitor_{name}"] = measure(live, size, "", "/1,200", options.seconds)
            player.kill()
    if options.json:
        print(json.dumps(results))
        return
    for name, value in results.items():
        print(f"{name:<28} {value if not isinstance(value, dict) else '  '.join(f'{k} {v}' for k, v in value.items())}")


def _open(command: list[str], home: Path, columns: int, rows: int) -> PtyApp:
    return PtyApp(command, {"FINETUI_HOME": str(home), "PYTHONPATH": str(REPOSITORY)}, columns, rows)


if __name__ == "__main__":
    main()
