"""The run that another is to come after: whether it has ended, and whether it may be waited for at all."""

from __future__ import annotations

from collections.abc import Mapping

from engine.run.directory import RunDirectory, list_runs, runs_root
from engine.run.liveness import is_starting
from engine.run.processes.lock import lock_holder
from profiles.problem import Problem, printable


def has_ended(name: str, asking: str = "") -> bool:
    """Whether the run called `name` has ended: finished, stopped or failed, died with its engine, or was deleted.
    `asking` is the name of the run whose engine asks. Raises OSError when its folder cannot be read."""
    if name == asking:
        return False  # a process that asks after its own lock loses it
    run = RunDirectory(runs_root() / name)
    try:
        starting = is_starting(run)
    except (FileNotFoundError, NotADirectoryError):
        return True
    # Before the lock, which an engine takes first: one that begins just now is not taken for one that is gone.
    began = run.events_path.exists()
    return lock_holder(run.lock_path) is None and (began or not starting)


def require_run(name: str) -> None:
    """Raises Problem unless there is a run of exactly this name."""
    if all(run.name != name for run in list_runs()):
        raise Problem(f"run {printable(name)}", "there is no such run to wait for", "`finetui runs` lists them.")


def refuse_circle(name: str, after: str, others: Mapping[str, str]) -> None:
    """Raises Problem where the run called `name` would wait for itself; `others` says whom the others wait for."""
    seen = [name]
    while after and after not in seen:
        seen.append(after)
        after = others.get(after, "")
    if after == name:
        way = " waits for ".join([*seen, name])
        raise Problem(name, f"would wait for itself: {way}", "Let it come after another run, or after none.")


def called(name: str) -> str:
    """A run's name as a sentence has it: the one its person gave, where no other run has that, too."""
    run = RunDirectory(runs_root() / name)
    same = sum(other.spec_name == run.spec_name for other in list_runs())
    return run.spec_name if same <= 1 else name
