"""What decides the contents of a shard beside its chunk's bytes: the recipe, and its key."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

from engine.data.prepare.shards import FORMAT
from engine.data.shapes.reading_value import Reading
from engine.data.source import Source
from engine.data.tokens.text_tokenizer import TextTokenizer

Personal = Literal["leave", "mask", "pseudonymise"]


@dataclass(frozen=True, slots=True)
class Recipe:
    """How rows of one source become tokens. Sent to the processes that do it."""

    source: Source
    """How its bytes become rows is in the chunks' own keys."""
    reading: Reading
    """How its rows are understood, found out from the first of them."""
    tokenizer: TextTokenizer
    group_by: str | None
    stratify_by: str | None
    split_seed: int
    """Says of which rows the texts are kept, so that those held out can be shown and answered."""
    sampled_share: float
    """Of how many rows of a chunk at most, some of few aside."""
    personal: Personal
    personal_key: str
    """Key of the pseudonyms, in hexadecimal; "" where none are made."""
    with_signatures: bool
    """Whether rows get signatures that near duplicates are told by."""
    leak_index: Path | None
    """Folder of an index over the benchmarks' rows that must not be learnt; None: no benchmarks are given."""
    leak_sha256: str
    """Of that index."""

    @property
    def key(self) -> str:
        """32 hexadecimal digits that are the same exactly when the same chunk gives the same shard."""
        decides = {
            "format": FORMAT,
            "code": code_fingerprint(),
            "libraries": [version(name) for name in ("tokenizers", "jinja2", "rensa")],
            "tokenizer": self.tokenizer.sha256,
            "group_by": self.group_by,
            "stratify_by": self.stratify_by,
            "split_seed": self.split_seed,
            "sampled_share": self.sampled_share,
            "personal": [self.personal, _redactor_version() if self.personal != "leave" else ""],
            # Hashed, since names of folders are not for secrets.
            "personal_key": hashlib.sha256(self.personal_key.encode()).hexdigest(),
            "signatures": self.with_signatures,
            "leaks": self.leak_sha256,
            "mapping": self.mapping(),
        }
        return hashlib.blake2b(json.dumps(decides, sort_keys=True).encode(), digest_size=16).hexdigest()

    def mapping(self) -> dict[str, Any]:
        """How rows of the source are understood, as JSON: what the person said, and what was found out."""
        said = asdict(self.source)
        asked = {name: said[name] for name in ("shape", "columns", "prompt_template", "answer_template")}
        return {**asked, "reading": asdict(self.reading)}


def _redactor_version() -> str:
    """Also says whether an optional library takes part, which may come and go between runs."""
    from engine.data.personal.redaction import REDACTOR_VERSION

    return REDACTOR_VERSION


@cache
def code_fingerprint() -> str:
    """A hash of finetui's code that turns rows into tokens, so that a shard of another version is never taken for
    one of this version."""
    data = Path(__file__).parent.parent
    digest = hashlib.blake2b(digest_size=16)
    for folder in ("files", "shapes", "tokens", "personal", "quality", "prepare"):
        for path in sorted((data / folder).rglob("*")):
            if path.suffix in (".py", ".jinja", ".csv", ".txt"):
                digest.update(path.read_bytes())
    digest.update((data / "contents.py").read_bytes())
    return digest.hexdigest()
