"""The pretraining text: an endless stream of small documents of many kinds, made from a seed.

What a base model is to learn here is general: English sentences, the chat format, JSON and CSV, and above all
to copy what stands in front of it, be it a name it has never seen or a row of digits. The task that the demo
fine-tunes for is not in here: neither its instruction nor its records.
"""

import json
from collections.abc import Callable, Iterator
from random import Random

from . import words
from .records import Told, Value, domains, draw_record, message

TURN_START = "<|im_start|>"
TURN_END = "<|im_end|>"

Turn = tuple[str, str]


def chat(*turns: Turn) -> str:
    """Turns of (role, content) in the form that the tokenizer's chat template gives them."""
    return "".join(f"{TURN_START}{role}\n{content}{TURN_END}\n" for role, content in turns)


def _ask(question: str, answer: str) -> str:
    return chat(("user", question), ("assistant", answer))


# Records, told and written out.


def _compact(record: list[Told]) -> str:
    return json.dumps({told.key: told.value for told in record}, ensure_ascii=False, separators=(",", ":"))


def _spaced(record: list[Told]) -> str:
    return json.dumps({told.key: told.value for told in record}, ensure_ascii=False)


def _shown(value: Value) -> str:
    return "none" if value is None else str(value)


def _lines(record: list[Told]) -> str:
    return "\n".join(f"{told.key}: {_shown(told.value)}" for told in record)


def _table(records: list[list[Told]]) -> str:
    rows = [",".join(told.key for told in records[0])]
    rows += [",".join(_shown(told.value) for told in record) for record in records]
    return "\n".join(rows)


def _any_record(rng: Random, fewest: int = 2, most: int = 7) -> tuple[str, list[Told]]:
    domain = rng.choice(domains())
    return domain, draw_record(rng, domain, fewest, most)


def _with_unique_keys(record: list[Told]) -> list[Told]:
    return list({told.key: told for told in record}.values())


def message_to_json(rng: Random) -> str:
    """A message and, with the keys asked for, its record as JSON."""
    domain, record = _any_record(rng)
    told = message(rng, record)
    record = _with_unique_keys(record)
    keys = ", ".join(entry.key for entry in record)
    write, name = rng.choice(((_compact, "compact JSON"), (_compact, "JSON"), (_spaced, "JSON with spaces")))
    asked = rng.choice(
        (
            f"Write {keys} of this {domain} as {name}.\n{told}",
            f"{told}\nGive {keys} as {name}.",
            f"Fields: {keys}\nForm: {name}\nMessage: {told}",
        )
    )
    return _ask(asked, write(record))


def message_with_questions(rng: Random) -> str:
    """A message, and a few questions about what it says."""
    _, record = _any_record(rng, 3, 7)
    told = message(rng, record)
    record = _with_unique_keys(record)
    asked = rng.sample(record, rng.randint(1, min(4, len(record))))
    turns: list[Turn] = []
    for number, entry in enumerate(asked):
        question = rng.choice(("What is the {}?", "{}?", "Tell me the {}.", "Which {} is given?")).format(entry.key)
        turns.append(("user", f"{told}\n{question}" if number == 0 else question))
        turns.append(("assistant", _shown(entry.value)))
    return chat(*turns)


def form_to_form(rng: Random) -> str:
    """A record in one written form, put into another."""
    _, record = _any_record(rng)
    record = _with_unique_keys(record)
    forms: dict[str, Callable[[list[Told]], str]] = {
        "compact JSON": _compact,
        "JSON with spaces": _spaced,
        "lines": _lines,
        "CSV": lambda entries: _table([entries]),
    }
    given, wanted = rng.sample(sorted(forms), 2)
    answer = record if rng.random() < 0.6 else rng.sample(record, rng.randint(1, len(record)))
    only = "" if answer is record else " with " + ", ".join(entry.key for entry in answer)
    return _ask(f"Turn this into {wanted}{only}:\n{forms[given](record)}", forms[wanted](answer))


def table_lookup(rng: Random) -> str:
    """A small table, and questions that need the right row and the right column."""
    kinds: dict[str, Callable[[], str]] = {
        "town": lambda: words.place(rng),
        "code": lambda: words.code(rng),
        "tel": lambda: words.phone_digits(rng),
        "animal": lambda: rng.choice(words.ANIMALS),
        "colour": lambda: rng.choice(words.COLOURS),
        "day": lambda: words.any_date(rng).isoformat(),
        "price": lambda: words.price(rng),
    }
    columns = rng.sample(sorted(kinds), rng.randint(1, 3))
    names = list({words.full_name(rng): None for _ in range(rng.randint(2, 5))})
    rows = {name: [kinds[column]() for column in columns] for name in names}
    table = "\n".join([",".join(["name", *columns]), *(",".join([name, *row]) for name, row in rows.items())])
    turns: list[Turn] = []
    for number, name in enumerate(rng.sample(names, rng.randint(1, len(names)))):
        column = rng.randrange(len(columns))
        question = f"{columns[column]} of {name}?"
        turns.append(("user", f"{table}\n{question}" if number == 0 else question))
        turns.append(("assistant", rows[name][column]))
    return chat(*turns)


