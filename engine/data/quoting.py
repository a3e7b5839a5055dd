"""A row's own words within a sentence of ours, marked, so that the sentence can also be told without them.

A person who looks at their data is told the value that cannot be used; a run's journal and log say only which row it is
in, since they are shown to others.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache
from types import CodeType

from profiles.problem import printable

_OPEN, _CLOSE = "“", "”"
_QUOTED = re.compile(f"{_OPEN}[^{_CLOSE}]*{_CLOSE}")
_WORD = re.compile(r"\w+")
# What Jinja and Python themselves say of a template's mistakes, beside its own names.
_THEIRS = frozenset(
    _WORD.findall(
        "a an the of in is are has have no not and or to be for by from with this it that than more most only "
        "expected got undefined attribute attributes object dict list str int float bool tuple none nonetype "
        "type types element safe access unsafe value values argument arguments positional keyword missing "
        "required given takes call callable unsupported operand between instances range index out bounds "
        "division zero maximum recursion depth exceeded while calling python loader environment specified filter "
        "filters test macro namespace cannot could can t unexpected sequence string integer number key function "
        "does method iterable unpack concatenate supported parameter immutable sandboxed sandbox large too long "
        "error field called"
    )
)


def quoted(value: object, limit: int) -> str:
    """`value` of a row, at most `limit` characters of it, marked as that."""
    text = printable(value, limit).replace(_OPEN, '"').replace(_CLOSE, '"')
    return f"{_OPEN}{text}{_CLOSE}"


def without_quotes(text: str) -> str:
    """`text` with dots in place of what `quoted` put into it."""
    return _QUOTED.sub(f"{_OPEN}…{_CLOSE}", text)


def said_by_template(code: CodeType, text: str, limit: int) -> str:
    """What a template or Jinja said of a row, marked as the row's where a word of it is not the template's own. `code`
    is what Jinja made of the template."""
    plain = printable(text, limit).rstrip(". ")
    known = _words_of(code)
    if all(word in known or word in _THEIRS for word in _WORD.findall(text.casefold())):
        return plain
    return quoted(plain, limit)


@lru_cache(maxsize=64)
def _words_of(code: CodeType) -> frozenset[str]:
    return frozenset(word for text in _texts_in(code) for word in _WORD.findall(text.casefold()))


def _texts_in(code: CodeType) -> Iterator[str]:
    """The literals and names of compiled code, those of the functions in it too."""
    for each in (*code.co_consts, *code.co_names):
        if isinstance(each, str):
            yield each
        elif isinstance(each, CodeType):
            yield from _texts_in(each)
        elif isinstance(each, tuple):
            yield from (one for one in each if isinstance(one, str))
