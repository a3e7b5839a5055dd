"""`finetui fit MODEL`: what training would cost on this machine or another, before anything is loaded."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from profiles.problem import Problem, printable
from tui import plan_words as words
from tui.commands import status
from tui.commands.fit_text import plan_lines, view_lines
from tui.commands.output import Output
from tui.format import bytes_text

if TYPE_CHECKING:
    from profiles.hardware import Hardware
    from profiles.planner import Plan
    from tui.plan_views import ViewRow

_REPLAY_SECONDS = 300.0
"""Of all profiles: a replay takes seconds, its imports from a cold disk a minute or more."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "model", nargs="?", metavar="MODEL", help="a model's folder (config.json is enough), or a catalogue name"
    )
    parser.add_argument("--data", action="append", metavar="PATH", help="what to learn from, for the time it takes")
    parser.add_argument("--seq-len", type=int, metavar="N", help="tokens in the longest row")
    machine = parser.add_mutually_exclusive_group()
    machine.add_argument("--vram", metavar="SIZE", help="plan for one GPU of this size, such as 24GiB")
    machine.add_argument("--gpu", metavar="NAME", help="plan for one GPU of the catalogue, such as 'RTX 4090'")
    machine.add_argument("--hardware", type=Path, metavar="FILE", help="plan for what `finetui hardware --json` wrote")
    parser.add_argument(
        "--settings", type=Path, metavar="FILE", help="price exactly these settings: a spec or a recipe"
    )
    parser.add_argument("--replay", action="store_true", help="confirm each profile by counting a step's tensors")
    views = parser.add_mutually_exclusive_group()
    views.add_argument("--models", action="store_true", help="what could I train here? (no MODEL)")
    views.add_argument("--cards", action="store_true", help="which card would I need?")
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(arguments: argparse.Namespace, output: Output) -> int:
    _check(arguments)
    hardware = _hardware(arguments)
    asked = {} if arguments.seq_len is None else {"data.sequence_length": arguments.seq_len}
    if arguments.models:
        from tui.plan_views import MODEL_FACTS, trainable_models

        return _print_view(trainable_models(hardware, asked), "model", MODEL_FACTS, hardware, arguments.json, output)
    if arguments.cards:
        from engine.fit.models import find_model
        from tui.plan_views import CARD_FACTS, enough_cards

        rows = enough_cards(find_model(arguments.model), hardware, asked)
        return _print_view(rows, "card", CARD_FACTS, hardware, arguments.json, output)
    plan = _plan(arguments, hardware, asked)
    if not (arguments.vram or arguments.gpu or arguments.hardware):
        plan = dataclasses.replace(plan, notes=(*plan.notes, *_speed_note(hardware)))
    replayed = _replay(plan, output) if arguments.replay else {}
    if arguments.json:
        output.json(_as_dict(plan, replayed))
    else:
        output.lines(plan_lines(plan, replayed, output.terminal.columns))
    return status.DONE


def _check(arguments: argparse.Namespace) -> None:
    if arguments.models and arguments.model:
        raise Problem("finetui fit --models", "takes no MODEL", "Leave one of the two out.")
    if not arguments.models and not arguments.model:
        fix = "Example: finetui fit Qwen/Qwen3-8B --vram 24GiB; `finetui fit --models` lists what could be trained."
        raise Problem("finetui fit", "needs a MODEL", fix)
    for option in ("data", "settings", "replay"):
        if getattr(arguments, option) and (arguments.models or arguments.cards):
            view = "--models" if arguments.models else "--cards"
            raise Problem(f"--{option}", f"says nothing to {view}", "Leave one of the two out.")
    if arguments.settings and arguments.seq_len is not None:
        raise Problem("--seq-len", "is given together with --settings", "Set data.sequence_length in that file.")
    if arguments.seq_len is not None and arguments.seq_len < 8:
        raise Problem("--seq-len", f"is {arguments.seq_len}", "Give a number of tokens, 8 or more.")


