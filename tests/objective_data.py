"""Small files to learn every objective from, each with a rule in it that a tiny model can pick up."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

from training import WORDS

CLASSES = ("fever", "bread", "street")


def write_rows(path: Path, kind: str, count: int, seed: int = 0) -> Path:
    """`count` rows of a kind: pairs, thumbs, labels, several_labels or similar."""
    draw = random.Random(seed)
    others = [word for word in WORDS if word not in CLASSES]
    rows: list[dict[str, Any]] = []
    for index in range(count):
        words = draw.choices(others, k=draw.randint(2, 8))
        prompt, good, bad = " ".join(words), words[-1], "umbrella umbrella"
        classes = [name for name in CLASSES if draw.random() < 0.4]
        match kind:
            case "pairs":
                rows.append({"prompt": prompt, "chosen": good, "rejected": bad})
            case "thumbs":
                liked = draw.random() < 0.5
                rows.append({"prompt": prompt, "completion": good if liked else bad, "label": liked})
            case "labels":
                name = CLASSES[index % 3]
                rows.append({"text": f"{prompt} {name}", "label": name})
            case "several_labels":
                rows.append({"text": " ".join([prompt, *classes]), "labels": classes})
            case "similar":
                row = {"anchor": prompt, "positive": f"in {prompt}"}
                rows.append(row | ({"negative": " ".join(reversed(words)) + " rain"} if index % 2 else {}))
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path
