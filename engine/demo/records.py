"""Small records about everyday matters, each of which can be told as a message or written out as data.

They feed the pretraining text. A field may be told in one form and recorded in another (a date as people
write it and as year-month-day, a telephone number with and without its gaps), may be a choice that has to be
inferred from what was said, or may be left out of the message and recorded as null.
"""

from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from . import words

Value = str | int | None
Drawn = tuple[str, Value]


@dataclass(frozen=True)
class Field:
    """One fact: what it may be called, how a value is drawn, and sentences that tell it."""

    keys: tuple[str, ...]
    draw: Callable[[Random], Drawn]
    tellings: tuple[str, ...]
    optional: bool = False


@dataclass(frozen=True)
class Told:
    """A field with a value: the key in use, the value as recorded, and the sentence that tells it, if any."""

    key: str
    value: Value
    sentence: str


def _plain(make: Callable[[Random], str]) -> Callable[[Random], Drawn]:
    def draw(rng: Random) -> Drawn:
        value = make(rng)
        return value, value

    return draw


def _number(low: int, high: int) -> Callable[[Random], Drawn]:
    def draw(rng: Random) -> Drawn:
        value = rng.randint(low, high)
        return str(value), value

    return draw


def _date(first_year: int, last_year: int) -> Callable[[Random], Drawn]:
    def draw(rng: Random) -> Drawn:
        day = words.any_date(rng, first_year, last_year)
        return words.written_date(rng, day), day.isoformat()

    return draw


def _phone(rng: Random) -> Drawn:
    digits = words.phone_digits(rng)
    return words.written_phone(rng, digits), digits


def _one_of(options: str | tuple[str, ...]) -> Callable[[Random], Drawn]:
    pool = tuple(options.split()) if isinstance(options, str) else options
    return _plain(lambda rng: rng.choice(pool))


def _inferred(**phrases: tuple[str, ...]) -> Callable[[Random], Drawn]:
    """A choice that the message never names: the reader has to infer the label from one of its phrases."""

    def draw(rng: Random) -> Drawn:
        label = rng.choice(tuple(phrases))
        return rng.choice(phrases[label]), label

    return draw


def _person(*keys: str) -> Field:
    return Field(
        keys,
        _plain(words.full_name),
        (
            "My name is {}.",
            "This is {}.",
            "I am {}.",
            "{} here.",
            "It is for {}.",
            "Please put it under the name {}.",
            "The name is {}.",
            "You have me down as {}.",
            "It should be made out to {}.",
            "I'm writing on behalf of {}.",
        ),
    )


def _contact(*keys: str) -> Field:
    return Field(
        keys,
        _phone,
        (
            "You can reach me on {}.",
            "My number is {}.",
            "Please ring {} if anything changes.",
            "Call {} with any questions.",
            "The best number is {}.",
            "I am on {} most of the day.",
            "Tel. {}.",
            "Text me at {}.",
        ),
    )


def _day(*keys: str, first_year: int = 2018, last_year: int = 2030, tellings: tuple[str, ...] = ()) -> Field:
    common = ("The date is {}.", "It should be {}.", "We said {}.", "The day we agreed on was {}.")
    return Field(keys, _date(first_year, last_year), tellings or common)


