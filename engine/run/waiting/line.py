"""The line of each device: the runs that wait for it, one behind the other, and how one is moved in it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, get_args

from engine.run.directory import RunDirectory, disk_problem, runs_root
from engine.run.telemetry.reading import read_state
from engine.run.waiting.claims import Claim, left_claim, live_claims, write_claim
from engine.run.waiting.neighbours import Neighbour
from engine.run.waiting.order import holding_the_line, in_order, read_order, write_order
from engine.run.waiting.predecessor import has_ended, refuse_circle
from profiles.problem import Problem

To = Literal["first", "sooner", "later", "last"]
MOVES: tuple[To, ...] = get_args(To)


@dataclass(frozen=True, slots=True)
class Waiting:
    """A run in the line of its device, at `place` from 1 on. `why` says what it waits for, but for those before it."""

    run: RunDirectory
    place: int
    device: str
    needed_bytes: int
    why: str
    after: str = ""
    """The name of the run that is to end first, if there is one."""


@dataclass(frozen=True, slots=True)
class Standing:
    """Where a run stands in its line: at `place` from 1 on, behind the runs `ahead` that would be started before it.
    Those that wait for another run to end let it by."""

    place: int
    ahead: tuple[RunDirectory, ...]


def waiting_line() -> list[Waiting]:
    """All runs that wait, device by device, each line in its order. Raises Problem when the runs cannot be read."""
    pairs = _in_line(live_claims())
    found = []
    for device in sorted({claim.device for _, claim in pairs}):
        line = [(run, claim) for run, claim in pairs if claim.device == device]
        for place, (run, claim) in enumerate(line, start=1):
            found.append(Waiting(run, place, device, claim.needed_bytes, _why(run), claim.after))
    return found


def move(run: RunDirectory, to: To) -> int:
    """Move a waiting run in its device's line; returns its place now, from 1 on. Raises Problem when it does not wait,
    or the new order cannot be written."""
    try:
        with holding_the_line():
            order = read_order()
            pairs = _in_line(live_claims(), order)
            device = next((claim.device for other, claim in pairs if other.name == run.name), None)
            if device is None:
                raise Problem(run.name, "does not wait in the queue", "`finetui queue` shows the runs that do.")
            line = [other.name for other, claim in pairs if claim.device == device]
            moved = _moved(line, run.name, to)
            if moved != line:
                everyone = dict.fromkeys([*order, *(other.name for other, _ in pairs)])
                new = iter(moved)
                write_order([next(new) if name in line else name for name in everyone])
            return moved.index(run.name) + 1
    except BlockingIOError as error:
        raise Problem(run.name, f"could not be moved: {error.strerror}", "Try again.") from None
    except OSError as error:
        raise disk_problem(runs_root(), error) from None


def join(run: RunDirectory, claim: Claim) -> Claim:
    """Let `run` wait with `claim`, behind all others; one whose engine died while it waited keeps its place, and one
    whose engine died later, when its turn had come, is the first. Returns its claim. Raises Problem where it would wait
    for itself, OSError."""
    try:
        with holding_the_line():
            others = [pair for pair in live_claims(run) if pair[1].waiting]
            refuse_circle(run.name, claim.after, {other.name: each.after for other, each in others})
            order, left = read_order(), left_claim(run)
            if left is None or not left.waiting:
                order = [name for name in order if name != run.name]
            if left is not None and not left.waiting:
                order = [run.name, *order]
            if left is None:  # a clock that was set back makes nobody older than those before it
                claim = replace(claim, since=max([claim.since, *(each.since + 1e-3 for _, each in others)]))
            write_claim(run, claim)
            names = [other.name for other, _ in _in_line(others, order)]
            write_order(list(dict.fromkeys([*order, *names, run.name])))
    except BlockingIOError:
        write_claim(run, claim)  # without a word in the order it stands by its age
    return claim


def standing(run: RunDirectory, claim: Claim, around: Sequence[Neighbour]) -> Standing:
    """Where `run`, which waits with `claim`, stands among those `around` it, for its own engine. Raises OSError."""
    others = [(each.run, each.claim) for each in around if each.claim is not None and each.waits_for(claim.device)]
    line = _in_line([*others, (run, claim)])
    mine = [other.name for other, _ in line].index(run.name)
    ahead = [other for other, each in line[:mine] if not each.after or has_ended(each.after, asking=run.name)]
    return Standing(mine + 1, tuple(ahead))


def _in_line(
    claims: Sequence[tuple[RunDirectory, Claim]], order: Sequence[str] | None = None
) -> list[tuple[RunDirectory, Claim]]:
    """Those of `claims` that wait, in their order, of all devices together."""
    waiting = [pair for pair in claims if pair[1].waiting]
    return sorted(waiting, key=in_order(read_order() if order is None else order))


def _moved(line: Sequence[str], name: str, to: To) -> list[str]:
    was = line.index(name)
    place = {"first": 0, "sooner": max(0, was - 1), "later": was + 1, "last": len(line)}[to]
    rest = [other for other in line if other != name]
    return [*rest[:place], name, *rest[place:]]


def _why(run: RunDirectory) -> str:
    """As the run itself last said."""
    try:
        queued = read_state(run).queued
    except OSError:
        return ""
    return str(queued.get("why") or queued.get("text") or "")
