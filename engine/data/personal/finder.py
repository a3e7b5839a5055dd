"""Everything personal in a text, each place once."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from engine.data.personal.accounts import find_accounts
from engine.data.personal.addresses import find_addresses
from engine.data.personal.found import LONG_NUMBER, Personal
from engine.data.personal.national_ids import find_birth_dates, find_national_ids
from engine.data.personal.networks import find_emails, find_network_addresses
from engine.data.personal.people import find_names
from engine.data.personal.phones import find_phones
from engine.data.personal.secrets import find_secrets

Finder = Callable[[str], Iterator[Personal]]

# How far a number's name may stand in front of it, and how far a number goes on behind its first six digits.
_WINDOW_BEFORE, _WINDOW_AFTER = 72, 48


def find_personal(text: str, more: tuple[Finder, ...] = ()) -> list[Personal]:
    """What is personal in `text`, in order and without overlaps. `more` adds finders, such as Presidio's."""
    kept: list[Personal] = []
    taken = bytearray()  # for every character of the text whether it is a finding's
    for found in _everything(text, more):
        taken = taken or bytearray(len(text))
        if taken.find(1, found.start, found.end) < 0:
            taken[found.start : found.end] = b"\1" * (found.end - found.start)
            kept.append(found)
    return sorted(kept)


def _everything(text: str, more: tuple[Finder, ...]) -> Iterator[Personal]:
    """The surest first: where two findings overlap, the earlier one stays."""
    has_digits = any(map(text.__contains__, "0123456789"))
    windows = _windows(text) if has_digits else []
    yield from find_secrets(text)
    yield from find_emails(text)
    for find in (find_accounts, find_national_ids):
        for start, end in windows:
            yield from find(text, start, end)
    yield from find_network_addresses(text)
    if has_digits:
        yield from find_birth_dates(text)
        yield from find_addresses(text)
    for start, end in windows:
        yield from find_phones(text, start, end)
    yield from find_names(text)
    for finder in more:
        yield from finder(text)


def _windows(text: str) -> list[tuple[int, int]]:
    """Where long numbers are, with what may stand around them: no other part of a text can hold a person's number."""
    windows: list[tuple[int, int]] = []
    for match in LONG_NUMBER.finditer(text):
        start = max(0, match.start() - _WINDOW_BEFORE)
        end = text.find(" ", match.end() + _WINDOW_AFTER)  # not in the middle of a number
        end = len(text) if end < 0 else end
        if windows and start <= windows[-1][1]:
            windows[-1] = windows[-1][0], max(end, windows[-1][1])
        else:
            windows.append((start, end))
    return windows