_DOMAINS: dict[str, tuple[Field, ...]] = {
    "hotel booking": (
        _person("guest", "booked_by"),
        _day("arrival", "from", tellings=("We arrive on {}.", "Check-in would be {}.", "I get there on {}.")),
        Field(("nights", "stay"), _number(1, 21), ("We stay {} nights.", "That is for {} nights.", "{} nights.")),
        Field(("room",), _one_of("single double twin family suite"), ("A {} room please.", "We need a {} room.")),
        _contact("tel", "contact"),
        Field(
            ("meal",),
            _one_of("breakfast dinner"),
            ("We would like {} as well.", "Please add {}.", "With {} please."),
            optional=True,
        ),
    ),
    "parcel": (
        _person("recipient", "addressee"),
        Field(
            ("street", "address"),
            _plain(words.address),
            ("It goes to {}.", "The address is {}.", "Send it to {}."),
        ),
        Field(("town", "city"), _plain(words.place), ("The town is {}.", "That is in {}.", "I live in {}.")),
        Field(
            ("code", "tracking"),
            _plain(words.code),
            ("The tracking code is {}.", "Reference {}.", "It says {}."),
        ),
        Field(("weight",), _number(1, 40), ("It weighs {} kilos.", "The weight is {} kg.")),
        Field(
            ("problem", "state"),
            _inferred(
                late=(
                    "It should have come days ago.",
                    "I am still waiting for it.",
                    "Nothing has arrived so far.",
                ),
                broken=("The box was crushed.", "It came in pieces.", "The glass inside is cracked."),
                wrong=(
                    "This is not what I ordered.",
                    "I got somebody else's order.",
                    "You sent the wrong size.",
                ),
                fine=(
                    "Everything came in good shape.",
                    "It all arrived, thank you.",
                    "No complaints at all.",
                ),
            ),
            ("{}",),
        ),
    ),
    "library loan": (
        _person("reader", "member"),
        Field(("card",), _plain(words.code), ("My card number is {}.", "Card {}.", "The card says {}.")),
        _day(
            "due",
            "return_by",
            tellings=("It is due on {}.", "I have to bring it back by {}.", "Due date: {}."),
        ),
        Field(("shelf",), _plain(words.code), ("It stood on shelf {}.", "The shelf mark is {}.")),
        Field(("fine",), _plain(words.price), ("I owe {} in fines.", "There is a fine of {}."), optional=True),
    ),
    "lost property": (
        _person("owner", "finder"),
        Field(
            ("item", "object"),
            _one_of(tuple(words.THINGS)),
            ("I lost a {}.", "It is about a {}.", "I left my {}."),
        ),
        Field(
            ("colour", "color"),
            _one_of(tuple(words.COLOURS)),
            ("It is {}.", "The colour is {}.", "A {} one."),
        ),
        Field(("place", "where"), _plain(words.place), ("It was at {} station.", "I got off in {}.", "Near {}.")),
        _day("day", "lost_on", tellings=("This happened on {}.", "It was on {}.", "That was {}.")),
        _contact("number", "ring"),
    ),
    "workshop": (
        _person("customer", "driver"),
        Field(("plate",), _plain(words.code), ("The plate is {}.", "Registration {}.", "Number plate {}.")),
        Field(
            ("fault", "part"),
            _inferred(
                brakes=(
                    "It squeals when I stop.",
                    "Stopping takes far too long.",
                    "The pedal goes to the floor.",
                ),
                battery=("It won't start in the morning.", "All I hear is a click.", "The lights go dim."),
                tyres=("One wheel keeps going flat.", "The tread is worn down.", "I drove over a nail."),
                engine=(
                    "There is smoke under the bonnet.",
                    "It makes a knocking sound.",
                    "It has lost power.",
                ),
            ),
            ("{}",),
        ),
        Field(("mileage", "km"), _number(1000, 250000), ("It has done {} km.", "The clock shows {}.")),
        _day(
            "ready",
            "bring_in",
            tellings=("Could I bring it in on {}?", "I need it back by {}.", "I have {} free."),
        ),
        Field(
            ("speed", "when"),
            _inferred(
                now=(
                    "I need it this minute.",
                    "I am stuck at the roadside.",
                    "Please hurry, it cannot wait.",
                ),
                later=("Take your time.", "There is no hurry at all.", "Any day next month will do."),
            ),
            ("{}",),
        ),
        _contact("mobile", "tel"),
    ),
    "restaurant table": (
        _person("party", "booked_for"),
        Field(
            ("seats", "people"),
            _number(1, 14),
            ("We are {} people.", "A table for {}.", "There will be {} of us."),
        ),
        Field(
            ("time", "at"),
            _plain(words.clock_time),
            ("We come at {}.", "Around {} please.", "At {} if you can."),
        ),
        _day("date", "evening"),
        Field(
            ("seat",),
            _one_of("window garden bar corner terrace"),
            ("A {} table please.", "By the {} if possible."),
        ),
        Field(
            ("avoid", "without"),
            _one_of(tuple(words.FOODS)),
            ("One of us cannot eat {}.", "No {} please.", "Please leave out {}."),
            optional=True,
        ),
        _contact("line", "contact"),
    ),
    "shop order": (
        _person("buyer", "client"),
        Field(
            ("item", "product"),
            _one_of(tuple(words.FOODS)),
            ("I want to order {}.", "Do you have {}?", "Some {}."),
        ),
        Field(
            ("amount", "count"),
            _number(1, 60),
            ("I need {} packs.", "{} pieces please.", "The amount is {}."),
        ),
        Field(("price", "total"), _plain(words.price), ("The price was {}.", "That makes {}.", "I paid {}.")),
        _day(
            "deliver_on",
            "delivery",
            tellings=("Please deliver it on {}.", "I need it by {}.", "Bring it on {}."),
        ),
        Field(
            ("part_of_day", "slot"),
            _inferred(
                early=("I am only in before work.", "Best before nine.", "Please come first thing."),
                midday=("Around lunch is best.", "At noon I'm home.", "I have a break at twelve."),
                late=("I am back after six.", "Only after dark, please.", "When the shops close I'm home."),
            ),
            ("{}",),
            optional=True,
        ),
    ),
    "animal home": (
        _person("keeper", "adopter"),
        Field(
            ("animal", "kind"),
            _one_of(tuple(words.ANIMALS)),
            ("I have a {}.", "It is a {}.", "About the {}."),
        ),
        Field(
            ("called", "pet"),
            _plain(words.given_name),
            ("We call it {}.", "It answers to {}.", "Its name is {}."),
        ),
        Field(("age",), _number(1, 18), ("It is {} years old.", "Age {}.")),
        _day(
            "arrived",
            "since",
            first_year=2005,
            last_year=2028,
            tellings=("We got it on {}.", "It came on {}."),
        ),
        Field(("food",), _one_of(tuple(words.FOODS)), ("It likes {}.", "It will not eat {}."), optional=True),
    ),
    "club member": (
        _person("member", "player"),
        _day(
            "joined",
            "signed_up",
            first_year=1940,
            last_year=2025,
            tellings=("Joined on {}.", "I signed up on {}."),
        ),
        Field(("trade", "job"), _one_of(tuple(words.JOBS)), ("I work as a {}.", "By trade a {}.", "I was a {}.")),
        Field(("town", "home"), _plain(words.place), ("I live in {}.", "My home town is {}.", "I moved to {}.")),
        _contact("line", "number"),
    ),
}


