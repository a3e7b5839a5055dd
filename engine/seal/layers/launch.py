"""From a request to a sealed command: the layers in order, the report, and the command in this process's place."""

from __future__ import annotations

import os
import resource
import sys
import time

from engine.seal.layers import capabilities, descriptors, landlock, messages, namespace, seccomp, view
from engine.seal.layers.outcome import Missing, Outcome

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from engine.seal.request import Layer, SealRequest

_NAMES: dict[Layer, str] = {
    "namespace": "user and network namespaces",
    "landlock": "Landlock",
    "seccomp": "filters of system calls",
}
REFUSED_STATUS, _NOT_STARTED = 125, 127
PEAK_MARK_VARIABLE = "FINETUI_PEAK_MARK"
"""In a sealed process: a descriptor of its own /proc/self/clear_refs."""
_OWN_THREADS = "/proc/self/task"
"""Of all that is in /proc the one thing that may be written to: the C library names a thread from another one by a file
there (pthread_setname_np), and CUDA, which does so when it begins, takes a refusal for a broken system (error 304). It
is this process's: those that are forked from it have others."""
_EVERYBODYS_FILES = ("/proc", "/etc/ld.so.cache", "/etc/ld.so.preload")
_EVERYBODYS_DEVICES = ("/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom")


class Sealing:
    """The layers of one seal as they are taken on, and what is told of them."""

    def __init__(self, request: SealRequest) -> None:
        self.request = request
        self.held: list[Layer] = []
        self.inherited = False
        self._layers: list[dict[str, object]] = []
        self._since = time.perf_counter()

    def take_on(self, layer: Layer, step: Callable[[], Outcome]) -> dict[str, object]:
        """Its details; none where it does not hold."""
        since = time.perf_counter()
        try:
            if layer in self.request.without:
                raise Missing(f"this kernel has no {_NAMES[layer]} (simulated)")
            outcome = step()
        except Missing as missing:
            self._note(layer, False, {}, missing.why, missing.fix, since)
            return {}
        self.held.append(layer)
        self._note(layer, True, outcome.detail, "; ".join(outcome.gaps), "", since)
        return outcome.detail

    def inherit(self, others: tuple[Layer, ...]) -> None:
        """The seal that this process was started in, to which nothing can be added: seccomp and `others`."""
        self.inherited = True
        for layer in _NAMES:
            held = layer == "seccomp" or layer in others
            why = "" if held else "the seal that it was started in is without it"
            self._note(layer, held, {}, why, "", time.perf_counter())

    def missing(self) -> str:
        """Why those layers do not hold that do not."""
        return "; ".join(f"{each['layer']}: {each['why']}" for each in self._layers if not each["held"])

    def tell(self, refused: str = "") -> None:
        """Its other end is told the end of it by the exec, or by this process's."""
        report = {
            "level": self.request.level,
            "layers": self._layers,
            "refused": refused,
            "inherited": self.inherited,
            "milliseconds": _milliseconds(self._since),
        }
        left = messages.as_json(report).encode()
        while left:
            left = left[os.write(self.request.report, left) :]
        os.set_inheritable(self.request.report, False)
        if refused:
            sys.exit(REFUSED_STATUS)

    def _note(self, layer: Layer, held: bool, detail: dict[str, object], why: str, fix: str, since: float) -> None:
        values = {"layer": layer, "held": held, "detail": detail, "why": why, "fix": fix}
        self._layers.append({**values, "milliseconds": _milliseconds(since)})


def launch(arguments: list[str]) -> None:
    """Does not return."""
    assert arguments[:1] == ["--request"] and arguments[2:3] == ["--"] and arguments[3:], arguments
    with open(int(arguments[1]), "rb") as asked:
        request = messages.request_from(asked.read().decode())
    command = arguments[3:]
    program = _found(command[0])
    kept = {*request.keep, request.report}
    if request.refusals is not None:
        kept.add(request.refusals)
    descriptors.close_all_but(kept)
    sealing = Sealing(request)
    if request.level != "off":
        _seal(sealing, program, kept)
    if request.refusals is not None:
        os.close(request.refusals)  # the command has no use for it, whether or not it has served
    sealing.tell(refused=sealing.missing() if request.level == "required" else "")
    try:
        os.execv(program, command)
    except OSError as error:
        print(f"{command[0]}: {error.strerror}", file=sys.stderr)
        sys.exit(_NOT_STARTED)


def _seal(sealing: Sealing, program: str, kept: set[int]) -> None:
    try:
        descriptors.require_local(kept)
    except Missing as missing:
        sealing.tell(refused=missing.why)
    around = seccomp.holds()
    if around is not None:
        sealing.inherit(around)
        return
    request = sealing.request
    read = [*request.read, *_EVERYBODYS_FILES, program, os.path.realpath(program)]
    write = [*request.write, _OWN_THREADS]
    devices = [*request.devices, *_EVERYBODYS_DEVICES]

    _open_peak_mark()
    users = sealing.take_on("namespace", lambda: namespace.enter([*read, *devices], write)).get("users")
    if "namespace" in sealing.held:
        write += view.SCRATCH
    _hold_own_threads()
    _keep_from_dumping()
    capabilities.drop_all(as_root=os.geteuid() == 0 and not users)
    sockets = request.sockets if "namespace" in sealing.held else "none"
    sealing.take_on("landlock", lambda: landlock.restrict(read, write, devices, sockets))
    sealing.take_on("seccomp", lambda: seccomp.restrict(request, tuple(sealing.held)))


def _open_peak_mark() -> None:
    """A process has the kernel begin its highest memory use anew by writing to a file of its own. That is another file
    for each process, which Landlock has no name for: so it is opened before, and handed on."""
    try:
        mark = os.open("/proc/self/clear_refs", os.O_WRONLY)
    except OSError:
        return  # not every kernel has it
    os.set_inheritable(mark, True)
    os.environ[PEAK_MARK_VARIABLE] = str(mark)


def _hold_own_threads() -> None:
    """For as long as the process lives. What the kernel may do with a folder lies with what it has in memory of it, and
    of /proc it makes that anew when memory was short."""
    try:
        os.set_inheritable(os.open(_OWN_THREADS, os.O_PATH), True)
    except OSError:
        pass  # there is no /proc: nothing that needs it works


def _keep_from_dumping() -> None:
    """No file of what was in memory, and no program of the machine's (core_pattern) that is handed that: a limit of 1
    stops both, 0 only the first."""
    try:
        resource.setrlimit(resource.RLIMIT_CORE, (1, 1))
    except (ValueError, OSError):
        pass  # the limit is 0 already, and not ours to raise


def _found(program: str) -> str:
    """The file that `program` is, as exec would look for it; itself where there is none."""
    if "/" in program:
        return os.path.abspath(program)
    for folder in os.get_exec_path():
        path = os.path.abspath(os.path.join(folder, program))
        if os.path.isfile(path) and os.access(path, os.X_OK):
            return path
    return program


def _milliseconds(since: float) -> float:
    return round((time.perf_counter() - since) * 1000, 3)
