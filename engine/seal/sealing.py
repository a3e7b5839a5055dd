"""Starting a process sealed: with the files it is given, without a network, and with a report of what holds."""

from __future__ import annotations

import errno
import json
import os
import select
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import IO, Any

from engine.child_process import describe_exit
from engine.modules import module_environment
from engine.seal.group import GroupProcess
from engine.seal.layers import seccomp
from engine.seal.policy.base import base_places
from engine.seal.policy.environment import sealed_environment
from engine.seal.policy.places import Places
from engine.seal.report import LayerReport, SealReport
from engine.seal.request import LAYERS, Layer, Level, SealRequest, Sockets
from profiles.problem import Problem

WITHOUT_VARIABLE = "FINETUI_SEAL_WITHOUT"
"""An environment variable with layers, divided by commas, that are to be missing as on a machine that has none."""
SEALED_VARIABLE = "FINETUI_SEALED"
"""Is in a sealed process's environment: what the kernel said of the process that started it, see `_restrictions`."""

_LAUNCHER = Path(__file__).with_name("launcher.py")
# A launcher takes some 30 ms; on a machine that swaps, or with Python on a network disk, a thousand times as long.
_REPORT_SECONDS = 120.0
# For one that has said that it starts nothing, or has closed its descriptors: it is ending.
_LAST_SECONDS = 2.0


class SealRefused(Problem):
    """A layer that is required does not hold on this machine: nothing was started."""


def start_sealed(
    command: Sequence[str],
    places: Places,
    level: Level,
    *,
    pass_fds: Sequence[int] = (),
    sockets: Sockets = "none",
    refusals: int | None = None,
    env: Mapping[str, str] | None = None,
    **popen: Any,
) -> tuple[GroupProcess, SealReport]:
    """Start `command` with `places` and what every process needs, sealed as `level` says; what holds for it.

    `env` (that of our modules where none is given) goes through `sealed_environment`, unless the level is "off".
    `refusals` is SealRequest's; that descriptor and `pass_fds` stay open, the first until it has served. Further
    keywords are Popen's. The process leads a group of its own, which ends with it. In a process that is sealed itself
    the command is started as it is. Raises SealRefused, also where the launcher dies, or where layers are required that
    are not known to hold around this process, and OSError.
    """
    environment = dict(module_environment() if env is None else env)
    if level == "off":
        return GroupProcess(command, pass_fds=pass_fds, env=environment, **popen), SealReport(level)
    if is_sealed():
        if level == "required":
            _require_around()
        process = GroupProcess(command, pass_fds=pass_fds, env=environment, **popen)
        return process, SealReport(level, inherited=True)
    libraries = next(map(Path, places.libraries), None)
    environment = {**sealed_environment(environment, libraries), SEALED_VARIABLE: _restrictions()}
    if sys.platform != "linux":
        layers = tuple(LayerReport(layer, held=False, why="only Linux has it") for layer in LAYERS)
        report = SealReport(level, layers)
        if level == "required":
            raise _refused(report)
        return GroupProcess(command, pass_fds=pass_fds, env=environment, **popen), report
    _require_command(command[0], environment)
    places |= base_places(environment)
    with ExitStack() as stack:
        asked, asking = _pipe(stack)
        answered, answering = _pipe(stack)
        request = SealRequest(
            level=level,
            report=answering.fileno(),
            read=places.read,
            write=places.write,
            devices=places.devices,
            keep=tuple(pass_fds),
            sockets=sockets,
            refusals=refusals,
            without=_without(environment),
        )
        kept = [asked.fileno(), answering.fileno(), *pass_fds, *([] if refusals is None else [refusals])]
        launcher = [sys.executable, "-I", "-S", str(_LAUNCHER), "--request", str(asked.fileno())]
        process = GroupProcess([*launcher, "--", *command], pass_fds=kept, env=environment, **popen)
        try:
            asked.close()
            answering.close()
            end = time.monotonic() + _REPORT_SECONDS
            # By a pipe: arguments are seen by everybody, and a file would count against a limit of their size.
            _write(asking.fileno(), request.to_json().encode(), end)
            asking.close()
            told = _read(answered.fileno(), end)
        except BaseException:
            process.kill()
            _let_go(process)
            raise
    report = _report(told)
    if report is None or report.refused:
        status = _let_go(process)
        raise _refused(report) if report is not None else _unheard(told, status)
    return process, report


def run_sealed(
    command: Sequence[str],
    places: Places,
    *,
    input: bytes = b"",
    timeout_seconds: float,
    env: Mapping[str, str] | None = None,
    start: Callable[..., tuple[GroupProcess, SealReport]] = start_sealed,
) -> subprocess.CompletedProcess[bytes]:
    """As `subprocess.run`, sealed as well as this machine can: start `command`, give it `input`, and return what it
    wrote. `start` takes what `start_sealed` takes. Raises subprocess.TimeoutExpired, when it is killed, and OSError."""
    pipe = subprocess.PIPE
    process, _ = start(command, places, "best", env=env, stdin=pipe, stdout=pipe, stderr=pipe)
    with process:
        try:
            output, errors = process.communicate(input, timeout=timeout_seconds)
        except BaseException:
            process.kill()
            raise
        return subprocess.CompletedProcess(command, process.returncode, output, errors)