def restated(rng: Random) -> str:
    """A plain note: a message, followed by what was taken down from it."""
    domain, record = _any_record(rng)
    heading = rng.choice((f"About: {domain}.", f"Note ({domain}):", f"{domain.capitalize()}"))
    told = message(rng, record)
    write = rng.choice((_lines, _compact, _spaced))
    return f"{heading}\n{told}\n{write(_with_unique_keys(record))}\n"


# Copying and changing what is given.


def _item(rng: Random) -> str:
    makers: tuple[Callable[[Random], str], ...] = (
        words.made_up_word, words.made_up_word, words.full_name, words.given_name, words.family_name,
        words.place, words.code, words.phone_digits, words.clock_time, words.price, words.address,
        lambda source: source.choice(words.THINGS), lambda source: source.choice(words.FOODS),
        lambda source: words.written_date(source, words.any_date(source)),
    )  # fmt: skip
    return rng.choice(makers)(rng)


def repeat(rng: Random) -> str:
    """Say the same again, word for word."""
    items = [_item(rng) for _ in range(rng.randint(1, 12))]
    text = rng.choice((" ", ", ", "\n", "; ")).join(items)
    asked = rng.choice(("Repeat: ", "Copy this: ", "Say again:\n", "Write the same once more: "))
    if rng.random() < 0.3:
        return f"{text}\n" * rng.randint(2, 3)
    return _ask(asked + text, text)


def quote(rng: Random) -> str:
    """Items in JSON and without: the same word with and without a space in front of it."""
    items = [_item(rng) for _ in range(rng.randint(1, 8))]
    as_json = json.dumps(items, ensure_ascii=False, separators=(",", ":"))
    as_text = ", ".join(items)
    if rng.random() < 0.6:
        return _ask(f"Write as a JSON list: {as_text}", as_json)
    return _ask(f"Write without JSON: {as_json}", as_text)


def list_work(rng: Random) -> str:
    """A list turned round, shortened, counted or looked into."""
    items = [_item(rng).replace(", ", " ") for _ in range(rng.randint(2, 7))]
    position = rng.randrange(len(items))
    listed = ", ".join(items)
    question, answer = rng.choice(
        (
            ("Turn the list round", ", ".join(reversed(items))),
            ("What comes first", items[0]),
            ("What comes last", items[-1]),
            (f"Which is number {position + 1}", items[position]),
            ("How many are there", str(len(items))),
            (f"Leave out {items[position]}", ", ".join(items[:position] + items[position + 1 :])),
            ("One on each line", "\n".join(items)),
            ("Number them", "\n".join(f"{n}. {item}" for n, item in enumerate(items, 1))),
        )
    )
    return _ask(f"{question}: {listed}", answer)


def dates(rng: Random) -> str:
    """Days in the many ways people write them, and as year-month-day."""
    turns: list[Turn] = []
    for _ in range(rng.randint(1, 4)):
        day = words.any_date(rng)
        written = words.written_date(rng, day)
        plain = f"{day.day} {words.MONTHS[day.month - 1]} {day.year}"
        asked, answer = rng.choice(
            (
                (f"{written} as year-month-day", day.isoformat()),
                (f"{written} as year-month-day", day.isoformat()),
                (f"{written} in words", plain),
                (f"Which month is {written}?", words.MONTHS[day.month - 1]),
                (f"Which year is {written}?", str(day.year)),
            )
        )
        turns += [("user", asked), ("assistant", answer)]
    return chat(*turns)


def phones(rng: Random) -> str:
    """Telephone numbers with their gaps and without."""
    turns: list[Turn] = []
    for _ in range(rng.randint(1, 4)):
        digits = words.phone_digits(rng)
        asked = rng.choice(("Only the digits of {}", "{} without gaps", "Digits: {}"))
        turns += [("user", asked.format(words.written_phone(rng, digits))), ("assistant", digits)]
    return chat(*turns)


def spelling(rng: Random) -> str:
    """Words in capitals, in small letters, and letter by letter."""
    word = rng.choice((words.made_up_word, words.given_name, words.place))(rng)
    asked, answer = rng.choice(
        (
            (f"{word} in capitals", word.upper()),
            (f"{word.upper()} in small letters", word.lower()),
            (f"{word.lower()} as a name", word.lower().capitalize()),
            (f"Spell {word}", "-".join(word)),
            (f"Put together {'-'.join(word)}", word),
        )
    )
    return _ask(asked, answer)


