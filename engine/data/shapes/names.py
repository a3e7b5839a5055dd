"""Which column plays which part, told from the columns' names.

Known combinations come first (prompt and completion, instruction and output); then the names are scored by a
vocabulary in several languages, and two columns that score alike are a question for the person.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from engine.data.shapes.parts import has_parts
from engine.data.shapes.vocabulary import (
    ABOUT,
    ANSWER_NAMES,
    ASKED,
    CHOSEN,
    LABELLED_TEXTS,
    LABELS,
    LIKED,
    MESSAGES,
    NEGATIVES,
    PAIRS,
    QUESTION_NAMES,
    REJECTED,
    SCORES,
    SIMILAR,
    SYSTEMS,
    TEXTS,
    TOOLS,
    WEAK_LABELS,
)
from engine.data.source import Shape


@dataclass(frozen=True, slots=True)
class Match:
    """A shape, and the column of each part. `liked` may be among a pair's or a conversation's parts: where its values
    are thumbs, the row is feedback."""

    shape: Shape
    columns: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Unclear:
    """Several columns could play a part equally well."""

    shape: Shape
    part: str
    choices: tuple[str, ...]


Found = Match | Unclear | None
Names = dict[str, str]
"""Columns as they are written, by their plain name."""


def plain_name(column: str) -> str:
    """A column's name in lower case with words joined by "_": "User Question" and "userQuestion" are alike."""
    apart = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", column.strip())
    return re.sub(r"[\W_]+", "_", apart.casefold()).strip("_")


def match_columns(columns: Sequence[str], texts: Iterable[str], shape: Shape, given: Mapping[str, str]) -> Found:
    """The parts that `columns` play; of them, `texts` hold text or lists.

    With `shape` "auto" the first shape that all required parts are found for; else only that shape. `given` are the
    parts that a person pointed out; their columns play no other. None where nothing is recognised.
    """
    taken = set(given.values())
    names: Names = {}
    for column in columns:
        if column not in taken:
            names.setdefault(plain_name(column), column)
    if shape != "auto":
        return _FINDERS[shape](names, set(texts), given, False)
    unclear: Unclear | None = None
    for known, finder in _FINDERS.items():
        if not has_parts(known, given):
            continue
        found = finder(names, set(texts), given, True)
        if isinstance(found, Match):
            return found
        unclear = unclear or found
    return unclear


def _preference(names: Names, texts: set[str], given: Mapping[str, str], is_guess: bool) -> Found:
    parts = _first({"chosen": CHOSEN, "rejected": REJECTED}, names, given)
    if parts is None:
        return None
    return Match("preference", parts | _optional(parts, names, question=ASKED, system=SYSTEMS, tools=TOOLS))


def _messages(names: Names, texts: set[str], given: Mapping[str, str], is_guess: bool) -> Found:
    parts = _first({"messages": MESSAGES}, names, given)
    if parts is None:
        return None
    return Match("messages", parts | _optional(parts, names, system=SYSTEMS, tools=TOOLS, liked=LIKED))


def _pair(names: Names, texts: set[str], given: Mapping[str, str], is_guess: bool) -> Found:
    parts: dict[str, str] = dict(given)
    if "question" not in given and "answer" not in given:
        for question, further, answer in PAIRS:
            if question in names and answer in names:
                parts |= {"question": names[question], "answer": names[answer]}
                if further in names and "further" not in parts:
                    parts["further"] = names[further]
                return Match("pair", _with_pair_extras(parts, names))
    for part, vocabulary in (("question", QUESTION_NAMES), ("answer", ANSWER_NAMES)):
        if part in parts:
            continue
        best = _best({name: column for name, column in names.items() if column in texts}, vocabulary, parts)
        if not best:
            return None
        if len(best) > 1:
            other = ANSWER_NAMES if part == "question" else QUESTION_NAMES
            rest = {name: column for name, column in names.items() if column in texts and column not in best}
            has_other = "answer" in parts or "question" in parts or bool(_best(rest, other, {}))
            return Unclear("pair", part, best) if has_other else None
        parts[part] = best[0]
    return Match("pair", _with_pair_extras(parts | _optional(parts, names, further=("input", "context")), names))


def _with_pair_extras(parts: dict[str, str], names: Names) -> dict[str, str]:
    return parts | _optional(parts, names, system=SYSTEMS, history=("history",), tools=TOOLS, liked=LIKED)


def _best(names: Names, vocabulary: Mapping[str, int], parts: Mapping[str, str]) -> tuple[str, ...]:
    """The columns that score highest for a part."""
    taken = set(parts.values())
    scores = {column: _score(name, vocabulary) for name, column in names.items() if column not in taken}
    highest = max(scores.values(), default=0)
    return tuple(column for column, score in scores.items() if score == highest) if highest else ()


