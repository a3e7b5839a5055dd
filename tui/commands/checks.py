"""What `finetui doctor` looks at. Each check says what was found and, where that is not right, what to do.

Heavy libraries are imported in a child process: they may be missing, broken or slow.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from engine.airgap.installed import try_installed
from engine.home import home
from engine.run.private import private_folder
from engine.run.private_home import guard_home
from engine.run.processes.orphans import find_orphans, interrupted_runs
from engine.run.surviving.host import Host
from engine.run.surviving.session_limits import session_limits
from engine.run.surviving.survival import survival
from engine.seal.ability import ability
from engine.seal.report import LayerReport
from engine.seal.request import Layer
from profiles.machine.kernel import require_kernel
from profiles.problem import Problem, printable
from tui.format import bytes_text
from tui.terminal import Terminal

Level = Literal["ok", "warn", "fail"]
Examination = Callable[[], Iterator["Check"]]

PYTHON_SUPPORTED = ((3, 11), (3, 14))
DISK_FAIL_BYTES = 512 * 1024**2
DISK_WARN_BYTES = 5 * 1024**3
_LIBRARIES = ("torch", "transformers", "peft", "accelerate", "bitsandbytes")
_QUANTISED_ONLY = ("4-bit weights", "8-bit optimizer")
_REINSTALL = "Install again: pip install -c constraints.txt . (or make demo)."

_WHAT_A_LAYER_DOES: dict[Layer, str] = {
    "namespace": "a network of its own without a way out, and only the files it needs",
    "landlock": "the kernel refuses every other file",
    "seccomp": "the kernel refuses sockets and what else leads out",
}
_LOCK_PROGRAM = """
import fcntl, sys
with open(sys.argv[1], "r+b") as file:
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        sys.exit(7)
"""
_LOCK_REFUSED = 7


@dataclass(frozen=True, slots=True)
class Check:
    """One line of the report; `fix` is empty when nothing needs doing."""

    name: str
    level: Level
    found: str
    fix: str = ""


def all_checks(terminal: Terminal) -> list[tuple[str, Examination]]:
    """The examinations in the order they are shown, each with what is being looked at."""
    return [
        ("system", check_system),
        ("python", check_python),
        ("libraries", check_libraries),
        ("home", lambda: check_home(home())),
        ("private", check_private),
        ("seal", check_seal),
        ("terminal", lambda: check_terminal(terminal, os.environ.get("TERM", ""))),
        ("log-out", lambda: check_logout(Host())),
        ("orphans", check_orphans),
    ]


def check_system() -> Iterator[Check]:
    """Whether this is a system that trains."""
    try:
        require_kernel()
    except Problem as problem:
        yield Check("system", "fail", f"{problem.where} {problem.what}", problem.fix)
        return
    yield Check("system", "ok", f"{platform.system()} {platform.release()}, {platform.machine()}")


def check_python() -> Iterator[Check]:
    found = f"Python {platform.python_version()}"
    if PYTHON_SUPPORTED[0] <= sys.version_info[:2] < PYTHON_SUPPORTED[1]:
        yield Check("python", "ok", found)
    else:
        yield Check("python", "fail", found, "Use Python 3.11, 3.12 or 3.13.")


def check_libraries() -> Iterator[Check]:
    """The training libraries, tried in a child process, and whether torch and the GPU driver agree."""
    try:
        found = try_installed(_LIBRARIES)
    except Problem as problem:
        yield Check("torch", "fail", f"{problem.where} {problem.what}", _REINSTALL)
        return
    yield from judge_libraries(found)


def judge_libraries(found: dict[str, Any]) -> Iterator[Check]:
    """The checks that follow from what the child process found."""
    for name, number in found["versions"].items():
        yield Check(_column(name), "ok", f"{name} {number}")
    for name, fault in found["imports"].items():
        if fault:
            level: Level = "warn" if name == "bitsandbytes" else "fail"
            needed = " (only QLoRA and 8-bit optimizers need it)" if name == "bitsandbytes" else ""
            yield Check(_column(name), level, f"{name} does not import: {printable(fault, 200)}{needed}", _REINSTALL)
    if found["torch"]:
        yield judge_cuda(found)
        yield from judge_kernels(found, _REINSTALL)


def judge_kernels(found: dict[str, Any], reinstall: str) -> Iterator[Check]:
    """Which of the kernels that runs need do what they are for; `reinstall` mends those of torch."""
    device = f"CUDA {found['torch']['torch_cuda']}" if found["torch"]["cuda_available"] else "the CPU"
    for name, fault in found["kernels"].items():
        if not fault:
            continue
        words = f"{name} do not work here: {printable(fault, 200)}"
        if name in _QUANTISED_ONLY:
            native = f"bitsandbytes' library for {device} (bitsandbytes/libbitsandbytes_*.so of its wheel)"
            yield Check("kernels", "warn", f"{words} (only QLoRA and 8-bit optimizers need them)", f"Bring {native}.")
        else:
            yield Check("kernels", "fail", words, reinstall)
    works = [name for name, fault in found["kernels"].items() if not fault]
    if works:
        yield Check("kernels", "ok", f"tried on {device}: {', '.join(works)}; flash attention is not needed")


def judge_cuda(found: dict[str, Any]) -> Check:
    """Whether torch can use the GPUs that the driver has."""
    torch, nvml = found["torch"], found["driver"]
    gpus = nvml.get("driver_gpus", 0)
    if torch["cuda_available"]:
        return Check("GPU", "ok", f"{', '.join(torch['devices'])}; CUDA {torch['torch_cuda']}")
    if not gpus:
        return Check("GPU", "ok", f"none ({printable(nvml.get('no_driver', 'no NVIDIA GPU'))}): training on the CPU")
    driver = f"driver {nvml['driver']} (CUDA {_cuda_text(nvml['driver_cuda'])})"
    if torch["torch_cuda"] is None:
        return Check(
            "GPU",
            "fail",
            f"{driver} has {gpus}, but torch is built for the CPU only",
            "Install torch's CUDA build.",
        )
    return Check(
        "GPU",
        "fail",
        f"{driver} has {gpus}, but torch, built for CUDA {torch['torch_cuda']}, cannot use them",
        "Update the driver, or install a torch built for the driver's CUDA; check CUDA_VISIBLE_DEVICES.",
    )


def check_home(folder: Path) -> Iterator[Check]:
    """Write access, free space and working locks where runs are kept."""
    try:
        private_folder(folder)
        with tempfile.NamedTemporaryFile(dir=folder, prefix=".doctor-") as file:
            file.write(b"finetui")
            file.flush()
            os.fsync(file.fileno())
            locks = _locks_work(file.name)
    except Problem as problem:
        yield Check("home", "fail", f"{problem.where} {problem.what}", problem.fix)
        return
    except OSError as error:
        yield Check(
            "home",
            "fail",
            f"{folder} cannot be written to: {error.strerror}",
            "Set FINETUI_HOME to a place that can.",
        )
        return
    yield Check("home", "ok", f"{folder} can be written to")
    free = shutil.disk_usage(folder).free
    level: Level = "fail" if free < DISK_FAIL_BYTES else "warn" if free < DISK_WARN_BYTES else "ok"
    fix = "" if level == "ok" else "Free some space, or set FINETUI_HOME to a larger disk."
    yield Check("disk", level, f"{bytes_text(free)} free", fix)
    if locks:
        yield Check("locks", "ok", "a lock held by one process is refused to another")
    else:
        yield Check(
            "locks",
            "fail",
            "file locks do not work on that disk, so it cannot be told whether a run is alive",
            "Set FINETUI_HOME to a local disk, or mount the network disk with locking.",
        )


def check_private() -> Iterator[Check]:
    """Whether finetui's folders are closed to the machine's other users; those that are not are closed."""
    try:
        opened = guard_home()
    except Problem as problem:
        yield Check("private", "fail", f"{problem.where} {problem.what}", problem.fix)
        return
    for folder in opened:
        found = f"{printable(folder, 300)} could be looked into by other users of this machine; it is closed now"
        yield Check("private", "warn", found, "Think of what was in it as read by them: nothing takes that back.")
    if not opened:
        yield Check("private", "ok", "what finetui keeps is closed to other users of this machine")


def check_seal() -> Iterator[Check]:
    """Which layers of the seal this machine can hold, tried."""
    yield from judge_seal(ability().layers)


def judge_seal(layers: Iterable[LayerReport]) -> Iterator[Check]:
    """One line for each layer, and where one is missing what that means for runs."""
    layers = tuple(layers)
    missing = [each for each in layers if not each.held]
    for each in layers:
        if each.held:
            part = f"; {each.why}" if each.why else ""
            yield Check("seal", "ok", f"{each.layer} holds: {_WHAT_A_LAYER_DOES[each.layer]}{part}")
        else:
            fix = each.fix or "Nothing mends that on this machine; train where it holds, or with privacy.seal best."
            yield Check("seal", "warn", f"{each.layer} is missing: {printable(each.why, 200)}", fix)
    if missing and layers:
        *others, last = (each.layer for each in missing)
        names = f"{', '.join(others)} and {last}" if others else last
        found = f'a run with privacy.seal = "required" will not start here for want of {names}; best trains without'
        yield Check("seal", "warn", found, "Mend what is missing, or leave privacy.seal at best.")


def _locks_work(path: str) -> bool:
    import fcntl

    with Path(path).open("r+b") as file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return False
        other = subprocess.run([sys.executable, "-P", "-c", _LOCK_PROGRAM, path], stdin=subprocess.DEVNULL, check=False)
    return other.returncode == _LOCK_REFUSED


def check_terminal(terminal: Terminal, kind: str) -> Iterator[Check]:
    where = [f"{terminal.columns}x{terminal.rows}", kind or "TERM is not set"]
    where += ["tmux"] if terminal.tmux else []
    where += ["SSH"] if terminal.ssh else []
    where += ["no colours"] if terminal.no_color else []
    if not terminal.utf8:
        yield Check(
            "terminal",
            "warn",
            f"{', '.join(where)}; the locale is not UTF-8, so ASCII is drawn",
            "Set LANG to a UTF-8 locale, such as C.UTF-8.",
        )
    elif terminal.columns < 80 or terminal.rows < 24:
        yield Check("terminal", "warn", ", ".join(where), "Make it 80x24 or larger for the app.")
    else:
        yield Check("terminal", "ok", f"{', '.join(where)}, UTF-8")


def check_logout(host: Host) -> Iterator[Check]:
    """Whether a run goes on when its person logs out, and what else of this session would end it."""
    found = survival(host)
    yield Check("log-out", "ok" if found.holds else "warn", found.why, found.remedy)
    for caution in session_limits(host):
        yield Check("session", "warn", caution.what, caution.remedy)


def check_orphans() -> Iterator[Check]:
    """What runs left behind that holds memory, and runs that nothing ended."""
    try:
        orphans, interrupted = find_orphans(), interrupted_runs()
    except Problem:  # the folder of runs cannot be read, which the check of the home tells
        return
    for orphan in orphans:
        yield Check("orphan", "warn", orphan.sentence(), "End it: finetui doctor --end-orphans")
    if interrupted:
        names = ", ".join(run.name for run in interrupted[:3]) + (", …" if len(interrupted) > 3 else "")
        were = "run was" if len(interrupted) == 1 else "runs were"
        go_on = "go on with: finetui resume --interrupted"
        yield Check("runs", "ok", f"{len(interrupted)} {were} interrupted: {names}; {go_on}")


def _column(library: str) -> str:
    return "torch" if library == "torch" else "library"


def _cuda_text(number: int) -> str:
    """NVML's 13010 as 13.1."""
    return f"{number // 1000}.{number % 1000 // 10}"
