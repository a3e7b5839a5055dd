"""Makes the sample data beside it: one source for each shape that people have, in varied formats.

Everything is invented: a public library and its front desk. `python tests/data/samples/make_samples.py` writes the
same bytes every time; samples.toml says what each is, and how it is to be read where that does not tell itself.
"""

from __future__ import annotations

import csv
import gzip
import json
import random
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet

FOLDER = Path(__file__).parent
Row = dict[str, Any]

NAMES = (
    "Amara",
    "Bela",
    "Chidi",
    "Dafne",
    "Emil",
    "Farah",
    "Goran",
    "Hana",
    "Idris",
    "Jonas",
    "Keiko",
    "Lucia",
    "Milan",
)
TITLES = (
    *("The Salt Road", "Seven Winters", "A Field Guide to Moss", "The Clockmaker's Daughter", "Rivers at Night"),
    *("Bread and Its Makers", "The Quiet Harbour", "Maps of Nowhere", "Soil", "An Atlas of Small Islands"),
)
AUTHORS = ("I. Marten", "O. Feld", "R. Okafor", "S. Lindqvist", "T. Bayram")
BRANCHES = {"Harbour Street": "9 to 18", "Mill Lane": "10 to 19", "Old Station": "8 to 16", "Eastgate": "12 to 20"}
DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday")
TOPICS = {
    "loan": ("I cannot renew {title}.", "May I keep {title} for two more weeks?", "{title} is due today, what now?"),
    "fee": ("Why was I charged for {title}?", "I paid the fee for {title} twice.", "How much is the fee for {title}?"),
    "room": (
        "Is a study room free on {day}?",
        "I want to book the {branch} room on {day}.",
        "The {branch} room is cold.",
    ),
    "account": ("I forgot my PIN.", "Please change my address, I moved to {branch}.", "My card from {branch} is lost."),
}
ANSWERS = {
    "loan": "I have renewed {title} until next {day}.",
    "fee": "The fee for {title} is 20 cents a day; I have taken it off your account.",
    "room": "The room at {branch} is free on {day}, and I have put it down for you.",
    "account": "I have noted that; please bring a photo card to {branch} on {day}.",
}
CLOSINGS = ("", " Regards, {name}.", " This is {name}.", " I come in on {day}.", " {name}, card holder.")
CURT = {"loan": "No.", "fee": "Pay it.", "room": "Look it up yourself.", "account": "That is not my job."}
RULES = "You are the front desk of a public library. Answer in one friendly sentence."


class Desk:
    """Invented questions at the front desk, each with its topic and its answer."""

    def __init__(self, seed: int):
        self.random = random.Random(seed)

    def slots(self) -> dict[str, str]:
        pick = self.random.choice
        return {"title": pick(TITLES), "day": pick(DAYS), "branch": pick(list(BRANCHES)), "name": pick(NAMES)}

    def case(self) -> tuple[str, str, str, dict[str, str]]:
        """(topic, question, answer, what fills both)."""
        topic, slots = self.random.choice(list(TOPICS)), self.slots()
        question = f"{self.random.choice(TOPICS[topic])}{self.random.choice(CLOSINGS)}".format(**slots)
        return topic, question, ANSWERS[topic].format(**slots), slots

    def cases(self, count: int) -> Iterator[tuple[str, str, str, dict[str, str]]]:
        """So many different ones."""
        seen: set[str] = set()
        while len(seen) < count:
            case = self.case()
            if case[1] not in seen:
                seen.add(case[1])
                yield case


def said(role: str, content: str) -> Row:
    return {"role": role, "content": content}


def messages() -> Iterator[Row]:
    for _, question, answer, slots in Desk(1).cases(80):
        turns = [said("system", RULES), said("user", question), said("assistant", answer)]
        if len(question) % 2:
            turns += [said("user", "Thank you."), said("assistant", f"You are welcome, {slots['name']}.")]
        yield {"messages": turns}


