"""The order in which runs go on that were interrupted all at once, by a restart of the machine."""

from __future__ import annotations

from collections.abc import Sequence

from engine.run.directory import RunDirectory
from engine.run.waiting.claims import Claim, left_claim
from engine.run.waiting.order import in_order, read_order


def waited(run: RunDirectory) -> bool:
    """Whether a run whose engine is gone waited in the queue until its engine died."""
    return (claim := left_claim(run)) is not None and claim.waiting


def in_order_of_return(runs: Sequence[RunDirectory]) -> list[tuple[RunDirectory, bool]]:
    """`runs`, whose engines are gone, in the order to resume them in, each with whether it is to wait again.

    First those that trained, in the order given; then those that waited, in the order of the line, but each behind the
    one that it comes after: that its engine is gone must not count as its end."""
    claims = {run.name: (run, claim) for run in runs if (claim := left_claim(run)) is not None and claim.waiting}
    trained = [(run, False) for run in runs if run.name not in claims]
    found: dict[str, RunDirectory] = {}
    for run, claim in sorted(claims.values(), key=in_order(read_order())):
        for name in reversed(_chain(run.name, claim, claims)):
            found.setdefault(name, claims[name][0])
    return trained + [(run, True) for run in found.values()]


def _chain(name: str, claim: Claim, claims: dict[str, tuple[RunDirectory, Claim]]) -> list[str]:
    """The run called `name`, the one that it comes after, the one that this comes after, as far as they wait."""
    chain = [name]
    while claim.after in claims and claim.after not in chain:
        chain.append(claim.after)
        claim = claims[claim.after][1]
    return chain