def domains() -> tuple[str, ...]:
    """The kinds of record there are."""
    return tuple(_DOMAINS)


def draw_record(rng: Random, domain: str, fewest: int = 2, most: int = 7) -> list[Told]:
    """A record of the given kind with some of its fields, in a random order."""
    fields = list(_DOMAINS[domain])
    chosen = rng.sample(fields, min(len(fields), rng.randint(fewest, most)))
    record = []
    for field in chosen:
        spoken, value = field.draw(rng)
        if field.optional and rng.random() < 0.4:
            record.append(Told(field.keys[0], None, ""))
        else:
            record.append(Told(rng.choice(field.keys), value, rng.choice(field.tellings).format(spoken)))
    return record


_OPENINGS = (
    "Hello,", "Hi there,", "Good morning,", "Dear team,", "Good evening,", "Hi,", "Hello!",
    "Just a quick note.", "I hope you are well.", "Sorry to bother you.",
    "Thank you for your help last time.",
)  # fmt: skip
_CLOSINGS = (
    "Thank you!", "Thanks a lot.", "Kind regards", "Best wishes", "Many thanks in advance.",
    "Have a nice day.", "Let me know.", "See you soon.", "Thanks.", "Please confirm.", "All the best",
)  # fmt: skip
_ASIDES = (
    "The weather has been awful here.", "My neighbour told me about you.",
    "I tried to call but nobody answered.", "My sister was very happy with you.",
    "I hope this is the right address.", "We had {} visitors last week.",
    "I have been a customer for {} years.", "My friend {name} sends greetings.",
    "Sorry for the long message.",
)  # fmt: skip


def message(rng: Random, record: list[Told]) -> str:
    """The record as somebody would tell it, with greetings and asides around the facts."""
    sentences = [told.sentence for told in record if told.sentence]
    rng.shuffle(sentences)
    if rng.random() < 0.3:
        aside = rng.choice(_ASIDES).format(rng.randint(2, 30), name=words.given_name(rng))
        sentences.insert(rng.randint(0, len(sentences)), aside)
    if rng.random() < 0.6:
        sentences.insert(0, rng.choice(_OPENINGS))
    if rng.random() < 0.5:
        sentences.append(rng.choice(_CLOSINGS))
    return " ".join(sentences)
