"""The small base model and data set that ship with finetui, and the scripts that made them.

Importing this package is free of heavy libraries: it only says where the bundled files lie.
"""

from pathlib import Path

_HERE = Path(__file__).resolve().parent

MODEL_DIRECTORY = _HERE / "scribe-2m"
TRAIN_FILE = _HERE / "data" / "clinic-messages.jsonl"
HELD_OUT_FILE = _HERE / "data" / "clinic-messages.held-out.jsonl"

__all__ = ["HELD_OUT_FILE", "MODEL_DIRECTORY", "TRAIN_FILE"]
