"""The README.md beside an exported model: what it is, how it was made, how to load it. No torch."""

from __future__ import annotations

from engine.export.loading_code import LOADING, Use
from engine.run.directory import RunDirectory
from engine.run.telemetry.metric_names import metric_name
from engine.run.telemetry.reading import read_state
from engine.spec import MethodSection

_LIBRARY = {"writes": "transformers", "classification": "transformers", "embedding": "sentence-transformers"}


def write_card(run: RunDirectory, to: str) -> str:
    """Markdown for an export of `run` as `to` ("adapter" or "merged").

    It names the base by its folder's name alone and the data not at all: a card travels further than the
    machine's paths should.
    """
    spec, state = run.spec(), read_state(run)
    base = spec.model.path.name
    kind = spec.objective.kind
    use: Use = kind if kind == "classification" or kind == "embedding" else "writes"
    rows = [
        ("Base model", base),
        ("Method", _method(spec.method)),
        ("Learnt", kind.replace("_", " ")),
        ("Optimizer steps", f"{state.step:,}"),
        (
            "Rows learned from",
            f"{state.plan['train_rows']:,}" if "train_rows" in state.plan else "not recorded",
        ),
        ("Learning rate", f"{spec.optimizer.learning_rate:g}"),
        ("Seed", str(spec.train.seed)),
        ("Run", run.name),
    ]
    before, after = state.evaluation("before"), state.evaluation("after")
    for label, name, form in (
        ("Held-out loss", "held_out_loss", ".3f"),
        ("Exact match", "exact_match", ".1%"),
    ):
        values = [getattr(each, name) if each else None for each in (before, after)]
        if values[1] is not None:
            was = "not measured" if values[0] is None else format(values[0], form)
            rows.append((label, f"{was} before, {values[1]:{form}} after"))
    measured = [dict(each.metrics) if each else {} for each in (before, after)]
    for name, value in measured[1].items():
        was = f"{measured[0][name]:.3f} before, " if name in measured[0] else ""
        words = metric_name(name)
        rows.append((words[0].upper() + words[1:], f"{was}{value:.3f} after"))
    lines = [
        "---",
        f"library_name: {'peft' if to == 'adapter' else _LIBRARY[use]}",
        "tags: [finetui]",
        "---",
        "",
    ]
    lines += [f"# {spec.name}", "", f"{base}, fine-tuned with finetui.", "", "| | |", "|---|---|"]
    lines += [f"| {label} | {value} |" for label, value in rows]
    if to == "merged" and spec.method.kind == "qlora":
        lines += [
            "",
            "It was trained over 4-bit weights and merged into the unquantised ones, "
            "so its answers may differ a little from those seen during the run.",
        ]
    lines += ["", "```python", LOADING[use, to].format(base=base), "```", ""]
    return "\n".join(lines)


def _method(method: MethodSection) -> str:
    if method.kind == "full":
        return "full: every weight was trained"
    if method.kind == "partial":
        return f"partial: the last {method.trained_layers} decoder layers and the final norm were trained"
    name = {"lora": "LoRA", "qlora": "QLoRA (over 4-bit weights)"}[method.kind]
    targets = method.targets if isinstance(method.targets, str) else ", ".join(method.targets)
    return f"{name}, rank {method.rank}, alpha {method.alpha:g}, on {targets}"