def tool_calls() -> Iterator[Row]:
    tool = {
        "name": "find_book",
        "description": "Where a book stands.",
        "parameters": {"type": "object", "properties": {"title": {"type": "string"}}, "required": ["title"]},
    }
    desk = Desk(2)
    for number in range(60):
        slots = desk.slots()
        shelf, call = f"{'ABCDE'[number % 5]}{number % 17 + 1}", f"call_{number}"
        arguments = json.dumps({"title": slots["title"]})
        yield {
            "messages": [
                said("user", f"Do you have {slots['title']} at {slots['branch']}?"),
                {
                    "role": "assistant",
                    "content": None,
                    "tool_calls": [
                        {"id": call, "type": "function", "function": {"name": "find_book", "arguments": arguments}}
                    ],
                },
                {"role": "tool", "tool_call_id": call, "name": "find_book", "content": json.dumps({"shelf": shelf})},
                said("assistant", f"Yes, {slots['title']} stands on shelf {shelf}."),
            ],
            "tools": [{"type": "function", "function": tool}],
        }


def sharegpt() -> Iterator[Row]:
    for number, (_, question, answer, slots) in enumerate(Desk(3).cases(60)):
        yield {
            "id": f"desk-{number:03}",
            "system": RULES,
            "conversations": [
                {"from": "human", "value": f"Hello, I am {slots['name']}."},
                {"from": "gpt", "value": f"Good morning, {slots['name']}. How can I help?"},
                {"from": "human", "value": question},
                {"from": "gpt", "value": answer},
            ],
        }


def alpaca() -> Iterator[Row]:
    for topic, question, answer, _ in Desk(4).cases(80):
        yield {"instruction": "Answer the reader in one sentence.", "input": question, "output": answer}
        if topic == "fee":
            yield {
                "instruction": "Say what this is about: loan, fee, room or account.",
                "input": question,
                "output": topic,
            }


def prompt_completion() -> Iterator[Row]:
    for topic, question, _, slots in Desk(5).cases(100):
        record = {"topic": topic, "title": slots["title"] if slots["title"] in question else None}
        yield {"prompt": f"Reader: {question}\nRecord:", "completion": " " + json.dumps(record)}


def fragen() -> Iterator[Row]:
    """Under German names, with the answers that a shop's own export would have."""
    for number in range(70):
        branch, day, title = list(BRANCHES)[number % 4], DAYS[number % 5], TITLES[number % 10]
        question, answer = (
            (
                f"Wann öffnet die Bücherei {branch} am {day} der Woche {number // 3 + 1}?",
                f"Am {day} von {BRANCHES[branch]} Uhr.",
            ),
            (f"Haben Sie „{title}“?", f"Ja; „{title}“ steht in {branch}, Regal {number % 9 + 1}."),
            (f"Was kostet es, „{title}“ {number} Tage zu spät zu bringen?", f"Das macht {number * 20} Cent."),
        )[number % 3]
        yield {"Nr": number + 1, "Frage": question, "Antwort": answer}


def book_notes() -> Iterator[Row]:
    rng = random.Random(7)
    for number in range(60):
        title, author, year = TITLES[number % 10], AUTHORS[number % 5], 1900 + number
        parts = [f"{title}, by {author}, {year}."]
        parts += [
            f"Chapter {n + 1} is set in {rng.choice(list(BRANCHES))}; {rng.choice(NAMES)} waits there."
            for n in range(4)
        ]
        yield {"text": " ".join(parts), "source": f"notes/{number}.txt"}


def preference() -> Iterator[Row]:
    """As published sets are: whole conversations, with scores that nothing is learnt from."""
    for number, (topic, question, answer, _) in enumerate(Desk(8).cases(60)):
        asked = said("user", question)
        yield {
            "prompt": question,
            "chosen": [asked, said("assistant", answer)],
            "rejected": [asked, said("assistant", CURT[topic])],
            "score_chosen": 8.0 + number % 3,
            "score_rejected": 1.0 + number % 2,
        }


def preference_text() -> Iterator[Row]:
    for topic, question, answer, _ in Desk(9).cases(60):
        yield {"prompt": question, "chosen": answer, "rejected": CURT[topic]}


def feedback() -> Iterator[Row]:
    for number, (topic, question, answer, _) in enumerate(Desk(10).cases(80)):
        liked = number % 3 != 0
        yield {"prompt": question, "completion": answer if liked else CURT[topic], "label": liked}


def topics() -> Iterator[Row]:
    for topic, question, _, _ in Desk(11).cases(120):
        yield {"text": question, "label": topic}


