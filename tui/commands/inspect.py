"""`finetui inspect PATH`: what a model directory or data are, and what is wrong with them."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

from profiles.geometry import Geometry, ModelReport, inspect_model
from profiles.problem import Problem, printable
from profiles.shapes.architectures import FAMILIES
from profiles.shapes.layer_kinds import SLIDING
from tui.commands import inspect_data, status
from tui.commands.output import Output
from tui.format import bytes_text, compact_text, count_text, counted


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("path", metavar="PATH", type=Path, help="a model, or data: a file, a folder, - for stdin")
    inspect_data.add_arguments(parser)
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(arguments: argparse.Namespace, output: Output) -> int:
    path = arguments.path.expanduser()
    if path.is_dir() and arguments.model is None and not inspect_data.is_data(path):
        return _model(_folder_report(path.absolute()), arguments.json, output)
    if str(path) == "-" or path.exists() or path.is_symlink():
        return inspect_data.run(path, arguments, output)
    return _model(_catalogue_report(str(arguments.path)), arguments.json, output)


def _folder_report(path: Path) -> ModelReport:
    report = inspect_model(path)
    if not (path / "config.json").is_file() or not _asks_transformers(report.geometry):
        return report
    from engine.fit.models import find_model

    try:
        return replace(report, geometry=find_model(path))
    except Problem as problem:
        if problem.as_dict() in [each.as_dict() for each in report.problems]:
            return report
        return replace(report, problems=(problem, *report.problems))


def _asks_transformers(geometry: Geometry | None) -> bool:
    """Whether only transformers knows what the folder says: an architecture no formula covers, or towers unseen."""
    if geometry is None or geometry.model_type not in FAMILIES:
        return True
    return geometry.config.vision and geometry.source == "config"


def _catalogue_report(name: str) -> ModelReport:
    """What is known of a model before it is here. Raises Problem for what is neither a path nor in the catalogue."""
    from profiles.model_catalogue import close_names, find_catalogue_model

    model = find_catalogue_model(name)
    if model is None:
        close = close_names(name, 1)
        fix = f"Check the path; or is it {close[0]} of the catalogue?" if close else "Check the path."
        raise Problem(name, "there is no such file or folder", fix)
    note = f"This is what the catalogue knows of {model.name} (licence {model.licence}); it is not on this machine."
    return ModelReport(Path(model.name), model.geometry(), None, False, (), (note,))


def _model(report: ModelReport, as_json: bool, output: Output) -> int:
    if as_json:
        output.json(report.as_dict())
    elif geometry := report.geometry:
        facts = [("model", str(report.path)), *_shape_facts(geometry)]
        if geometry.source != "catalogue":
            facts.append(("tokenizer", report.tokenizer or "none"))
            facts.append(("template", "has a chat template" if report.has_chat_template else "none"))
        output.lines([f"{name:<11} {text}" for name, text in facts])
        output.lines([f"note        {note}" for note in report.notes])
    for problem in report.problems:
        output.problem(problem)
    return status.PROBLEM if report.problems else status.DONE


def _shape_facts(geometry: Geometry) -> list[tuple[str, str]]:
    """(label, text) of what a model is; what it does not have has no line."""
    config = geometry.config
    context = f"{count_text(geometry.context_length)} tokens" if geometry.context_length else "not told"
    parameters, stored = compact_text(geometry.parameters), geometry.dtype.lower()
    if config.experts:
        parameters += f", of which a token passes {compact_text(geometry.active_parameters)}"
    if config.quantisation:
        bits = f", {config.quantisation_bits} bits" if config.quantisation_bits else ""
        stored = f"quantised ({printable(config.quantisation)}{bits})"
    weights = f"{bytes_text(geometry.weight_bytes)} as {stored}"
    if config.quantisation and geometry.source != "files":
        weights = stored  # how many bytes that takes only the files tell
    facts = [
        ("type", _type_text(geometry)),
        ("parameters", parameters),
        ("weights", weights),
        (
            "shape",
            f"{counted(geometry.layers, 'layer')}, {count_text(geometry.hidden_size)} wide, "
            f"{counted(geometry.heads, 'head')} ({geometry.kv_heads} for keys and values)",
        ),
        ("attention", _attention_text(geometry)),
    ]
    if config.experts:
        shared = f", and {count_text(config.shared_expert_intermediate_size)} wide shared ones for all"
        facts.append(
            (
                "experts",
                f"{config.experts} a layer, {count_text(config.expert_intermediate_size)} wide, "
                f"{config.experts_per_token} for each token{shared if config.shared_expert_intermediate_size else ''}",
            )
        )
    if config.vision:
        towers = compact_text(geometry.vision_parameters) if geometry.vision_parameters else "an unknown number of"
        facts.append(("besides", f"towers for images or sound with {towers} parameters"))
    return [*facts, ("vocabulary", f"{count_text(geometry.vocab_size)} tokens"), ("context", context)]


def _type_text(geometry: Geometry) -> str:
    architecture, model_type = printable(geometry.architecture), printable(geometry.model_type)
    return model_type if architecture == model_type else f"{architecture} ({model_type})"


def _attention_text(geometry: Geometry) -> str:
    config = geometry.config
    text = config.attention_kind
    if 0 < config.attending_layers < config.layers:
        text += f" in {config.attending_layers} of {config.layers} layers"
    sliding = sum(kind == SLIDING for kind in config.layer_types)
    if config.sliding_window and sliding:
        where = "every layer" if sliding == config.layers else f"{sliding} of {config.layers} layers"
        text += f", {count_text(config.sliding_window)} tokens back in {where}"
    return text
