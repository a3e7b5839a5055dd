"""What a person is told when something of theirs cannot be used: where, what was found, how to fix it."""

from __future__ import annotations

import re

# Control characters, line separators, marks that reorder text (bidi), byte order marks, and lone surrogates.
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff]")


def printable(value: object, limit: int = 80) -> str:
    """`value` as text that is safe on a terminal: control characters escaped, cut to `limit` characters."""
    text = _CONTROL.sub(lambda match: match.group().encode("unicode_escape", "surrogatepass").decode(), str(value))
    return text if len(text) <= limit else text[: limit - 1] + "…"


class Problem(Exception):
    """A fault in what a person gave us or in their machine, never a bug of ours (bugs are assertions).

    `where` names the file and line, the field or the tensor; `what` says what was found; `fix` says what
    to do. Commands print it and exit with status 2; the app shows it in place. It carries no traceback.
    """

    def __init__(self, where: str, what: str, fix: str):
        super().__init__(where, what, fix)
        # A file's name may hold anything, terminal control codes included.
        self.where, self.what, self.fix = printable(where, 1000), what, fix

    def __str__(self) -> str:
        return f"{self.where}: {self.what}\n  fix: {self.fix}"

    def as_dict(self) -> dict[str, str]:
        """The three parts by name, for the journal and for `--json`."""
        return {"where": self.where, "what": self.what, "fix": self.fix}
