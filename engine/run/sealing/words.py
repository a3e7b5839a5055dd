"""What a `seal` event says in one sentence: what keeps the worker from the network, and how that was tried."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from engine.run.sealing.trial import Prepared
from engine.seal.report import SealReport
from profiles.problem import printable

_MOST_NAMED = 5


def seal_text(report: SealReport, prepared: Prepared, changed: Sequence[str]) -> str:
    """`changed`: what the kernel says otherwise than `report`."""
    if report.level == "off":
        return 'not sealed (privacy.seal = "off")'
    if report.inherited:
        parts = ["sealed by what started finetui, which was not looked at"]
    elif not report.held:
        parts = ["not sealed: no layer holds on this machine"]
    else:
        parts = [f"{'sealed in part' if report.missing else 'sealed'}: {', '.join(report.held)}"]
    parts += [f"{each.layer} is missing: {printable(each.why, 300)}" for each in report.missing]
    # A layer that holds may still lack a part, on an older kernel.
    parts += [f"{each.layer} in part: {printable(each.why, 300)}" for each in report.layers if each.held and each.why]
    parts.append(_probes_text(prepared))
    parts += [f"but {printable(each, 200)}" for each in changed]
    return "; ".join(parts)


def _probes_text(prepared: Prepared) -> str:
    probes = prepared.probes
    if probes is None:
        return f"not tried ({printable(prepared.untried, 200)})"
    text = f"{probes['refused']} of {probes['tried']} probes refused"
    if open_ones := probes["open"]:
        text += f", open: {names(open_ones)}"
    if probes["hits"]:
        text += f", the listener outside was reached {probes['hits']:,} times"
    if not probes["control"]:
        text += ", but the listener was not reached from outside either, so that this proves nothing"
    return text


def names(answers: Sequence[Mapping[str, Any]]) -> str:
    """Of probes, the first few."""
    first = ", ".join(printable(each["name"], 60) for each in answers[:_MOST_NAMED])
    return first if len(answers) <= _MOST_NAMED else f"{first} and {len(answers) - _MOST_NAMED} more"