def _hardware(arguments: argparse.Namespace) -> Hardware:
    """The machine to plan for. Raises Problem for one that cannot be described."""
    from profiles.hardware_file import hypothetical, load_hardware, with_vram

    if arguments.hardware:
        return load_hardware(arguments.hardware)
    if arguments.gpu:
        return hypothetical(arguments.gpu)
    from engine.run.directory import runs_root
    from profiles.hardware import probe

    here = probe(runs_root())
    if arguments.vram is None:
        return here
    from profiles.quantities import parse_bytes

    return with_vram(here, parse_bytes(arguments.vram, "--vram"))


def _plan(arguments: argparse.Namespace, hardware: Hardware, asked: Mapping[str, Any]) -> Plan:
    from engine.inputs import source_at
    from engine.propose import gather_plan, plan_for
    from profiles.planning.settings_of_spec import nested

    sources = [source_at(text) for text in arguments.data or ()]
    gathered = gather_plan(arguments.model, sources, None, hardware)
    if not arguments.settings:
        return plan_for(gathered, nested(asked))
    from profiles.planner import reserve_note
    from tui.commands.fit_settings import read_settings

    price_settings = read_settings(arguments.settings, arguments.model, gathered.geometry)
    plan = plan_for(gathered, {})
    priced = dataclasses.replace(price_settings(plan), name=printable(arguments.settings.stem))
    notes = (reserve_note(hardware, priced), *plan.notes[1:])
    return dataclasses.replace(plan, profiles=(priced,), budget_bytes=priced.budget_bytes, notes=notes)


def _speed_note(hardware: Hardware) -> tuple[str, ...]:
    """How to have better speeds than the catalogue's; nothing where this machine was measured."""
    from engine.fit.rates import is_measured

    if is_measured(hardware):
        return ()
    return ("Speeds are guessed from the hardware's name; `finetui hardware --measure` measures them in some seconds.",)


def _replay(plan: Plan, output: Output) -> dict[str, Any]:
    """What a replay in a child found, by profile name; a problem where there is none."""
    from engine.fit.replay import replay, replay_many

    found: dict[str, Any] = {}
    if output.live:
        output.status("counting the tensors of a step of each profile …")
    with suppress(Problem):  # of which one it is true is told below
        replay_many(plan.geometry, [profile.settings for profile in plan.profiles], timeout_seconds=_REPLAY_SECONDS)
    for profile in plan.profiles:
        try:
            replayed = replay(plan.geometry, profile.settings, timeout_seconds=_REPLAY_SECONDS)
        except Problem as problem:
            found[profile.name] = {"problem": problem.as_dict()}
        else:
            assert replayed is not None, "only a cancelled replay has nothing to tell"
            found[profile.name] = {"allocated_bytes": replayed.allocated_bytes, "phases": dict(replayed.phases)}
    output.clear_status()
    return found


def _as_dict(plan: Plan, replayed: Mapping[str, Any]) -> dict[str, Any]:
    profiles = [profile.as_dict() for profile in plan.profiles]
    for entry in profiles:
        if (found := replayed.get(entry["name"])) is not None:
            entry["replay"] = found
    return {"hardware": plan.hardware.as_dict(), "model": plan.geometry.as_dict(), "profiles": profiles}


def _print_view(
    rows: Iterator[ViewRow], title: str, facts: Sequence[str], hardware: Hardware, as_json: bool, output: Output
) -> int:
    if as_json:
        output.json({"hardware": hardware.as_dict(), f"{title}s": [row.as_dict() for row in rows]})
        return status.DONE
    shown = []
    for row in rows:
        shown.append(row)
        if output.live:
            output.status(f"{len(shown)} {title}s so far …")
    if title == "model":
        output.line(f"on {words.device_name(hardware)}: {bytes_text(words.device_bytes(hardware))}")
    output.lines(view_lines(title, facts, shown))
    return status.DONE