def tags() -> Iterator[Row]:
    rng = random.Random(12)
    words = {
        "late": "It is overdue.",
        "damaged": "The cover is torn.",
        "children": "It is for my son.",
        "urgent": "Please hurry.",
    }
    for number in range(90):
        held = [tag for tag in words if rng.random() < 0.4]
        text = " ".join([f"Slip {number + 1}, about {TITLES[number % 10]}.", *(words[tag] for tag in held)])
        yield {"text": text, "labels": held}


def searches() -> Iterator[Row]:
    rng = random.Random(13)
    for number in range(80):
        title, author, branch = TITLES[number % 10], AUTHORS[number // 10 % 5], list(BRANCHES)[number % 4]
        other = rng.choice([each for each in TITLES if each != title])
        shelf = f"{'ABCDE'[number % 5]}{number % 17 + 1}"
        yield {
            "query": f"where is {title} by {author}",
            "positive": f"{title} ({author}) stands at {branch}, shelf {shelf}.",
            "negative": f"{other} ({author}) stands at {branch}, shelf {shelf}.",
        }


def alike() -> Iterator[Row]:
    for number, (_, question, _, slots) in enumerate(Desk(14).cases(60)):
        # Scores below 4 are too unlike to learn from; here all are alike enough.
        yield {
            "sentence1": question,
            "sentence2": f"{slots['name']} asks: {question.lower()}",
            "score": 4 + number % 11 / 10,
        }


def quiz() -> Iterator[Row]:
    """A shape of someone's own, which two templates in samples.toml explain."""
    rng = random.Random(15)
    for number in range(70):
        options = rng.sample(list(BRANCHES), 3)
        right = rng.randrange(3)
        day = DAYS[number % 5]
        yield {
            "stem": f"On {day} of week {number // 5 + 1}, which library is open from {BRANCHES[options[right]]}?",
            "A": options[0],
            "B": options[1],
            "C": options[2],
            "key": "ABC"[right],
        }


def guides() -> Iterator[tuple[str, str]]:
    """Markdown files of a handbook, in folders."""
    for number, (branch, hours) in enumerate(BRANCHES.items()):
        for topic in TOPICS:
            lines = [f"# {topic.capitalize()} at {branch}", "", f"The desk is open from {hours}.", ""]
            lines += [
                f"- {ANSWERS[topic].format(title=title, day=DAYS[number], branch=branch)}" for title in TITLES[:4]
            ]
            yield f"{branch.lower().replace(' ', '-')}/{topic}.md", "\n".join(lines) + "\n"


def main() -> None:
    write_lines("messages.jsonl", messages())
    write_lines("tool_calls.jsonl", tool_calls())
    (FOLDER / "sharegpt.json").write_text(json.dumps(list(sharegpt()), ensure_ascii=False, indent=1) + "\n")
    document = {"version": 2, "data": {"items": list(alpaca())}}
    (FOLDER / "alpaca.json.gz").write_bytes(gzip.compress(json.dumps(document).encode(), mtime=0))
    write_lines(
        "prompt_completion.jsonl.zst", prompt_completion(), lambda data: pa.compress(data, "zstd", asbytes=True)
    )
    write_table("fragen.csv", fragen(), ";", "cp1252")
    write_lines("book_notes.jsonl", book_notes())
    pa.parquet.write_table(pa.Table.from_pylist(list(preference())), FOLDER / "preference.parquet", row_group_size=25)
    write_lines("preference_text.jsonl", preference_text())
    write_table("feedback.csv", feedback(), ",", "utf-8-sig")
    write_table("topics.tsv", topics(), "\t", "utf-8")
    write_lines("tags.jsonl", tags())
    pa.feather.write_feather(pa.Table.from_pylist(list(searches())), FOLDER / "searches.arrow", compression="zstd")
    write_table("alike.csv", alike(), ",", "utf-16")
    write_table("quiz.csv", quiz(), ",", "utf-8")
    for name, text in guides():
        path = FOLDER / "handbook" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def write_lines(name: str, rows: Iterable[Row], pack: Callable[[bytes], bytes] = bytes) -> None:
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    (FOLDER / name).write_bytes(pack(text.encode()))


def write_table(name: str, rows: Iterator[Row], delimiter: str, encoding: str) -> None:
    listed = list(rows)
    with (FOLDER / name).open("w", encoding=encoding, newline="") as file:
        writer = csv.DictWriter(file, list(listed[0]), delimiter=delimiter)
        writer.writeheader()
        writer.writerows(listed)


if __name__ == "__main__":
    main()
