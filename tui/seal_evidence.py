"""What the seal of a run rests on, in rows of words: its layers, its trial, what the kernel says, what was tried."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from engine.seal.standing import refused_since, standing_of
from profiles.problem import printable
from tui.format import counted, duration_text, moment_text
from tui.seal_words import LEVEL_WORDS, times_words

if TYPE_CHECKING:
    from engine.run.telemetry.events import RunState

Row = tuple[str, str]
"""A label and what there is to say under it."""

LAYER_WORDS = {
    "namespace": "a network of its own without a way out, and only the files it needs",
    "landlock": "the kernel refuses every other file",
    "seccomp": "the kernel refuses the calls by which sockets are made",
}
_DETAIL_LABELS = {"abi": "version", "users": "own users", "closed": "refused", "sha256": "SHA-256"}
# The capabilities that a trainer of root may keep, so that it reads what root reads; any other is told by its number.
_CAPABILITIES = {0: "chown", 1: "dac_override", 2: "dac_read_search", 3: "fowner"}
ANSWER_WORDS = "a word such as EACCES is the kernel's own for how it refused"
_LONGEST = 300
_LONGEST_LIST = 2000
_NOT_READ = "not read"
_MOST = 6
"""Capabilities that are named."""


def summary_rows(state: RunState) -> list[Row]:
    """What was asked for, and where there is a seal what it took and how often the kernel was asked again."""
    level = str(state.seal.get("level"))
    standing = standing_of(state.seal)
    rows = []
    if standing is not None and refused_since(standing, state.cause):
        rows.append(("before that", f"attempt {state.seal.get('number')} trained; what follows is of its seal"))
    rows.append(("level", f"{level}: {LEVEL_WORDS.get(level, '')}"))
    return rows if level == "off" else [*rows, _took_row(state.seal), _checks_row(state)]


def layer_rows(layer: Mapping[str, Any]) -> list[Row]:
    """Whether a layer holds, with what it did; or why it does not, and what may be done about that."""
    name = str(layer.get("layer"))
    if not layer.get("held"):
        rows = [(name, f"missing: {_line(layer.get('why')) or 'nobody said why'}")]
        return [*rows, ("fix", _line(layer["fix"]))] if layer.get("fix") else rows
    rows = [(name, f"holds: {LAYER_WORDS.get(name, '')} ({float(layer.get('milliseconds') or 0):.1f} ms)")]
    rows += [("", f"in part: {_line(layer['why'])}")] if layer.get("why") else []
    return rows + [_detail_row(key, value) for key, value in (layer.get("detail") or {}).items()]


def _detail_row(key: str, value: object) -> Row:
    """What a layer did, in words where its own name for it says little."""
    if key == "masked":
        return "  hidden", "every file that is not shown" if value == ["/"] else _value(value)
    if key == "told" and isinstance(value, bool):
        return "  tries", "counted" if value else "not counted: this kernel tells of none"
    return f"  {_DETAIL_LABELS.get(key) or _label(key)}", _value(value)


def trial_rows(seal: Mapping[str, Any]) -> list[Row]:
    """How the seal was tried from within, and what came of it."""
    probes = seal.get("probes")
    if not probes:
        return [("probes", "none were tried")]
    standing = standing_of(seal)
    assert standing is not None
    took = f", in {float(probes.get('seconds') or 0):.1f} s"
    reached = "reached" if standing.control else "not reached"
    rows = [
        ("probes", f"{standing.tried} tried, {standing.refused} refused, {len(standing.open)} open{took}"),
        ("listener", f"{reached} from outside the seal; {times_words(standing.hits)} from within"),
    ]
    for name, label in (("skipped", "not tried"), ("broken", "does not work")):
        told = [f"{_line(each.get('name'))} ({_line(each.get('answer'))})" for each in probes.get(name) or ()]
        rows += [(label, ", ".join(told))] if told else []
    return rows


def answers(seal: Mapping[str, Any]) -> list[tuple[str, str, bool]]:
    """Each probe with the answer that it got and whether it was refused, those that were not refused first."""
    probes = seal.get("probes") or {}
    open_ways = {_line(each.get("name")): _line(each.get("answer")) for each in probes.get("open") or ()}
    told = {_line(name): _line(answer) for name, answer in (probes.get("answers") or {}).items()}
    rest = [(name, answer, True) for name, answer in told.items() if name not in open_ways]
    return [*((name, answer, False) for name, answer in open_ways.items()), *rest]


def evidence_rows(evidence: Mapping[str, Any]) -> list[Row]:
    """What the kernel's files said of the trainer. What a newer finetui read besides is told by its own names."""
    if not evidence:
        return []
    known = {
        "pid": lambda value: ("process", str(value)),
        "no_new_privs": lambda value: ("new rights", _told(value, "cannot be gained", "can be gained")),
        "seccomp": lambda value: ("calls", _told(value, f"filtered by seccomp{_filters(evidence)}", "not filtered")),
        "capabilities": lambda value: ("capabilities", _capabilities(value)),
        "namespaces": lambda value: ("namespaces", _namespaces(value)),
        "interfaces": lambda value: ("interfaces", ", ".join(map(_line, value)) or "the machine's"),
        "routes_out": lambda value: ("routes out", _routes(value, evidence)),
        "packets_out": lambda value: ("packets out", "not told apart" if value is None else f"{value:,}"),
        "counters": lambda value: ("counters", _counters(value)),
        "processes": lambda value: ("processes", f"{value:,} looked at"),
        "strays": lambda value: ("not sealed", "; ".join(map(_line, value)) or "none of them"),
        "unread": lambda value: ("not read", "; ".join(map(_line, value))),
    }
    rows = []
    for name, value in evidence.items():
        if name == "seccomp_filters" or (name == "unread" and not value):
            continue
        try:
            rows.append(known[name](value) if name in known else (_label(name), _value(value)))
        except (TypeError, ValueError, AttributeError):
            rows.append((_label(name), _value(value)))
    return rows


