"""The lists of names that ship with finetui, read when they are first needed."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib.resources import files


@dataclass(frozen=True, slots=True)
class NameLists:
    given: frozenset[str]
    surnames: frozenset[str]
    ambiguous: frozenset[str]
    """Names that are also towns, months, flowers or words: a person's only beside another name."""
    not_surnames: frozenset[str]
    """Words that are written with a capital and follow given names without being surnames."""
    organisations: frozenset[str]
    """Words that make what stands before them a place or a firm: "Jordan Baker Street"."""
    titles: frozenset[str]
    """What a surname may follow: "Frau"."""
    greetings: frozenset[str]
    """What a given name may follow: "Dear"."""
    particles: frozenset[str]
    """What stands in front of a surname: "van"."""
    public: frozenset[str]
    """Persons of history, by their full names: what is told of them is knowledge, not personal data."""

    def is_public(self, name: str) -> bool:
        return name in self.public


@cache
def name_lists() -> NameLists:
    others = listed("not_names")
    return NameLists(
        given=listed("given_names"),
        surnames=listed("surnames"),
        ambiguous=listed("ambiguous_names"),
        not_surnames=others | listed("organisation_words"),
        organisations=listed("organisation_words"),
        titles=listed("titles"),
        greetings=listed("greetings"),
        particles=listed("particles"),
        public=listed("public_names"),
    )


@cache
def given_names(is_cyrillic: bool = False) -> tuple[str, ...]:
    """In order, for pseudonyms: names of that script that nothing else is called by."""
    return _for_pseudonyms(name_lists().given, is_cyrillic)


@cache
def surnames(is_cyrillic: bool = False) -> tuple[str, ...]:
    """In order, for pseudonyms."""
    return _for_pseudonyms(name_lists().surnames, is_cyrillic)


def _for_pseudonyms(names: frozenset[str], is_cyrillic: bool) -> tuple[str, ...]:
    single = names - name_lists().ambiguous
    return tuple(sorted(name for name in single if ("а" <= name[-1] <= "я") == is_cyrillic))


def listed(name: str) -> frozenset[str]:
    """The entries of one of the lists."""
    text = files("engine.data.personal").joinpath("lists", f"{name}.csv").read_text(encoding="utf-8")
    return frozenset(entry for line in text.splitlines()[1:] for entry in line.split(",") if entry)
