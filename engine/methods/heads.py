"""What stands on top of a model's decoder: a language head, one that tells classes apart, or nothing."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

# Lies beside an adapter, whose own files do not say which class is which.
CLASSES_NAME = "classes.json"


@dataclass(frozen=True)
class Head:
    """`labels`: names of the classes, in order; `several`: any number of them may hold for a text."""

    kind: Literal["language", "classes", "none"]
    labels: tuple[str, ...] = ()
    several: bool = False
    padding_id: int | None = None
    """A text is read at its last token that is not this one, as transformers' classification heads do."""

    def configuration(self) -> dict[str, Any]:
        """The fields of config.json that say so, as transformers' classification heads read them."""
        if self.kind != "classes":
            return {}
        return {
            "num_labels": len(self.labels),
            "id2label": dict(enumerate(self.labels)),
            "label2id": {label: index for index, label in enumerate(self.labels)},
            "problem_type": "multi_label_classification" if self.several else "single_label_classification",
            "pad_token_id": self.padding_id,
        }


LANGUAGE = Head("language")
NO_HEAD = Head("none")


def write_classes(head: Head, folder: Path) -> None:
    """Write a classification head's description into the folder of its adapter. Raises OSError."""
    text = json.dumps(asdict(head), ensure_ascii=False, indent=2)
    (folder / CLASSES_NAME).write_text(text + "\n", encoding="utf-8")


def read_classes(folder: Path) -> Head:
    """The head described in an adapter's folder. Raises OSError, ValueError, KeyError or TypeError."""
    values = json.loads((folder / CLASSES_NAME).read_text(encoding="utf-8"))
    return Head(**{**values, "labels": tuple(values["labels"])})
