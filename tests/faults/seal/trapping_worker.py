"""python trapping_worker.py RUN: in a worker's place, leaves traps in the run's folder for whoever is not sealed.

VICTIMS is a folder outside the run's: each file of the run becomes a link to the victim of its name there, and what the
run was asked and told is rewritten; with ONLY_VARIABLE that file alone, and there are no links. What it could do goes
to outputs/traps.json: {name: "done" | the error}.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from engine.home import cache_root
from engine.run.directory import RunDirectory
from engine.run.processes.channel import Channel

WRITTEN = ("spec.toml", "environment.json", "events.jsonl")
"""By finetui's own unsealed processes: what the run was asked, and what became of it. (The audit log is
tried with the others, see test_run_folder.)"""
KEPT = (
    "engine.log",
    "audit.jsonl",
    "lock",
    "pid.json",
    "claim.json",
    "snapshot.json",
    ".ballast",
    "lineage.json",
    "start.json",
)
"""Files that unsealed processes open, write or remove in the run's folder."""
CACHES = ("libraries", "scratch", "prepared", "tokenizers")
"""Folders that a seal opens to the next worker, and that unsealed processes tidy."""
VICTIM = "old"
ONLY_VARIABLE = "REWRITE_ONLY"


def main(path: str) -> None:
    run = RunDirectory(Path(path))
    channel = Channel.from_environment()
    channel.install_sigterm()
    print("echo said by a hostile worker", flush=True)  # where the log leads, it is written
    victims = Path(os.environ["VICTIMS"])
    run.outputs.mkdir(exist_ok=True)
    only = os.environ.get(ONLY_VARIABLE)
    done = {f"write {name}": _try(_rewrite, run.path / name) for name in ([only] if only else WRITTEN)}
    for name in () if only else (*WRITTEN, *KEPT):
        done[f"link {name}"] = _try(_replace, run.path / name, victims / name)
    for name in () if only else CACHES:
        done[f"link cache {name}"] = _try(_replace_folder, cache_root() / name, victims)
    done["read a victim"] = _try((victims / VICTIM).read_text)
    done["write a victim"] = _try((victims / VICTIM).write_text, "written by a hostile worker\n")
    (run.outputs / "traps.json").write_text(json.dumps(done))
    channel.send("outcome", outcome="failed", cause="fault", why="on purpose", step=0)


def _rewrite(path: Path) -> None:
    text = path.read_text()
    path.write_text(text.replace('seal = "best"', 'seal = "off"') + "\n")


def _replace_folder(path: Path, target: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        path.rename(path.with_name(f"{path.name}-aside"))
    _replace(path, target)


def _replace(path: Path, target: Path) -> None:
    path.unlink(missing_ok=True)
    path.symlink_to(target)


def _try(action: Callable[..., Any], *given: Any) -> str:
    try:
        action(*given)
    except OSError as error:
        return f"{type(error).__name__}: {error.strerror}"
    return "done"


if __name__ == "__main__":
    main(sys.argv[1])
