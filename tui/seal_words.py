"""What keeps a run's data on this machine, in words: the same on the screens and in the commands.

A claim says only what was measured: which layers hold, how many ways out were tried and refused, how often something
tried. Where the trial says nothing, nothing is claimed, and only what was proven has the colour of what is good.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from engine.seal.request import LAYERS
from engine.seal.standing import Standing, refused_since, standing_of
from profiles.problem import Problem, printable
from tui.format import counted
from tui.run_words import times_text

if TYPE_CHECKING:
    from engine.run.telemetry.events import RunState
    from engine.seal.ability import Ability
    from tui.theme import Look

WORDS = {
    "sealed": "sealed",
    "in part": "sealed in part",
    "none": "not sealed",
    "off": "not sealed",
    "refused": "not trained",
    "within": "seal not known",
    "unproven": "seal not proven",
    "open": "seal open",
    "changed": "seal changed",
    "": "seal not known",
}
"""By the name of the standing; "" stands for runs of an older finetui."""
GLYPHS = {
    "sealed": ("▣", "="),
    "in part": ("◧", "%"),
    "none": ("□", "_"),
    "off": ("□", "_"),
    "refused": ("□", "_"),
    "within": ("?", "?"),
    "unproven": ("?", "?"),
    "open": ("▲", "!"),
    "changed": ("▲", "!"),
    "": ("?", "?"),
}
"""By the same names; the second where only ASCII can be drawn."""
LONGEST_WHY = 200
LEVEL_WORDS = {
    "required": "nothing is trained unless every layer holds",
    "best": "with the layers that hold here",
    "off": "nothing keeps the trainer from the network but the libraries' own switches",
}
LEVEL_QUESTION = "How is the trainer to be sealed?"
OFF_QUESTION = "Train without the seal?"
OFF_DETAIL = (
    "Without the seal, nothing keeps the trainer from the network or from your other files but the libraries' own "
    "switches. That is recorded with the run."
)


@dataclass(frozen=True, slots=True)
class SealWords:
    """A run's seal in words."""

    name: str
    """The standing's, a key of WORDS."""
    word: str
    text: str
    """The line, as long as it need be."""
    short: str
    """The same for a narrow screen."""
    attempts: int
    """How often something within tried to get out, over all attempts."""


def seal_words(state: RunState) -> SealWords | None:
    """The seal of a run's last attempt; None as long as it was not yet made."""
    attempts = state.ways_out_tried
    standing = standing_of(state.seal, state.seal_changed)
    if state.tests_seal and not (standing is not None and standing.fault):
        return None
    if standing is None or int(state.seal.get("number") or 0) < state.attempts:
        if not _is_past_sealing(state):
            return None
        word = WORDS[""]
        return SealWords("", word, f"{word}: its journal does not tell of one", word, attempts)
    if refused_since(standing, state.cause):
        word = f"{WORDS['refused']} further"
        short = f"{word}: the seal is required, and did not hold"
        return SealWords("refused", word, f"{word}: {_one_line(state.why, 2 * LONGEST_WHY)}", short, attempts)
    word = WORDS[standing.name]
    if standing.name == "off":
        return SealWords("off", word, f'{word}: privacy.seal = "off"', f"{word}: it was turned off", attempts)
    told, brief = _told(standing)
    is_counted = attempts or _kernel_tells(standing)
    count = f"{counted(attempts, 'attempt')}, {_refused(standing)}" if is_counted else _refused(standing)
    return SealWords(standing.name, word, f"{word}: {told}; {count}", f"{word}: {brief}; {count}", attempts)


def none_tried_words(state: RunState) -> str:
    """What it means that no try to get out of the run's last seal was heard of."""
    standing = standing_of(state.seal, state.seal_changed)
    if standing is not None and _kernel_tells(standing):
        return "none"
    if standing is None or standing.level == "off":
        return "nobody listened for any"
    return "none in Python; without seccomp the kernel tells of no other"


def _kernel_tells(standing: Standing) -> bool:
    """Without seccomp it tells of no try, so that none having been heard of says nothing."""
    return "seccomp" in standing.held


def seal_faults(state: RunState) -> list[str]:
    """What the seal let through, or what of it is not as it was; nothing where it keeps what it promised."""
    standing = standing_of(state.seal, state.seal_changed)
    return [standing.fault] if standing is not None and standing.fault else []


def _is_past_sealing(state: RunState) -> bool:
    """Whether the last attempt came further than where it would have told of its seal."""
    return bool(state.attempts) and (state.outcome is not None or state.phase not in ("preparing", "queued"))


def _told(standing: Standing) -> tuple[str, str]:
    """What follows the word, long and short."""
    if standing.name == "within":
        return "finetui was started within a seal, which was not looked at", "that of what started finetui"
    if standing.fault:
        return standing.fault, standing.fault
    held = ", ".join(standing.held)
    # A layer that holds may still lack a part, on an older kernel.
    in_part = [each["layer"] for each in standing.lacking]
    gaps = [f"{each['layer']} in part ({_one_line(each['why'])})" for each in standing.lacking]
    gaps = [*([missing_words(standing.missing)] if standing.missing else []), *gaps]
    without = f"no {' or '.join(each['layer'] for each in standing.missing)}"
    if standing.name == "sealed":
        return "; ".join([held, *gaps]), f"{' and '.join(in_part)} in part" if in_part else held
    if standing.name == "unproven":
        why = unproven_words(standing)
        return "; ".join([f"{held} said to hold, but {why}", *gaps]), why
    if standing.name == "refused":
        return f"the seal is required, and there is {', '.join(gaps)}", f"required, and {without}"
    if standing.name == "none":
        return ", ".join(gaps), "no layer holds here"
    return "; ".join([held, *gaps]), without