def _score(name: str, vocabulary: Mapping[str, int]) -> int:
    """Twice what the vocabulary says of the whole name, one less when only a word of it is known."""
    if whole := vocabulary.get(name) or vocabulary.get(name.removesuffix("s")):
        return 2 * whole
    words = name.split("_")
    if ABOUT.intersection(words):
        return 0
    known = [vocabulary.get(word, vocabulary.get(word.removesuffix("s"), 0)) for word in words]
    # A word that only may mean a question means it even less within a longer name.
    return max((2 * each - 1 for each in known if each > 1), default=0)


def _similar(names: Names, texts: set[str], given: Mapping[str, str], is_guess: bool) -> Found:
    parts = None
    for anchors, positives in SIMILAR:
        parts = parts or _first({"anchor": anchors, "positive": positives}, names, given)
    if parts is None and not is_guess:
        more = {"anchor": ("anchor", "query", "question", "prompt", "title"), "positive": ("answer", "text", "body")}
        parts = _first(more, names, given)
    if parts is None:
        return None
    if "negative" not in parts and (negatives := [names[name] for name in names if NEGATIVES.fullmatch(name)]):
        parts["negative"] = ", ".join(negatives)
    # Of two sentences a label says whether they mean the same; beside a question it may be anything.
    are_sentences = plain_name(parts["anchor"])[-1:] in ("1", "a")
    scores = (*SCORES, "label") if are_sentences else SCORES
    return Match("similar", parts | _optional(parts, names, score=scores))


def _labelled(names: Names, texts: set[str], given: Mapping[str, str], is_guess: bool) -> Found:
    strong = _first({"text": LABELLED_TEXTS, "label": LABELS}, names, given)
    telling = [name for name in names if not ABOUT.intersection(name.split("_"))]
    may_be_weak = not is_guess or len(telling) + len(given) <= 2
    weak = _first({"text": LABELLED_TEXTS, "label": WEAK_LABELS}, names, given) if may_be_weak else None
    parts = strong or weak
    if parts is None:
        return None
    return Match("labelled", parts | _optional(parts, names, further=("hypothesis",)))


def _text(names: Names, texts: set[str], given: Mapping[str, str], is_guess: bool) -> Found:
    parts = _first({"text": TEXTS}, names, given)
    return Match("text", parts) if parts else None


def _feedback(names: Names, texts: set[str], given: Mapping[str, str], is_guess: bool) -> Found:
    """Only where a person says so: told from the values of `liked` otherwise."""
    if is_guess and "liked" not in given:
        return None
    liked = _first({"liked": LIKED}, names, given)
    if liked is None:
        return None
    left = {name: column for name, column in names.items() if column != liked["liked"]}
    asked = {part: column for part, column in given.items() if part != "liked"}
    if "answer" not in asked and "question" not in asked and (whole := _first({"answer": MESSAGES}, left, asked)):
        return Match("feedback", liked | whole | _optional(whole, left, system=SYSTEMS, tools=TOOLS))
    if "answer" in asked and isinstance(found := _pair(left, texts, asked, is_guess), Match | None):
        columns = found.columns if found else asked
        return Match("feedback", {part: column for part, column in columns.items() if part != "liked"} | liked)
    pair = _pair(left, texts, asked, is_guess)
    if not isinstance(pair, Match):
        return Unclear("feedback", pair.part, pair.choices) if pair else None
    known = {part: column for part, column in pair.columns.items() if part not in ("liked", "history")}
    return Match("feedback", known | liked)


def _template(names: Names, texts: set[str], given: Mapping[str, str], is_guess: bool) -> Found:
    return None if is_guess else Match("template", {})


def _first(parts: Mapping[str, Sequence[str]], names: Names, given: Mapping[str, str]) -> dict[str, str] | None:
    """Each part's first name that is there, beside what was given; None where one has none."""
    found = dict(given)
    for part, known in parts.items():
        if part in found:
            continue
        column = next((names[name] for name in known if name in names and names[name] not in found.values()), None)
        if column is None:
            return None
        found[part] = column
    return found


def _optional(parts: Mapping[str, str], names: Names, **optional: Sequence[str]) -> dict[str, str]:
    """Columns for parts that may be there, of those that play none yet."""
    found: dict[str, str] = {}
    for part, known in optional.items():
        taken = {*parts.values(), *found.values()}
        column = next((names[name] for name in known if name in names and names[name] not in taken), None)
        if part not in parts and column is not None:
            found[part] = column
    return found


_Finder = Callable[[Names, set[str], Mapping[str, str], bool], Found]
# In the order in which a row is tried.
_FINDERS: dict[Shape, _Finder] = {
    "preference": _preference,
    "feedback": _feedback,
    "messages": _messages,
    "pair": _pair,
    "similar": _similar,
    "labelled": _labelled,
    "text": _text,
    "template": _template,
}
