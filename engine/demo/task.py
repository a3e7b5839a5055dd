"""The demo's task: what patients write to a clinic, and the record the clinic wants of it.

`python -m engine.demo.task` writes the two data files. A row is a chat of two turns: the message, and the
record as compact JSON. Every fact of a record stands in its message or follows from it; what is not told is
null. First and last names of the held-out rows are in no training row.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from random import Random

from . import HELD_OUT_FILE, TRAIN_FILE
from .words import any_date, family_name, given_name, phone_digits, pool, written_date, written_phone

SEED = 7
TRAIN_ROWS = 2_000
HELD_OUT_ROWS = 200

_GIVEN_NAMES = pool(
    "Aaron Abigail Adele Agnes Ahmed Aisha Alan Alejandro Alice Alina Amara Amelia Amir Andrea Angela Anita "
    "Anna Anton Arjun Arthur Astrid Barbara Beatrice Benjamin Bernard Bianca Boris Brenda Bruno Camille "
    "Carla Carlos Caroline Cecilia Charles Chloe Christina Clara Claudia Colin Cynthia Daniel Daria David "
    "Deborah Denis Diana Diego Dimitri Dominic Dorothy Edith Edward Elena Elias Elise Emil Emma Enrico Erik "
    "Esther Eva Fatima Felix Fiona Florence Frances Frank Gabriel George Gerard Giulia Gloria Grace Gregory "
    "Gustav Hannah Harold Hassan Heather Helen Henry Hugo Ibrahim Ingrid Irene Isabel Ivan Jacob James Jana "
    "Jasmin Joan Joel Johanna Jonas Joseph Joyce Judith Julia Karen Karim Karl Katarina Keiko Kenji Kevin "
    "Klara Lars Laura Leila Leon Liam Linda Lorenzo Louise Lucas Lydia Magnus Malik Marcel Margaret Maria "
    "Marion Marta Martin Matilda Matteo Maya Michael Mina Miriam Mohammed Monica Nadia Naomi Natalie Nathan "
    "Nicholas Nina Noah Nora Olga Oliver Omar Oscar Pablo Patricia Paula Peter Philip Pia Priya Rachel "
    "Rafael Ralph Ravi Rebecca Richard Robert Rosa Ruth Samir Samuel Sandra Sara Sebastian Silvia Simon "
    "Sofia Sonja Stefan Susan Sven Tamara Tariq Teresa Theodore Thomas Tobias Ursula Valerie Vera Victor "
    "Vincent Walter Wendy Yasmin Yusuf Zara"
)
_FAMILY_NAMES = pool(
    "Abbott Adeyemi Aguilar Ahlberg Ali Almeida Andersen Archer Arnold Baker Banerjee Barrett Bauer Becker "
    "Bennett Bergman Bianchi Bishop Blake Bouchard Bowen Brandt Brennan Brooks Burke Campbell Carlsson "
    "Carter Castillo Chambers Chen Clarke Cohen Coleman Conti Cooper Costa Crawford Cruz Dahl Davies Delgado "
    "Dixon Doyle Dubois Duncan Eriksson Evans Farah Farrell Ferrari Fischer Fletcher Flores Forbes Foster "
    "Fournier Fraser Fuchs Garcia Gardner Gibson Gomez Graham Grant Greene Gupta Haas Hansen Harper Hayes "
    "Henderson Herrera Hoffmann Holm Hughes Hussain Ibsen Ivanov Jackson Jansen Jensen Johansson Jovanovic "
    "Kaplan Kaur Keller Kelly Khan Kim Klein Kowalski Kumar Lambert Larsen Lawson Lehmann Lewis Lindgren "
    "Lopez Lund Marino Marshall Martinez Mason Mehta Mendes Meyer Miller Mitchell Moreau Morgan Moretti "
    "Murphy Nakamura Navarro Nguyen Nielsen Novak Nowak Olsen Ortega Osborne Owens Palmer Park Patel Pearson "
    "Pereira Petrov Phillips Pierce Popescu Porter Price Quinn Ramirez Rao Reed Reyes Ricci Richter Rivera "
    "Rossi Roth Rousseau Russo Sanchez Santos Sato Schmidt Schneider Shah Sharma Silva Singh Sokolov Spencer "
    "Stewart Suzuki Svensson Tanaka Taylor Torres Tran Tucker Turner Vargas Vasquez Vogel Wagner Walsh "
    "Watson Weber Weiss Wheeler Wright Yamamoto Yilmaz Young Zhang Zimmermann"
)
_MEDICATIONS = pool(
    "amlodipine atorvastatin bisoprolol candesartan cetirizine citalopram codeine diclofenac doxycycline "
    "fluoxetine furosemide gabapentin ibuprofen insulin lansoprazole levothyroxine lisinopril loratadine "
    "losartan metformin methotrexate metoprolol naproxen omeprazole pantoprazole paracetamol prednisolone "
    "ramipril salbutamol sertraline simvastatin tramadol warfarin zopiclone"
)

_REASONS = {
    "prescription": (
        "I need a new prescription", "my prescription has run out", "could you renew my prescription",
        "please send a repeat prescription to the pharmacy", "I'm running out of my tablets and need more",
        "I need a refill of my medicine",
    ),
    "appointment": (
        "I'd like to book an appointment", "could I come in to see the doctor", "do you have a free slot",
        "I want to arrange a visit", "can you fit me in for an appointment",
        "I'd like a time with the doctor",
    ),
    "results": (
        "I am waiting for my blood test results", "have my results come back", "what did the scan show",
        "I wanted to ask about my x-ray result", "did the lab send my test results yet",
    ),
    "referral": (
        "I need a referral to a specialist", "could you refer me to a skin specialist",
        "the physio asks for a referral letter", "my referral to the heart clinic never came",
        "please refer me to an eye doctor",
    ),
    "certificate": (
        "I need a sick note for work", "my employer asks for a certificate", "could you write me a sick note",
        "please issue a medical certificate", "I need a fitness certificate for my sports club",
    ),
    "vaccination": (
        "I'd like a flu shot", "I need my travel vaccinations", "could I have the jab against measles",
        "is it time for my next vaccination", "I want to get vaccinated",
    ),
    "billing": (
        "I have a question about my bill", "I think I was charged twice", "the invoice you sent is wrong",
        "could I pay my bill in parts", "I got a reminder for a bill that I paid",
    ),
    "symptoms": (
        "I have a bad headache", "my knee hurts", "I've had a cough", "I have a fever", "my back hurts",
        "I have pain in my shoulder", "my stomach hurts", "I have a sore throat",
    ),
}  # fmt: skip

_URGENCIES = {
    "routine": (
        "There is no hurry.", "It is not urgent.", "Any time next month is fine.", "No rush at all.",
        "It can wait a few weeks.", "Take your time with it.",
    ),
    "soon": (
        "I hope it can be done this week.", "Please do it in the next few days.",
        "It should not wait too long.", "By the end of the week would be good.", "The sooner the better.",
        "It's slowly getting worse.",
    ),
    "urgent": (
        "It is very urgent!", "I need help today.", "Please answer right away.", "This is an emergency.",
        "It got much worse overnight.", "As fast as you can, please!",
    ),
}  # fmt: skip

_CALLBACKS = {
    "morning": (
        "Call me in the morning.", "I'm reachable before noon.", "Mornings are best to phone me.",
        "You can get me first thing after breakfast.",
    ),
    "afternoon": (
        "Call me in the afternoon.", "I'm free after lunch.", "Afternoons are best to phone me.",
        "I can talk between two and four.",
    ),
    "evening": (
        "Call me in the evening.", "I'm home after six.", "Evenings are best to phone me.",
        "Please ring after dinner.",
    ),
}  # fmt: skip

_MEDICATION_TELLINGS = (
    "I take {}.", "I'm on {}.", "I have been taking {} for years.", "My medication is {}.",
    "At the moment I use {}.", "The only thing I take is {}.", "I was put on {} last year.",
    "Every day I take {}.",
)  # fmt: skip
_NO_MEDICATION_TELLINGS = ("", "", "I take no medication.", "I'm not on any medicine.", "No regular tablets.")

_NAME_TELLINGS = (
    "My name is {}.", "This is {}.", "{} here.", "I am {}.", "It's {}.", "I'm {}, a patient of yours.",
    "Name: {}.", "You know me, {}.", "{} writing.", "I am registered as {}.",
)  # fmt: skip
_BIRTH_TELLINGS = (
    "I was born on {}.", "Date of birth {}.", "My date of birth is {}.", "Born {}.", "DOB {}.",
    "My birthday is {}.", "Birth date: {}.", "d.o.b. {}.",
)  # fmt: skip
_PHONE_TELLINGS = (
    "My number is {}.", "Phone {}.", "You can reach me on {}.", "Tel. {}.", "My phone is {}.", "Call {}.",
    "I'm on {}.", "Mobile: {}.", "Ring me on {}.",
)  # fmt: skip

_GREETINGS = (
    "Hello,", "Hi,", "Dear doctor,", "Dear team,", "Hello there,", "Good day,",
    "Hi doctor,", "To the clinic:", "Dear Sir or Madam,",
)  # fmt: skip
_FAREWELLS = (
    "Thank you.", "Thanks!", "Many thanks.", "Kind regards", "Best wishes", "Thanks in advance.",
    "Have a good day.", "Thank you for your help.", "Sorry for the trouble.", "Cheers",
)  # fmt: skip
_SIGNED_FAREWELLS = (
    "Thanks, {}",
    "Kind regards, {}",
    "Yours, {}",
    "Best wishes, {}",
    "Regards, {}",
    "Thank you! {}",
)
_ASIDES = (
    "I hope you are all well.", "Your line was busy all day.", "I was with you last spring.",
    "We spoke a while ago.", "I've been a patient for {} years.", "My husband says hello.",
    "It was me who lost the umbrella.", "I live {} minutes away.", "Parking was easy last time.",
    "The nurse was very kind.",
)  # fmt: skip

# Slips of the kind people make, none of them in a word that carries a fact.
_SLIPS = {
    "the": "teh", "please": "plese", "Please": "Pls", "would": "woud", "thank": "thnak", "Thank": "Thnak",
    "doctor": "docter", "need": "ned", "have": "hav", "number": "nubmer", "because": "becuase",
    "Thanks": "Thx", "could": "coud", "with": "wiht", "you": "u", "is": "si", "my": "my my", "Hello": "Helo",
    "and": "adn",
}  # fmt: skip


@dataclass(frozen=True)
class Names:
    """The first and last names that a set of rows draws from."""

    given: tuple[str, ...]
    family: tuple[str, ...]


def split_names(rng: Random) -> tuple[Names, Names]:
    """Names for training and for the held-out rows, with none in common.

    Most are put together from parts: of common ones alone a model would learn a list, and not to copy.
    """
    given = sorted({*_GIVEN_NAMES, *(given_name(rng) for _ in range(1_200))})
    family = sorted({*_FAMILY_NAMES, *(family_name(rng) for _ in range(1_600))} - set(given))
    rng.shuffle(given)
    rng.shuffle(family)
    return Names(tuple(given[150:]), tuple(family[150:])), Names(tuple(given[:150]), tuple(family[:150]))


def _mistyped(rng: Random, text: str) -> str:
    """The text with one or two slips."""
    parts = text.split(" ")
    candidates = [number for number, part in enumerate(parts) if part in _SLIPS]
    for number in rng.sample(candidates, min(len(candidates), rng.randint(1, 2))):
        parts[number] = _SLIPS[parts[number]]
    return " ".join(parts)


def make_row(rng: Random, names: Names) -> dict[str, list[dict[str, str]]]:
    """One message with its record."""
    name = f"{rng.choice(names.given)} {rng.choice(names.family)}"
    born = any_date(rng, 1935, 2007)
    digits = phone_digits(rng, 9, 9)
    reason, urgency = rng.choice(tuple(_REASONS)), rng.choice(tuple(_URGENCIES))
    medication = rng.choice(_MEDICATIONS) if rng.random() < 0.6 else None
    callback = rng.choice(tuple(_CALLBACKS)) if rng.random() < 0.65 else None

    matter = rng.choice(_REASONS[reason])
    question = matter.startswith(("could", "do ", "did ", "can ", "have my", "what", "are ", "is "))
    matter = matter[0].upper() + matter[1:] + ("?" if question else ".")
    signed = rng.random() < 0.25
    sentences = [
        matter,
        rng.choice(_URGENCIES[urgency]),
        rng.choice(_BIRTH_TELLINGS).format(written_date(rng, born)),
        rng.choice(_PHONE_TELLINGS).format(written_phone(rng, digits)),
        rng.choice(_MEDICATION_TELLINGS).format(medication) if medication else rng.choice(_NO_MEDICATION_TELLINGS),
        rng.choice(_CALLBACKS[callback]) if callback else "",
        "" if signed else rng.choice(_NAME_TELLINGS).format(name),
        rng.choice(_ASIDES).format(rng.randint(2, 30)) if rng.random() < 0.2 else "",
    ]
    rng.shuffle(sentences)
    if rng.random() < 0.6:
        sentences.insert(0, rng.choice(_GREETINGS))
    if signed:
        sentences.append(rng.choice(_SIGNED_FAREWELLS).format(name))
    elif rng.random() < 0.5:
        sentences.append(rng.choice(_FAREWELLS))
    message = " ".join(sentence for sentence in sentences if sentence)
    if rng.random() < 0.25:
        message = _mistyped(rng, message)

    record = {
        "name": name,
        "born": born.isoformat(),
        "phone": digits,
        "reason": reason,
        "urgency": urgency,
        "medication": medication,
        "callback": callback,
    }
    answer = json.dumps(record, ensure_ascii=False, separators=(",", ":"))
    return {"messages": [{"role": "user", "content": message}, {"role": "assistant", "content": answer}]}


def write_rows(path: Path, rng: Random, names: Names, count: int) -> None:
    """Writes a data file in one piece."""
    lines = [json.dumps(make_row(rng, names), ensure_ascii=False) + "\n" for _ in range(count)]
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_suffix(".new")
    aside.write_text("".join(lines), encoding="utf-8")
    aside.replace(path)


def main() -> None:
    """Writes both files."""
    rng = Random(SEED)
    train_names, held_out_names = split_names(rng)
    write_rows(TRAIN_FILE, rng, train_names, TRAIN_ROWS)
    write_rows(HELD_OUT_FILE, rng, held_out_names, HELD_OUT_ROWS)


if __name__ == "__main__":
    main()