def unproven_words(standing: Standing) -> str:
    """Why nothing is claimed of a seal whose layers hold."""
    if not standing.tried:
        return "no way out was tried"
    if not standing.control:
        return "the listener was not reached from outside either"
    return "the kernel was not asked about the trainer"


def missing_words(layers: Sequence[Mapping[str, Any]]) -> str:
    """Which layers are missing and why: "no namespace (user namespaces are restricted)"."""
    told = ((each["layer"], _one_line(each.get("why"))) for each in layers)
    return ", ".join(f"no {layer} ({why})" if why else f"no {layer}" for layer, why in told)


def _refused(standing: Standing) -> str:
    if not standing.tried:
        return "no probes tried"
    return f"{standing.refused} of {counted(standing.tried, 'probe')} refused"


def times_words(count: int) -> str:
    """ "never", "once", "twice", "41 times"."""
    return times_text(count) if count else "never"


def _one_line(value: object, longest: int = LONGEST_WHY) -> str:
    return printable(" ".join(str(value or "").split()), longest)


def way_out_words(way: Mapping[str, Any]) -> str:
    """A `way_out` event's fields: "connect to 192.0.2.1 port 80, 3 times, at loader.py:41, by python"."""
    words = [_one_line(way["what"]), times_words(int(way["count"]))]
    words += [f"at {where}"] if (where := _one_line(way["where"])) else []
    words += [f"by {process}"] if (process := _one_line(way["process"], 40)) else []
    return ", ".join(words)


def glyph(name: str, look: Look) -> str:
    return look.glyph(*GLYPHS[name])


def style(name: str, look: Look) -> str:
    """How the word for a standing is drawn: good only where all was proven."""
    return {"sealed": look.good, "open": look.bad, "changed": look.bad, "": look.dim, "off": look.warn}.get(
        name, look.warn
    )


# What a machine can hold, and what a level means there


def ability_words(ability: Ability) -> str:
    """What this machine can hold: "seal 3 of 3 layers"."""
    return f"seal {sum(each.held for each in ability.layers)} of {len(ability.layers) or len(LAYERS)} layers"


def level_words(level: str, ability: Ability | None) -> str:
    """What `level` means on a machine that can hold this much (None: not known yet), in one sentence."""
    if level == "off" or ability is None:
        return f"{level}: {LEVEL_WORDS[level]}"
    held = [each.layer for each in ability.layers if each.held]
    missing = [{"layer": each.layer, "why": each.why} for each in ability.layers if not each.held]
    if not missing:
        return f"{level}: all {_number(len(held))} layers hold here"
    if level == "required":
        return f"required: cannot train here: {missing_words(missing)}"
    if not held:
        return f"best: no layer holds here: {missing_words(missing)}"
    return f"best: {' and '.join(held)} {'holds' if len(held) == 1 else 'hold'} here; {missing_words(missing)}"


def level_line(level: str, ability: Ability | None, width: int) -> str:
    """What `level` means here, in at most `width` characters where that can be: without the reasons where those have
    no room."""
    words = level_words(level, ability)
    if len(words) <= width or level == "off" or ability is None or not ability.missing:
        return words
    missing = _names(ability)
    if level == "required":
        return f"required: cannot train here: {missing}"
    return f"best: {', '.join(ability.held)}; {missing}" if ability.held else "best: no layer holds here"


def refusal(level: str, ability: Ability | None, instead: str, explained: bool = False) -> Problem | None:
    """Why a run of this level cannot begin on this machine, so that none is made; None where it can, or where that is
    not known. `instead` says how best is asked for. Where it is `explained` beside it why a layer is missing, and what
    may be done about that, it is not said again."""
    if level != "required" or ability is None or not ability.missing:
        return None
    missing = missing_words([{"layer": each.layer, "why": each.why} for each in ability.missing])
    mend = fix_words(ability) or "Use a machine that has all layers."
    if explained:
        missing, mend = _names(ability), "Mend that, as above." if fix_words(ability) else mend
    without = f"Or train {'with the layers that hold here' if ability.held else 'unsealed'}: {instead}."
    return Problem("privacy.seal", f'is "required", and does not hold here: {missing}', f"{mend} {without}")


def _names(ability: Ability) -> str:
    """The layers that are missing: "no namespace or landlock"."""
    return f"no {' or '.join(each.layer for each in ability.missing)}"


def fix_words(ability: Ability) -> str:
    """What an administrator may do about the layers that are missing; nothing where none is."""
    return " ".join(dict.fromkeys(each.fix for each in ability.layers if not each.held and each.fix))


def _number(count: int) -> str:
    return {2: "two", 3: "three", 4: "four"}.get(count, str(count))
