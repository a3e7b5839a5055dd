"""The README.md beside an exported model: what it is, how it was made and under which seal, how to load it. No torch.

Written from the run's spec, journal, lineage and audit log. A card travels further than the machine's paths should: it
tells what the data were by kind and count, and neither their paths and names nor their hashes unless asked. The run's
name is one of those, since it is made from the first data file's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from engine.data.shapes import KIND_WORDS
from engine.export.cleaning import model_name
from engine.export.loading_code import LOADING, Use
from engine.run.directory import RunDirectory
from engine.run.evidence.audit import read_audit
from engine.run.evidence.lineage import read_lineage
from engine.run.telemetry.events import RunState
from engine.run.telemetry.metric_names import metric_name
from engine.run.telemetry.reading import read_state
from engine.spec import MethodSection, RunSpec
from profiles.problem import printable

_LIBRARY = {"writes": "transformers", "classification": "transformers", "embedding": "sentence-transformers"}
_PERSONAL = {"mask": "personal data found in it was masked", "pseudonymise": "personal data found in it got pseudonyms"}
_DUPLICATES = {"drop_exact": "exact copies of rows were dropped", "drop_near": "near copies of rows were dropped"}

Row = tuple[str, str]


def write_card(run: RunDirectory, to: str, *, with_sources: bool = False) -> str:
    """Markdown for an export of `run` as `to` ("adapter" or "merged"); `with_sources` names the run, the data files and
    their hashes. Raises Problem for a damaged spec, OSError."""
    spec, state, lineage = run.spec(), read_state(run), read_lineage(run)
    base = model_name(spec.model.path)
    kind = spec.objective.kind
    use: Use = kind if kind == "classification" or kind == "embedding" else "writes"
    lines = [
        *("---", f"library_name: {'peft' if to == 'adapter' else _LIBRARY[use]}", "tags: [finetui]", "---", ""),
        *(f"# {spec.name if with_sources else base + ', fine-tuned'}", "", f"{base}, fine-tuned with finetui.", ""),
        *_table(_made(run, spec, state, base, with_sources)),
    ]
    if to == "merged" and spec.method.kind == "qlora":
        lines += [
            "",
            "It was trained over 4-bit weights and merged into the unquantised ones, "
            "so its answers may differ a little from those seen during the run.",
        ]
    sections = {
        "What it learnt from": _whole(lambda: _data(lineage.get("data"), with_sources)),
        "What was measured": _table(list(_measured(state))),
        "Where it learnt": _whole(lambda: _where(lineage, state)),
        "How it is loaded": ["```python", LOADING[use, to].format(base=base), "```"],
    }
    for title, told in sections.items():
        lines += ["", f"## {title}", "", *told] if told else []
    return "\n".join([*lines, ""])


def _whole(tell: Callable[[], Iterator[str]]) -> list[str]:
    """What is told of a part of the lineage, which anybody may have changed since."""
    try:
        return list(tell())
    except (KeyError, TypeError, ValueError, AttributeError):
        return ["The lineage that should tell is damaged."]


def _made(run: RunDirectory, spec: RunSpec, state: RunState, base: str, with_sources: bool) -> list[Row]:
    rows = [
        ("Base model", base),
        ("Method", _method(spec.method)),
        ("Learnt", spec.objective.kind.replace("_", " ")),
        ("Optimizer steps", f"{state.step:,}"),
        ("Rows learned from", f"{state.plan['train_rows']:,}" if "train_rows" in state.plan else "not recorded"),
        ("Learning rate", f"{spec.optimizer.learning_rate:g}"),
        ("Seed", str(spec.train.seed)),
    ]
    if with_sources:
        rows.append(("Run", run.name))
    chain = read_audit(run)
    if chain.entries:
        rows.append(("Audit log", f"entry {chain.entries[-1].n:,}, `{chain.head}`"))
    return rows


def _data(data: Any, with_sources: bool) -> Iterator[str]:
    """By kind and count; the sources one by one only when asked."""
    if not isinstance(data, Mapping):
        return
    sources = [source for source in data["sources"] if not source["is_held_out"]]
    rows, tokens = sum(source["rows"] for source in sources), data["train_tokens"]
    files = f"{len(sources)} source{'s' if len(sources) != 1 else ''}"
    formats = ", ".join(dict.fromkeys(source["format"] for source in sources))
    words = str(KIND_WORDS.get(data["kind"], data["kind"]))
    yield (
        f"{words[:1].upper()}{words[1:]}: {rows:,} rows from {files} ({formats}), {tokens:,} tokens. "
        f"{data['train_examples']:,} examples were learnt from and {data['held_out_examples']:,} held out."
    )
    set_aside = sum(source["set_aside"] for source in sources)
    found = (_PERSONAL.get(data["personal"]), _DUPLICATES.get(data["duplicates"]))
    done = [text for text in found if text]
    if set_aside:
        done.append(f"{set_aside:,} rows were set aside")
    if done:
        told = "; ".join(done)
        yield ""
        yield f"{told[:1].upper()}{told[1:]}."
    if with_sources:
        yield ""
        yield from _table(
            [
                (_cell(source["path"]), f"{source['size_bytes']:,} bytes, SHA-256 `{source['sha256']}`")
                for source in data["sources"]
            ]
        )


def _measured(state: RunState) -> Iterator[Row]:
    before, after = state.evaluation("before"), state.evaluation("after")
    for label, name, form in (("Held-out loss", "held_out_loss", ".3f"), ("Exact match", "exact_match", ".1%")):
        values = [getattr(each, name) if each else None for each in (before, after)]
        if values[1] is not None:
            was = "not measured" if values[0] is None else format(values[0], form)
            yield label, f"{was} before, {values[1]:{form}} after"
    measured = [dict(each.metrics) if each else {} for each in (before, after)]
    for name, value in measured[1].items():
        was = f"{measured[0][name]:.3f} before, " if name in measured[0] else ""
        words = metric_name(name)
        yield words[:1].upper() + words[1:], f"{was}{value:.3f} after"


def _where(lineage: Mapping[str, Any], state: RunState) -> Iterator[str]:
    """With what, and what kept it from the network meanwhile."""
    environment = lineage.get("environment")
    if isinstance(environment, Mapping):
        names = ("finetui", "torch", "transformers", "peft", "bitsandbytes", "device", "dtype")
        yield from _table([(name, _cell(environment[name])) for name in names if name in environment])
        yield ""
    yield from _seal(lineage.get("seal"), state)


def _seal(attempts: Any, state: RunState) -> Iterator[str]:
    """What is said of the seal is what was measured: which layers the kernel reported, and how they were tried."""
    if not isinstance(attempts, list) or not attempts:
        yield "What kept it from the network while it learnt was not recorded."
        return
    told = list(dict.fromkeys(map(_seal_text, attempts)))
    if len(told) > 1:
        yield f"It learnt in {len(attempts)} attempts, which were not all sealed alike:"
        yield ""
        yield from (f"- {text}" for text in told)
    else:
        yield told[0]
    yield ""
    changed = "; ".join(_cell(each) for each in state.seal_changed)
    found = f"It was no longer as it was: {changed}." if changed else "It was unchanged."
    checks = f"The kernel was asked about the last attempt's seal {_more_times(state.seal_checks)}. {found}"
    tried = f"Something within tried {_times(state.ways_out_tried)} to reach the network, and was refused."
    yield " ".join(([checks] if state.seal_checks else []) + ([tried] if state.ways_out_tried else []))


def _more_times(count: int) -> str:
    return "once more" if count == 1 else f"{count:,} more times"


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count:,} times"


def _seal_text(attempt: Mapping[str, Any]) -> str:
    if attempt["level"] == "off":
        return "The process that learnt was not sealed: the network was open to it, by the wish of its person."
    held = [layer["layer"] for layer in attempt["layers"] if layer["held"]]
    missing = [layer["layer"] for layer in attempt["layers"] if not layer["held"]]
    kept = f"The process that learnt was kept from the network by these layers of the kernel: {', '.join(held)}."
    told = [kept if held else "No layer of the kernel kept the process that learnt from the network."]
    if missing:
        told.append(f"Missing: {', '.join(missing)}.")
    probes = attempt["probes"]
    if not probes:
        return " ".join([*told, "The seal was not tried."])
    tried, refused = probes["tried"], probes["refused"]
    which = "all were refused" if refused == tried else f"{refused:,} {'was' if refused == 1 else 'were'} refused"
    told.append(f"Before it began, {tried:,} ways out were tried from within; {which}.")
    if probes.get("control"):
        hits = probes["hits"]
        counted = f"reached {_times(hits)}" if hits else "never reached"
        told.append(f"A listener outside, which had been reached without the seal, was {counted} from within.")
    if probes.get("open"):
        told.append(f"Open: {', '.join(_cell(each['name']) for each in probes['open'])}.")
    return " ".join(told)


def _method(method: MethodSection) -> str:
    if method.kind == "full":
        return "full: every weight was trained"
    if method.kind == "partial":
        return f"partial: the last {method.trained_layers} decoder layers and the final norm were trained"
    name = {"lora": "LoRA", "qlora": "QLoRA (over 4-bit weights)"}[method.kind]
    targets = method.targets if isinstance(method.targets, str) else ", ".join(method.targets)
    return f"{name}, rank {method.rank}, alpha {method.alpha:g}, on {targets}"


def _table(rows: list[Row]) -> list[str]:
    return ["| | |", "|---|---|", *(f"| {label} | {value} |" for label, value in rows)] if rows else []


def _cell(text: object) -> str:
    """Text that a table's cell holds whatever is in it."""
    return printable(text, 300).replace("|", "\\|").replace("`", "'")
