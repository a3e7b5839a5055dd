"""How a bar's cells are shared out among what takes the memory: the same for the app's bars and the commands'."""

from __future__ import annotations

from collections.abc import Mapping

COMPONENTS = ("weights", "adapters", "gradients", "optimizer", "activations", "loss", "context")
"""In the order drawn; `ours` and `used` stand for a run or a machine of which only the sum is known."""
DRAWN = (*COMPONENTS, "ours", "used", "others")
LETTERS = {
    "weights": "W",
    "adapters": "A",
    "gradients": "G",
    "optimizer": "O",
    "activations": "V",
    "loss": "L",
    "context": "C",
    "ours": "#",
    "used": "=",
    "others": "x",
}
ZOOM = 4
"""A run that takes a small part of a large memory is drawn against at most so many times its own peak."""


def drawn_amounts(components: Mapping[str, int], others_bytes: int = 0) -> dict[str, int]:
    """What a bar shows of `components` (bytes by name) and of others' use, in the order drawn, without zeros."""
    amounts = {**{name: components.get(name, 0) for name in DRAWN}, "others": others_bytes}
    return {name: amount for name, amount in amounts.items() if amount > 0}


def share_out(amounts: Mapping[str, int], total: int, cells: int) -> dict[str, int]:
    """How many of `cells` each amount gets; the sum is the rounded sum's, and nothing above zero vanishes."""
    scale = max(total, sum(amounts.values()), 1)
    shares: dict[str, int] = {}
    reached_bytes, reached_cells = 0, 0
    for index, (name, amount) in enumerate(amounts.items(), start=1):
        reached_bytes += amount
        # One cell at least for each part that is still to come.
        most = max(cells - (len(amounts) - index), 0)
        edge = max(min(max(round(reached_bytes / scale * cells), reached_cells + 1), most), reached_cells)
        shares[name], reached_cells = edge - reached_cells, edge
    return shares


def lettered_bar(
    components: Mapping[str, int], total: int, width: int, *, others_bytes: int = 0, cut: bool = False
) -> str:
    """The bar as plain text of exactly `width` characters, a letter a component; `cut` as in the app's bar."""
    inner = max(1, width - 2)
    shares = share_out(drawn_amounts(components, others_bytes), total, inner)
    letters = "".join(LETTERS[name] * count for name, count in shares.items())
    return f"▐{letters.ljust(inner, '·')}{'…' if cut else '▌'}"
