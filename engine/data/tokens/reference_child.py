"""Runs in a child process: reads the tokenizer of the model's folder given as argument with transformers, and writes
what text needs of it to stdout as JSON, or {"problem": {"where", "what", "fix"}}.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from engine.child_process import end_with, limit_address_space
from engine.offline import set_offline
from profiles.problem import Problem

# The largest vocabularies (256,000 tokens) take 2 GB while they are read; a file that claims more shall not fill the
# machine.
_ADDRESS_SPACE_BYTES = 16 << 30


def main() -> None:
    end_with(os.getppid())
    answer = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print is no part of the answer
    limit_address_space(_ADDRESS_SPACE_BYTES)
    set_offline()
    from engine.data.tokens.reference import describe_folder

    try:
        told = describe_folder(Path(sys.argv[1]))
    except Problem as problem:
        told = {"problem": problem.as_dict()}
    json.dump(told, answer)
    answer.close()


if __name__ == "__main__":
    main()
