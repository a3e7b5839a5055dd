"""`python -m engine.data.prepare MODEL`: prepares data as a run would, in a process that the app starts beside itself.

Stdin is the data section of a spec as JSON. Stdout gets JSON lines: {"kind": "progress", ...} some times a second, then
{"kind": "prepared", "account": of every row}, or {"kind": "problem", "where", "what", "fix"}.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path

from engine.child_process import Send, take_stdout
from engine.data.dataset import Dataset
from engine.data.prepare.preparing import prepare
from engine.data.prepare.progress import Progress
from engine.data.tokens.loading import load_text_tokenizer
from engine.offline import set_offline
from engine.run.sealing.telling import tell_tries
from engine.spec import parse_spec
from profiles.problem import Problem


def main(model: str) -> int:
    """Returns the exit status: 0, or 2 after a Problem."""
    set_offline()
    send = take_stdout()
    tell_tries()
    try:
        values = {"name": "data", "model": {"path": model}, "data": json.load(sys.stdin)}
        spec = parse_spec(values, "the data").data
        tokenizer = load_text_tokenizer(Path(model), spec.chat_template)
        dataset = prepare(spec, tokenizer, lambda progress: _tell(send, progress))
    except Problem as problem:
        send("problem", **problem.as_dict())
        return 2
    send("prepared", account=_account(dataset))
    return 0


def _tell(send: Send, progress: Progress) -> None:
    send("progress", **asdict(progress))


def _account(dataset: Dataset) -> dict:
    account = dataset.as_dict()
    del account["shards"]  # thousands, and of no use to a person who looks at the data
    return account


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
