"""python grabbing_worker.py RUN: in a worker's place, tries to change what lies at the top of its run's folder.

Every file there is tried in every way, and links are asked for that are none of the run's; evaluation/grabs.json has
{"way name": "done" | the error}. It ends once the file checkpoints/go-on is there: its supervisor may write more.
"""

from __future__ import annotations

import fcntl
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

from engine.run.directory import RunDirectory
from engine.run.processes.channel import Channel

KEPT = (
    *("spec.toml", "environment.json", "events.jsonl", "audit.jsonl", "lineage.json", "engine.log", "snapshot.json"),
    *("lock", "pid.json", "claim.json", "control.sock", ".ballast", "rejects.jsonl", "new"),
)
OWN = ("checkpoints", "outputs", "data", "evaluation")
ASKED = ("../../home", "/etc/passwd", "aa/../../x.safetensors", "a/b/c.safetensors", "aa/.x.safetensors", "aa/b", 7)


def main(path: str) -> None:
    run = RunDirectory(Path(path))
    channel = Channel.from_environment()
    channel.install_sigterm()
    forged = run.evaluation / "forged"
    done = {}
    for name in KEPT:
        at = run.path / name
        ways: dict[str, Callable[[], object]] = {
            "write": lambda at=at: os.close(os.open(at, os.O_WRONLY)),
            "append": lambda at=at: os.close(os.open(at, os.O_WRONLY | os.O_APPEND)),
            "make": lambda at=at: os.close(os.open(at, os.O_WRONLY | os.O_CREAT)),
            "truncate": lambda at=at: os.truncate(at, 0),
            "remove": lambda at=at: at.unlink(),
            "rename away": lambda at=at: at.rename(run.evaluation / "away"),
            "rename over": lambda at=at: (forged.write_text("forged"), forged.rename(at)),
            "link over": lambda at=at: at.symlink_to("/etc/passwd"),
            "link away": lambda at=at: os.link(at, run.evaluation / "hard"),
        }
        if name not in ("spec.toml", "events.jsonl"):
            ways["lock"] = lambda at=at: fcntl.flock(os.open(at, os.O_RDONLY), fcntl.LOCK_EX | fcntl.LOCK_NB)
        done |= {f"{way} {name}": _try(action) for way, action in ways.items()}
    for name in OWN:
        done[f"rename {name}"] = _try(lambda name=name: (run.path / name).rename(run.evaluation / "aside"))
    done["make a folder"] = _try((run.path / "folder").mkdir)
    (run.evaluation / "grabs.json").write_text(json.dumps(done))
    for name in ASKED:
        channel.send("keep_shard", shard=name)
    channel.send("lineage", data=["no", "section"])
    channel.send("seal", level="off")
    channel.send("note", text="grabbed")
    while not (run.checkpoints / "go-on").exists():
        time.sleep(0.01)
    channel.send("outcome", outcome="finished", cause="finished", why="on purpose", step=0)


def _try(action: Callable[[], object]) -> str:
    try:
        action()
    except OSError as error:
        return f"{type(error).__name__}: {error.strerror}"
    return "done"


if __name__ == "__main__":
    main(sys.argv[1])
