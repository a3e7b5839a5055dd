"""Runs in a child process: reads the tokenizer.json of the model's folder given as argument as far as the tokenizers
library does, and has it take a letter apart. Writes {} to stdout, or {"problem": {"where", "what", "fix"}}.

It imports a twentieth of what transformers does, so that a trainer may ask it before it reads the file itself. A folder
without a tokenizer.json is read with transformers.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from engine.data.tokens.reference_child import answering
from profiles.problem import Problem, printable


def main() -> None:
    answering(_vet)


def _vet(model: Path) -> dict[str, Any]:
    path = model / "tokenizer.json"
    if not path.is_file():
        from engine.data.tokens.reference import describe_folder

        describe_folder(model)
        return {}
    from tokenizers import Tokenizer

    try:
        tokenizer = Tokenizer.from_file(os.fspath(path))
        tokenizer.no_padding()
        tokenizer.encode("a")
    except Exception as error:  # the library raises bare ones
        raise Problem(str(path), printable(error, 200), "Copy the tokenizer's files again.") from error
    return {}


if __name__ == "__main__":
    main()