def is_sealed() -> bool:
    """Whether a seal holds for this process: its filter says so; or, where it has none, it has restrictions that the
    one which was to seal it had not. A container has some of its own, and a variable alone may be anybody's."""
    if _around() is not None:
        return True
    before = os.environ.get(SEALED_VARIABLE, "").split()
    if len(before) != 2 or not all(map(str.isdecimal, before)):
        return False
    return any(now > int(then) for now, then in zip(map(int, _restrictions().split()), before, strict=True))


def _around() -> tuple[Layer, ...] | None:
    """The layers of the seal around this process, by the word of its filter, which is the kernel's; None without."""
    others = seccomp.holds() if sys.platform == "linux" else None
    return None if others is None else tuple(layer for layer in LAYERS if layer == "seccomp" or layer in others)


def _require_around() -> None:
    """Raises SealRefused unless every layer is known to hold around this process."""
    around = _around() or ()
    if missing := [layer for layer in LAYERS if layer not in around]:
        names = " and ".join([*filter(None, [", ".join(missing[:-1])]), missing[-1]])
        what = f"is required, and finetui was started within a seal that is not known to have the layer {names}"
        raise SealRefused("the seal", what, "Start finetui outside of that seal.")


def _require_command(name: str, environment: Mapping[str, str]) -> None:
    """Raises what Popen raises for a command that is not there or cannot be run; the launcher would only end."""
    if shutil.which(name, path=environment.get("PATH")) is None:
        number = errno.EACCES if Path(name).exists() else errno.ENOENT
        raise OSError(number, os.strerror(number), name)


def _restrictions() -> str:
    """NoNewPrivs and the count of seccomp filters of this process, as the kernel says them."""
    found = {"NoNewPrivs": "0", "Seccomp": "0", "Seccomp_filters": ""}
    with suppress(OSError):
        for line in Path("/proc/self/status").read_text(errors="replace").splitlines():
            name, _, value = line.partition(":")
            if name in found:
                found[name] = value.strip()
    # Kernels before 5.9 tell only whether there are any.
    return f"{found['NoNewPrivs']} {found['Seccomp_filters'] or int(found['Seccomp'] != '0')}"


def _pipe(stack: ExitStack) -> tuple[IO[bytes], IO[bytes]]:
    """Its end to read from and its end to write to."""
    read, write = os.pipe()
    return stack.enter_context(os.fdopen(read, "rb")), stack.enter_context(os.fdopen(write, "wb"))


def _write(descriptor: int, data: bytes, end: float) -> None:
    """All of `data`, or as much as the other end takes until `end`, or until it is closed."""
    os.set_blocking(descriptor, False)
    poll = select.poll()
    poll.register(descriptor, select.POLLOUT)
    with suppress(BrokenPipeError):
        while data and (left := end - time.monotonic()) > 0:
            if poll.poll(left * 1000):
                data = data[os.write(descriptor, data) :]


def _read(descriptor: int, end: float) -> bytes | None:
    """All until the other end is closed; None when that is not so at `end`."""
    data = b""
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    while (left := end - time.monotonic()) > 0:
        if poll.poll(left * 1000):
            part = os.read(descriptor, 1 << 16)
            if not part:
                return data
            data += part
    return None


def _report(answer: bytes | None) -> SealReport | None:
    """What the launcher said; None where it came to no word, and the command was not started."""
    with suppress(ValueError, KeyError, TypeError):
        return SealReport.from_dict(json.loads(answer or b""))
    return None


def _unheard(answer: bytes | None, status: int) -> SealRefused:
    late = f"did not answer within {_REPORT_SECONDS:.0f} s"
    what = late if answer is None else f"{describe_exit(status)} before it could say what holds"
    return SealRefused("the seal", f"its launcher {what}, so nothing was started", "Free some memory, and start again.")


def _refused(report: SealReport) -> SealRefused:
    missing = report.missing
    what = "; ".join(f"the layer {each.layer} is missing, since {each.why}" for each in missing) or report.refused
    fix = " ".join(dict.fromkeys(each.fix for each in missing if each.fix))
    return SealRefused(
        "the seal",
        f"is required, and does not hold on this machine: {what}",
        fix or "Use a machine that has all layers.",
    )


def _let_go(process: GroupProcess) -> int:
    """Clean up after a launcher that started nothing; how it ended."""
    with suppress(subprocess.TimeoutExpired):
        process.wait(_LAST_SECONDS)
    process.kill()
    for pipe in (process.stdin, process.stdout, process.stderr):
        if pipe is not None:
            pipe.close()
    return process.wait()


def _without(environment: Mapping[str, str]) -> tuple[Layer, ...]:
    named = environment.get(WITHOUT_VARIABLE, "").split(",")
    return tuple(layer for layer in LAYERS if layer in named)