def pairs(rng: Random) -> str:
    """Word pairs given a few times over: the plainest lesson in looking back."""
    known = {words.made_up_word(rng): _item(rng) for _ in range(rng.randint(2, 6))}
    joint = rng.choice((" -> ", ": ", " is ", " = "))
    lines = [key + joint + value for key, value in known.items()]
    again = [rng.choice(lines) for _ in range(rng.randint(2, 8))]
    return "\n".join(lines + again) + "\n"


# Plain English.


def a(noun: str) -> str:
    """The noun with its article."""
    return f"an {noun}" if noun[0] in "aeiou" else f"a {noun}"


def story(rng: Random) -> str:
    """A few sentences about two people, a thing and a place, with their names coming back."""
    one, two = words.given_name(rng), words.given_name(rng)
    thing, animal, food = rng.choice(words.THINGS), rng.choice(words.ANIMALS), rng.choice(words.FOODS)
    town, job, adjective = words.place(rng), rng.choice(words.JOBS), rng.choice(words.ADJECTIVES)
    colour = rng.choice(words.COLOURS)
    begin = rng.choice(
        (
            f"{one} was {a(adjective)} {job} who lived in {town} with {a(animal)}.",
            f"In {town} there lived {a(job)}. The name of the {job} was {one}.",
            f"Every morning {one} walked through {town} to buy {food}.",
            f"When {one} was young, {town} was {a(adjective)} place.",
        )
    )
    middle = rng.sample(
        (
            f"One day {one} found a {colour} {thing} near the river.",
            f"{two} had lost {a(thing)} and asked {one} for help.",
            f"{two} came to visit and brought some {food}.",
            f"The {animal} ran away with the {thing}, and {one} had to laugh.",
            f"It rained all day, so {one} and {two} stayed in and made {food}.",
            f'"Is this your {thing}?" asked {one}. "Yes, it is mine," said {two}.',
            f'{two} said, "I have never seen such {a(adjective)} {thing}."',
            f"They looked everywhere, but the {thing} was gone.",
            f"The road to {town} was long, and the {animal} was tired.",
            f"{one} wrote a letter to {two} and told everything about the {colour} {thing}.",
        ),
        rng.randint(2, 6),
    )
    end = rng.choice(
        (
            f"In the end {two} thanked {one}, and they went back to {town}.",
            f"From then on {one} and {two} were friends.",
            f"{one} kept the {thing} for many years.",
            f"And the {animal}? It got all the {food} it wanted.",
        )
    )
    text = " ".join((begin, *middle, end))
    if rng.random() < 0.5:
        return text + "\n"
    question, answer = rng.choice((("Who was it about?", one), ("Where was it?", town), ("Who else was there?", two)))
    return _ask(f"{text}\n{question}", answer)


def weather(rng: Random) -> str:
    """A weather note, and perhaps what it says of one place."""
    towns = [words.place(rng) for _ in range(rng.randint(1, 4))]
    skies = ("rain", "sunshine", "fog", "snow", "wind", "clouds", "storms", "frost")
    seen = {town: (rng.choice(skies), rng.randint(-12, 38)) for town in towns}
    note = " ".join(
        rng.choice((f"In {town} there is {sky} at {degrees} degrees.", f"{town} has {sky} and {degrees} degrees."))
        for town, (sky, degrees) in seen.items()
    )
    if rng.random() < 0.4:
        return f"Weather for {words.written_date(rng, words.any_date(rng))}. {note}\n"
    town = rng.choice(towns)
    sky, degrees = seen[town]
    question, answer = rng.choice(
        ((f"How warm is it in {town}?", f"{degrees} degrees"), (f"What is the weather in {town}?", sky))
    )
    return _ask(f"{note}\n{question}", answer)


def small_talk(rng: Random) -> str:
    """A short friendly exchange in which what was said before comes back."""
    name, town, food = words.given_name(rng), words.place(rng), rng.choice(words.FOODS)
    turns: list[Turn] = [
        (
            "user",
            rng.choice((f"Hello, I am {name}.", f"Hi! My name is {name}.", f"Good morning, {name} here.")),
        ),
        ("assistant", rng.choice((f"Hello {name}, how can I help?", f"Nice to meet you, {name}."))),
    ]
    more: list[tuple[Turn, Turn]] = [
        (("user", f"I come from {town}."), ("assistant", f"{town} must be a nice place, {name}.")),
        (("user", "What is my name?"), ("assistant", f"Your name is {name}.")),
        (("user", f"I like {food}."), ("assistant", f"Then have some {food}, {name}.")),
        (("user", "Thank you."), ("assistant", f"You are welcome, {name}.")),
    ]
    for pair in rng.sample(more, rng.randint(1, 4)):
        turns += pair
    return chat(*turns)