def _checks_row(state: RunState) -> Row:
    """How often the kernel was asked again, and what it then said."""
    last = last_check(state)
    if not state.seal_checks:
        return "checked", "not again since the start"
    when = f", {'the last time ' if state.seal_checks > 1 else ''}{_when(last)}" if last else ""
    changed = _line("; ".join(state.seal_changed), _LONGEST_LIST)
    found = f"no longer as it was: {changed}" if changed else "nothing changed"
    return "checked", f"{times_words(state.seal_checks)} since the start{when}: {found}"


def last_check(state: RunState) -> Mapping[str, Any]:
    """The fields of the last `seal_check` event since the attempt began; empty where there was none."""
    return state.seal_last_check


def _when(check: Mapping[str, Any]) -> str:
    at = f" ({moment_text(check['at'])})" if check.get("at") is not None else ""
    if check.get("when") == "end":
        return f"at the end{at}"
    return f"at the checkpoint of step {check['step']:,}{at}" if isinstance(check.get("step"), int) else f"later{at}"


def _took_row(seal: Mapping[str, Any]) -> Row:
    """What sealing cost, and what trying it did."""
    tried = (seal.get("probes") or {}).get("seconds")
    trial = f", trying it {duration_text(tried) if tried >= 10 else f'{tried:.1f} s'}" if tried is not None else ""
    return "took", f"{float(seal.get('milliseconds') or 0):.1f} ms{trial}"


def _told(value: object, yes: str, no: str) -> str:
    return _NOT_READ if value is None else yes if value else no


def _filters(evidence: Mapping[str, Any]) -> str:
    filters = evidence.get("seccomp_filters")
    return f", {counted(filters, 'filter')}" if isinstance(filters, int) else ""


def _capabilities(sets: Mapping[str, str]) -> str:
    by_bits: dict[str, list[str]] = {}
    for name, text in sets.items():
        bits = int(text, 16)
        numbers = [bit for bit in range(bits.bit_length()) if bits >> bit & 1]
        more = f" and {len(numbers) - _MOST} more" if len(numbers) > _MOST else ""
        if numbers:
            shown = ", ".join(_CAPABILITIES.get(bit, str(bit)) for bit in numbers[:_MOST]) + more
            by_bits.setdefault(shown, []).append(name)
    return "; ".join(f"{shown} ({', '.join(names)})" for shown, names in by_bits.items()) or "none"


def _counters(counters: Mapping[str, int]) -> str:
    """Those that counted something; what was never sent is told by their number alone."""
    counted_up = {name: count for name, count in counters.items() if count}
    still = len(counters) - len(counted_up)
    told = [f"{_line(name)} {count:,}" for name, count in counted_up.items()]
    told += [f"{counted(still, 'counter')} at 0"] if still else []
    return ", ".join(told) or "none read"


def _namespaces(namespaces: Mapping[str, Mapping[str, Any]]) -> str:
    own = [name for name, each in namespaces.items() if each.get("apart")]
    shared = [name for name, each in namespaces.items() if not each.get("apart")]
    words = f"its own: {', '.join(own)}" if own else "none of its own"
    return f"{words}; shared with the machine: {', '.join(shared)}" if shared else words


def _routes(routes: list[str], evidence: Mapping[str, Any]) -> str:
    if routes:
        return "; ".join(map(_line, routes))
    apart = (evidence.get("namespaces") or {}).get("net", {}).get("apart")
    return "none" if apart else "the machine's"


def _label(name: object) -> str:
    return _line(name).replace("_", " ")


def _value(value: object) -> str:
    if isinstance(value, Mapping):
        return _line(", ".join(f"{_label(name)} {_value(each)}" for name, each in value.items()))
    if isinstance(value, list | tuple):
        return _line(", ".join(_value(each) for each in value), _LONGEST_LIST) or "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return _line(f"{value:,}" if isinstance(value, int) else _NOT_READ if value is None else value)


def _line(value: object, longest: int = _LONGEST) -> str:
    return printable(" ".join(str(value or "").split()), longest)
