"""What else of a session ends a run before its time: limits on processes, batch jobs, services, disks of a log-in."""

from __future__ import annotations

import resource
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from engine.run.directory import runs_root
from engine.run.sizes import size_text
from engine.run.surviving.host import Host
from engine.run.surviving.survival import survival

# The variable in which each batch system names its job.
_BATCH_JOBS = {
    "SLURM_JOB_ID": "Slurm",
    "PBS_JOBID": "PBS",
    "LSB_JOBID": "LSF",
    "FLUX_JOB_ID": "Flux",
    "OAR_JOB_ID": "OAR",
    "COBALT_JOBID": "Cobalt",
}
# Services that leave alone what people started by them when they are stopped: their units say KillMode=process.
_LEAVING_ALONE = ("ssh", "cron", "atd", "getty", "serial-getty", "dropbear", "docker", "containerd")
# File systems whose contents a person's log-in unlocks, and logging out may lock again.
_UNLOCKED_BY_LOG_IN = frozenset({"afs", "ecryptfs"})
_LIMITS: tuple[tuple[int, str, str, Callable[[int], str]], ...] = (
    (resource.RLIMIT_CPU, "-t", "processor time", lambda seconds: f"{seconds:,} s"),
    (resource.RLIMIT_FSIZE, "-f", "the size of a file", size_text),
    (resource.RLIMIT_AS, "-v", "address space, of which GPUs take hundreds of GiB,", size_text),
)


@dataclass(frozen=True, slots=True)
class Caution:
    """Something that would end a run that is started now: `what` as a sentence, and `remedy` as another."""

    what: str
    remedy: str


def cautions_before_start(host: Host | None = None) -> list[Caution]:
    """All that a person should know before a run is started here, in sentences; empty where a run just goes on."""
    host = host or Host()
    found = survival(host)
    first = [] if found.holds else [Caution(_sentence(found.why), found.remedy)]
    return [*first, *session_limits(host)]


def session_limits(host: Host | None = None) -> list[Caution]:
    """What would end a run later, apart from logging out."""
    host = host or Host()
    return [*_of_jobs(host), *_of_services(host), *_of_processes(), *_of_disks(host)]


def _of_jobs(host: Host) -> Iterator[Caution]:
    for variable, system in _BATCH_JOBS.items():
        if job := host.environment.get(variable):
            end = host.environment.get("SLURM_JOB_END_TIME", "") if system == "Slurm" else ""
            when = f", at {_moment(int(end))}" if end.isdecimal() else ""
            yield Caution(
                f"This is inside {system} job {job}: a run ends with the job{when}.",
                "It saves when the system's SIGTERM comes; go on in the next job with `finetui resume latest`.",
            )


def _of_services(host: Host) -> Iterator[Caution]:
    name = host.service
    if name is None or host.in_container or name.partition("@")[0].removesuffix(".service").startswith(_LEAVING_ALONE):
        return
    yield Caution(
        f"This terminal belongs to the service {name}: a run ends when that is stopped or restarted.",
        "Start the run from a log-in of its own, such as ssh.",
    )


def _of_processes() -> Iterator[Caution]:
    for limit, option, name, text in _LIMITS:
        soft, _ = resource.getrlimit(limit)
        if soft != resource.RLIM_INFINITY:
            yield Caution(
                f"This session limits {name} to {text(soft)} (ulimit {option}): a run that needs more ends.",
                f"Lift it first: ulimit {option} unlimited. Where that is refused, the machine's keeper set it.",
            )


def _of_disks(host: Host) -> Iterator[Caution]:
    found = _mount_of(runs_root(), host)
    if found is None:
        return
    kind, options = found
    mounted_by_user = kind.startswith("fuse") and f"user_id={host.user_id}" in options and host.user_id != 0
    tickets = kind.startswith("nfs") and any(each.startswith("sec=krb5") for each in options)
    if mounted_by_user or tickets or kind in _UNLOCKED_BY_LOG_IN:
        why = "its Kerberos ticket ends" if tickets or kind == "afs" else "you log out, where that unmounts it"
        yield Caution(
            f"Runs are kept on a disk ({kind}) that is lost to them when {why}.",
            "Set FINETUI_HOME to a disk of the machine itself.",
        )


def _mount_of(path: Path, host: Host) -> tuple[str, list[str]] | None:
    """The kind and the options of the file system that `path` lies on."""
    best: tuple[int, str, list[str]] | None = None
    for line in host.text("proc/self/mountinfo").splitlines():
        before, _, after = line.partition(" - ")
        fields, ending = before.split(), after.split()
        if len(fields) < 6 or len(ending) < 3:
            continue
        point = Path(fields[4].encode().decode("unicode_escape", "replace"))  # a blank stands there as \040
        if path.is_relative_to(point) and (best is None or len(point.parts) >= best[0]):
            best = len(point.parts), ending[0], [*fields[5].split(","), *ending[2].split(",")]
    return best and (best[1], best[2])


def _moment(seconds: int) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(seconds))


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}."
