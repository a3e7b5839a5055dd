"""`finetui train`: start a run from a spec file or another run, or from a model and data with the rest proposed."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, get_args

from engine.data.source import Shape
from engine.inputs import check_inputs, columns_said, source_at
from engine.propose import Proposal, budget_bytes, predict, propose
from engine.run.directory import RunDirectory, find_run, runs_root
from engine.run.launch import launch
from engine.seal.request import LEVELS
from engine.spec import RunSpec, parse_spec, read_toml, resolve_paths, set_value
from profiles.hardware import probe
from profiles.problem import Problem, printable
from tui.commands import status
from tui.commands.log_out import warn_of_log_out
from tui.commands.output import Output, table
from tui.commands.watch import add_wait_argument, watch_run
from tui.format import bytes_text, count_text, counted
from tui.seal_words import fix_words, level_words, refusal

# What stands in a spec file under another name than its option.
_SPEC_KEYS = {"model": "model.path", "data": "data.train", "held_out": "data.held_out"}
# What follows from how much there is to learn from, and is decided anew when a run goes on with other rows.
_OF_LENGTH = (
    *("data.held_out_share", "train.epochs", "train.micro_batch", "train.gradient_accumulation"),
    *("schedule.warmup_share", "evaluation.every_steps", "evaluation.rows", "checkpoint.every_steps"),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "spec", nargs="?", type=Path, metavar="SPEC.toml|RUN", help="a run's settings: a file, or a run to do again"
    )
    parser.add_argument("--model", type=Path, metavar="DIR", help="the base model's folder")
    parser.add_argument(
        "--data",
        action="append",
        metavar="FILE",
        help="what to learn from: JSONL, JSON, CSV, Parquet, Arrow, text or Markdown, packed or not, or a folder; "
        "- for stdin; may be given again",
    )
    parser.add_argument("--held-out", metavar="FILE", help="the same, but never trained on")
    parser.add_argument("--shape", choices=get_args(Shape), default="auto", help="what the rows of --data are")
    parser.add_argument(
        "--column",
        action="append",
        default=[],
        metavar="PART=NAME",
        help="which column of --data plays a part, such as answer=reply; may be given again",
    )
    parser.add_argument(
        "--rows",
        metavar="N|all",
        help="learn from so many rows only; with a RUN, do it again with more of its rows, or all, which include those",
    )
    parser.add_argument("--name", help="the run's name")
    parser.add_argument(
        "--profile",
        metavar="NAME",
        help="the profile of `finetui fit` to take, such as fastest, or a method; the first one without this",
    )
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="a setting, such as method.rank=32 or train.epochs=2; may be given again",
    )
    add_seal_argument(parser)
    parser.add_argument("--dry-run", action="store_true", help="print the settings as a SPEC.toml; start nothing")
    add_queue_arguments(parser)
    parser.add_argument("--json", action="store_true", help="print JSON")
    add_wait_argument(parser)


def add_seal_argument(parser: argparse.ArgumentParser) -> None:
    """How surely the trainer is kept from the network."""
    parser.add_argument(
        "--seal",
        choices=LEVELS,
        help="required: train only if every layer of the seal holds here; best (as without this): with those that do; "
        "off: with none",
    )


def add_queue_arguments(parser: argparse.ArgumentParser) -> None:
    """How a run waits, for the commands that start an engine."""
    parser.add_argument(
        "--queue",
        action="store_true",
        help="wait in the queue: start once no other run of finetui trains on the device and the memory is free",
    )
    parser.add_argument(
        "--after", metavar="RUN", help="wait until RUN has ended, however it ends, and then in the queue"
    )
    parser.add_argument(
        "--beside",
        action="store_true",
        help="wait in the queue for memory only: start beside other runs, though each is slower then",
    )


@dataclass(frozen=True)
class _Job:
    """What to run, with why each proposed value was chosen (by field; nothing for values that were given)."""

    spec: RunSpec
    reasons: Mapping[str, str]
    predicted_peak_bytes: int
    budget_bytes: int


def run(arguments: argparse.Namespace, output: Output) -> int:
    after = find_run(arguments.after).name if arguments.after is not None else None
    job = _job(arguments)
    if arguments.dry_run:
        _print_job(job, arguments.json, output)
        return status.DONE
    waits = arguments.queue or arguments.after is not None or arguments.beside
    if not waits:
        _warn_of_memory(job.spec, output)
    _tell_seal(job.spec, output)
    warn_of_log_out(output)
    started = launch(job.spec, wait=waits, after=after, beside=arguments.beside, tell=output.warn)
    if arguments.json:
        output.json({"run": started.name, "path": str(started.path), **_as_dict(job)}, indent=None)
    else:
        output.lines(_reason_lines(job))
        output.line(f"{'queued' if waits else 'started'} {started.name}")
        if waits:
            output.line("  it begins by itself when its turn comes; see the line: finetui queue")
        output.line(f"  it goes on without this terminal; watch it: finetui watch {started.name}")
    return watch_run(started, output, as_json=arguments.json) if arguments.wait else status.DONE


def _job(arguments: argparse.Namespace) -> _Job:
    if not arguments.spec:
        return _proposed(arguments)
    _refuse_inputs(arguments)
    if arguments.spec.is_file() or arguments.spec.suffix == ".toml":
        return _from_spec(arguments, arguments.spec)
    again = find_run(str(arguments.spec))
    return _from_spec(arguments, again.spec_path) if arguments.rows is None else _with_other_rows(arguments, again)


def _refuse_inputs(arguments: argparse.Namespace) -> None:
    """Raise Problem for what a spec says already."""
    for name, key in _SPEC_KEYS.items():
        if getattr(arguments, name):
            option = f"--{name.replace('_', '-')}"
            raise Problem(option, "is given together with a spec file", f"Leave it out, or use --set {key}=….")
    if arguments.column or arguments.shape != "auto":
        option = "--column" if arguments.column else "--shape"
        raise Problem(
            option, "is given together with a spec file", "Say it in the file: data.train = [{path, shape, …}]."
        )
    if arguments.profile:
        raise Problem("--profile", "is given together with a spec file, which says all", "Leave one of the two out.")


def _from_spec(arguments: argparse.Namespace, path: Path) -> _Job:
    values = resolve_paths(read_toml(path), path.absolute().parent)
    values |= {"name": arguments.name} if arguments.name is not None else {}
    _set_all(arguments, values)
    spec = parse_spec(resolve_paths(values, Path.cwd()), str(path))
    geometry = check_inputs(spec).geometry
    hardware = probe(runs_root())
    predicted = predict(spec, geometry, hardware)
    return _Job(spec, {}, predicted.peak_bytes, budget_bytes(hardware, predicted))


def _with_other_rows(arguments: argparse.Namespace, again: RunDirectory) -> _Job:
    """All as in the run `again`, but for the rows and for what follows from their number."""
    spec = again.spec()
    values = spec.model_dump(mode="json", exclude_none=True)
    for field in _OF_LENGTH:
        section, _, name = field.partition(".")
        del values[section][name]
    values |= {"name": arguments.name} if arguments.name is not None else {}
    _set_all(arguments, values)
    job = _as_job(
        propose(
            spec.model.path,
            spec.data.train,
            spec.data.held_out,
            probe(runs_root()),
            resolve_paths(values, Path.cwd()),
        )
    )
    rows = {"data.rows": f"{again.name} learnt from {_rows_text(spec)}, which are among them"}
    return replace(job, reasons=rows | {field: job.reasons[field] for field in _OF_LENGTH if field in job.reasons})


def _proposed(arguments: argparse.Namespace) -> _Job:
    if not arguments.model or not arguments.data:
        missing = "--data" if arguments.model else "--model" if arguments.data else "a SPEC.toml, or --model and --data"
        raise Problem("finetui train", f"needs {missing}", "Example: finetui train --model DIR --data FILE.jsonl")
    overrides: dict[str, Any] = {}
    _set_all(arguments, overrides)
    columns = columns_said(arguments.column)
    proposal = propose(
        arguments.model.expanduser().absolute(),
        [source_at(text, arguments.shape, columns) for text in arguments.data],
        source_at(arguments.held_out, arguments.shape, columns) if arguments.held_out else None,
        probe(runs_root()),
        resolve_paths(overrides, Path.cwd()),
        arguments.name,
        arguments.profile,
    )
    return _as_job(proposal)


def _as_job(proposal: Proposal) -> _Job:
    return _Job(proposal.spec, proposal.reasons, proposal.estimate.peak_bytes, proposal.budget_bytes)


def _set_all(arguments: argparse.Namespace, values: dict[str, Any]) -> None:
    """Apply --rows and each --set to `values` (nested as in TOML) in place. Raises Problem."""
    if arguments.rows == "all":
        values.get("data", {}).pop("rows", None)
    elif arguments.rows is not None:
        if not arguments.rows.isdecimal() or not int(arguments.rows):
            raise Problem(
                f"--rows {printable(arguments.rows)}", "is no number of rows", "Write --rows 200 or --rows all."
            )
        set_value(values, f"data.rows={int(arguments.rows)}")
    if arguments.seal is not None:
        set_value(values, f"privacy.seal={arguments.seal}")
    for assignment in arguments.set:
        set_value(values, assignment)


def _rows_text(spec: RunSpec) -> str:
    return "all rows" if spec.data.rows is None else counted(spec.data.rows, "row")


def _warn_of_memory(spec: RunSpec, output: Output) -> None:
    """Say who holds the memory that the run needs, as it is at this moment."""
    from engine.run.waiting.room import room_for

    room = room_for(spec)
    if not room.fits:
        waits = " --queue waits until it is free;" if room.possible else ""
        output.warn(
            f"warning: this run {room.sentence()}.{waits} as it is, the run starts and takes smaller steps when "
            "memory runs out."
        )


def _tell_seal(spec: RunSpec, output: Output) -> None:
    """Say what the level of the seal means on this machine, where not all of it holds or none is wanted. Raises Problem
    where all is required, so that no run is made that cannot begin."""
    from engine.seal.ability import ability

    level = spec.privacy.seal
    found = None if level == "off" else ability()
    if found is not None and not found.missing:
        return
    if (refused := refusal(level, found, "--seal best")) is not None:
        raise refused
    output.warn(f"seal: {level_words(level, found)}")
    if found is not None and (fix := fix_words(found)):
        output.warn(f"  fix: {fix}")


def _print_job(job: _Job, as_json: bool, output: Output) -> None:
    if as_json:
        output.json(_as_dict(job))
        return
    output.lines([f"# {line}" for line in _reason_lines(job)])
    output.lines(job.spec.to_toml().splitlines())


def _as_dict(job: _Job) -> dict[str, Any]:
    return {
        "spec": job.spec.model_dump(mode="json"),
        "reasons": dict(job.reasons),
        "predicted_peak_bytes": job.predicted_peak_bytes,
        "budget_bytes": job.budget_bytes,
    }


def _reason_lines(job: _Job) -> list[str]:
    """Each proposed value with its reason, then what memory it takes."""
    rows = [(name, _value(job.spec, name), why) for name, why in job.reasons.items()]
    lines = table(("setting", "value", "why"), rows) if rows else []
    lines.append(f"memory: {bytes_text(job.predicted_peak_bytes)} predicted, {bytes_text(job.budget_bytes)} free")
    return lines


def _value(spec: RunSpec, name: str) -> str:
    if name == "data.rows":
        return "all" if spec.data.rows is None else count_text(spec.data.rows)
    value: Any = spec
    for part in name.split("."):
        value = getattr(value, part)
    return str(value)