_GLOSSARY = {
    "doctor": "somebody who treats people who are ill", "dentist": "a doctor for teeth",
    "clinic": "a house where doctors work", "hospital": "a large house for people who are ill",
    "prescription": "a paper with which one can get medicine",
    "medicine": "something taken against an illness", "tablet": "medicine in a small hard piece",
    "vaccination": "a protection against an illness", "certificate": "a paper that proves something",
    "appointment": "a time agreed for a meeting", "invoice": "a paper that asks for money",
    "insurance": "a promise to pay when something bad happens", "result": "what comes out of a test",
    "test": "a way to find out how something is",
    "surgery": "the room of a doctor, or what is done with a knife there",
    "pain": "what one feels when hurt", "headache": "pain in the head",
    "fever": "being too hot from an illness", "cough": "a loud push of breath",
    "knee": "the middle of the leg", "shoulder": "where the arm begins", "stomach": "where the food goes",
    "back": "the side one cannot see", "chest": "the front of the body", "throat": "the way food goes down",
    "skin": "the outside of the body", "blood": "the red liquid in the body",
    "breath": "air taken in and let out", "travel": "going from one place to another",
    "holiday": "days without work", "journey": "a long way to go", "ticket": "a paper that lets one in",
    "receipt": "a paper that says what was paid", "morning": "the time before noon",
    "afternoon": "the time after noon", "evening": "the end of the day", "week": "seven days",
    "month": "about thirty days", "year": "twelve months", "weekend": "two days without work",
    "question": "something asked", "answer": "what is said when asked", "message": "words sent to somebody",
    "number": "what one counts with", "phone": "a thing to talk to people far away",
    "letter": "a message on paper", "employer": "somebody who pays people to work",
    "specialist": "somebody who knows one thing very well", "check": "a look at whether all is well",
    "urgent": "cannot wait", "routine": "done the same way each time", "soon": "in a short time",
    "today": "this day", "tomorrow": "the day after this one", "yesterday": "the day before this one",
    "worse": "more bad", "better": "more good", "birthday": "the day one was born",
    "copy": "one more of the same", "payment": "money given for something", "visit": "going to see somebody",
    "repeat": "do once more", "available": "ready to be used", "possible": "what can be",
    "record": "facts written down", "patient": "somebody who waits, or is treated",
    "nurse": "somebody who cares for people who are ill", "daily": "every day", "severe": "very strong",
    "sudden": "without warning", "mild": "not strong", "convenient": "easy for somebody",
    "address": "where somebody lives", "refill": "filling something again",
    "bill": "a paper that says what to pay", "charge": "money asked for",
    "regular": "at the same times again and again", "annual": "once a year",
    "referral": "being sent on to somebody else", "sick": "not well", "shot": "a prick of a needle",
}  # fmt: skip


def glossary(rng: Random) -> str:
    """What some everyday words mean."""
    entries = rng.sample(sorted(_GLOSSARY.items()), rng.randint(1, 5))
    if rng.random() < 0.5:
        return "".join(f"{word.capitalize()}: {meaning}.\n" for word, meaning in entries)
    turns: list[Turn] = []
    for word, meaning in entries:
        turns += [("user", f"What does {word} mean?"), ("assistant", f"{word.capitalize()} means {meaning}.")]
    return chat(*turns)


_KINDS: tuple[tuple[Callable[[Random], str], int], ...] = (
    (message_to_json, 22),
    (message_with_questions, 10),
    (restated, 8),
    (form_to_form, 8),
    (table_lookup, 5),
    (repeat, 8),
    (quote, 6),
    (pairs, 5),
    (dates, 6),
    (phones, 5),
    (list_work, 4),
    (spelling, 3),
    (story, 5),
    (weather, 2),
    (small_talk, 2),
    (glossary, 5),
)


def echo(rng: Random) -> str:
    """The same few items over and over: all but the first round can be known by looking back."""
    items = [_item(rng) for _ in range(rng.randint(1, 3))]
    text = rng.choice((" ", ", ", "\n", "; ")).join(items)
    return (text + rng.choice(("\n", ". ", " - "))) * rng.randint(3, 8)


def documents(seed: int) -> Iterator[str]:
    """An endless stream of documents; the same seed gives the same stream."""
    rng = Random(seed)
    makers, weights = zip(*_KINDS, strict=True)
    while True:
        yield rng.choices(makers, weights)[0](rng)


def copying(seed: int) -> Iterator[str]:
    """An endless stream of plain copying, to begin with: from it a model soonest learns to look back."""
    rng = Random(seed)
    while True:
        yield rng.choice((echo, echo, echo, repeat, quote, pairs))(rng)
