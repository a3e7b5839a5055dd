"""Open-ended values for generated text: names, dates, telephone numbers, codes and everyday words.

Names are put together from parts, so that a model which reads them cannot learn them by heart and has to
copy.
"""

from datetime import date, timedelta
from random import Random


def pool(text: str) -> tuple[str, ...]:
    """The words of a text, as a pool to draw from."""
    return tuple(text.split())


MONTHS = pool("January February March April May June July August September October November December")

_GIVEN_HEADS = pool(
    "Al An Ar Be Bri Ca Ce Cla Da De Do Ed El Em Er Fa Fe Fio Fre Ga Ge Gre Ha He Hu Il In Is Ja Je Jo Ju Ka "
    "Ke Ki Kri La Le Li Lo Lu Ma Me Mi Mo Na Ne Ni No Ol Or Pa Pe Pri Qui Ra Re Ri Ro Ru Sa Se Shi So Ste Su "
    "Ta Te Tho To Tri Ur Va Ve Vi Wa Wi Xa Ya Yo Za Ze Zo"
)
_GIVEN_MIDDLES = pool("be bri cha da de di do fa ga he ki la le li lo ma mi na ne ni no ra ri ro sa si ta ti va vi ya")
_GIVEN_TAILS = pool(
    "ah an ar bel beth by ca cy da den dre el ella en er eth fer ga ia ian ice id ie il in ina io is ita ka "
    "la lan lie lin lius lo lyn ma mad man mund na nah nan nas ne ney nie nor nya ol on or ra rah ram ren "
    "ret rick rie rin ris ro ron ry sa sha sie son ssa sta ta tan tha thew tin ton tte us va vin von ya yan "
    "zo"
)
_FAMILY_HEADS = pool(
    "Abra Acker Alder Am Ash Bal Bar Beck Ber Black Blom Bor Bran Brook Bur Cal Car Chand Clay Col Cran Dal "
    "Dev Dom Drum Dun Eck El Fair Fal Fer Fin For Fox Gar Gil Gold Gra Gu Hal Ham Har Haw Hein Hol Hor Hu "
    "Iva Jan Kal Kaz Kel Kir Kow Kri Lam Lar Lin Lock Lu Mac Mal Mar Mc Mel Mol Mor Mu Nak Nel Nor Nova Oak "
    "O Ols Or Os Pal Par Pet Pin Pol Quin Ram Red Rich Ros Row Rud Sal San Sch Sin Ska Sta Stein Sto Sul Tan "
    "Tar Thorn Tol Tre Ul Van Var Ver Vil Wal Wat Wes Whit Win Wood Yam Yil Zan Zel"
)
_FAMILY_TAILS = pool(
    "a ado aga ak ano ari as berg berry bert borne bridge brook by cott cy da dahl den der dez dine don dorf "
    "e ed ell en er ero es ett ez field ford gan ger gomery ham hart hill hurst ia ic idge ik in ini ins is "
    "itz kin kins ko kov land ler ley lin ling lock low ly man mann mer mond more nell ner ney o off oni or "
    "ot ova over ow quist rell ren rick ridge ris rock rop ros row sen shaw sia ska ski son stad stein stone "
    "ston tan ter thy ti ton tt ure va ver vic vist wald ward way well wick win wood worth y yan zak zo"
)
_PLACE_HEADS = pool(
    "Ald Amber Ash Bar Birch Black Bran Bright Cald Clear Cold Crow Dal East Elm Fair Fern Glen Gran Green "
    "Hazel High Iron King Lake Lang Lin Long Mar Mill Moor New Nor Oak Pen Port Quarry Raven Red River Rock "
    "Sal Sand Silver South Stan Stone Thorn West White Wil Win Wolf"
)
_PLACE_TAILS = pool(
    "borough bridge burn bury by church cliff combe cross dale den field ford gate ham haven hill holm hurst "
    "land leigh ley mere mouth port ridge stead stoke ton vale view ville water well wick wood worth"
)
_ONSETS = pool("b bl br c ch cl cr d dr f fl fr g gl gr h j k l m n p pl pr qu r s sh sl sn sp st t th tr v w y z")
_VOWELS = pool("a a e e i i o o u ai ea ee oo ou")
_CODAS = ("", *pool("b ck d ft g k l ll lt m mp n nd ng nk nt p r rd rn s sh sk ss st t th x"))

COLOURS = pool(
    "red blue green yellow white black grey brown purple orange pink teal silver gold navy cream maroon beige"
)
THINGS = pool(
    "umbrella lamp jacket kettle bicycle suitcase camera ladder basket blanket candle mirror clock wallet "
    "scarf guitar violin laptop tablet phone charger notebook backpack helmet hammer drill bucket kite "
    "puzzle vase chair table shelf bottle teapot jug pillow carpet curtain ring necklace watch glove hat "
    "coat boot pencil brush radio telescope compass lantern whistle flute drum tent rope spade wheelbarrow "
    "parcel letter map key torch"
)
FOODS = pool(
    "apples bread cheese rice beans carrots honey butter eggs milk tomatoes potatoes onions lemons pears "
    "plums mushrooms noodles soup pasta salmon chicken olives almonds walnuts oats flour sugar salt pepper "
    "tea coffee cocoa yoghurt spinach garlic ginger basil"
)
ANIMALS = pool(
    "dog cat horse rabbit parrot goat sheep duck goose hen pony donkey ferret hamster turtle lizard owl crow "
    "fox badger otter hedgehog"
)
ADJECTIVES = pool(
    "small large old new quiet bright heavy light broken clean dusty warm cold narrow wide round square tall "
    "short soft smooth plain pretty strange gentle careful clever brave tired happy sad curious proud "
    "patient busy"
)
JOBS = pool(
    "teacher baker farmer painter nurse driver gardener plumber librarian carpenter sailor tailor pilot "
    "doctor clerk musician cook builder shopkeeper engineer photographer porter"
)


def given_name(rng: Random) -> str:
    """A first name of two or three parts, such as Joradan or Elvin."""
    middle = rng.choice(_GIVEN_MIDDLES) if rng.random() < 0.35 else ""
    return rng.choice(_GIVEN_HEADS) + middle + rng.choice(_GIVEN_TAILS)


def family_name(rng: Random) -> str:
    """A last name, now and then with a hyphen or an apostrophe as real ones have."""
    name = rng.choice(_FAMILY_HEADS) + rng.choice(_FAMILY_TAILS)
    chance = rng.random()
    if chance < 0.03:
        return f"{name}-{rng.choice(_FAMILY_HEADS)}{rng.choice(_FAMILY_TAILS)}"
    return f"O'{name}" if chance < 0.05 else name


def full_name(rng: Random) -> str:
    """A first and a last name."""
    return f"{given_name(rng)} {family_name(rng)}"


def place(rng: Random) -> str:
    """A town that is on no map."""
    return rng.choice(_PLACE_HEADS) + rng.choice(_PLACE_TAILS)


def address(rng: Random) -> str:
    """A house number and a street."""
    return f"{rng.randint(1, 240)} {place(rng)} {rng.choice(('Road', 'Street', 'Lane', 'Avenue', 'Close'))}"


def made_up_word(rng: Random) -> str:
    """A lower-case word with no meaning, of one to three syllables."""
    return "".join(
        rng.choice(_ONSETS) + rng.choice(_VOWELS) + rng.choice(_CODAS) for _ in range(rng.choice((1, 2, 2, 3)))
    )


def code(rng: Random) -> str:
    """A reference such as KD-4471 or 7QX20."""
    letters = "".join(rng.choice("ABCDEFGHJKLMNPQRSTUVWXYZ") for _ in range(rng.randint(1, 3)))
    digits = "".join(rng.choice("0123456789") for _ in range(rng.randint(2, 5)))
    return rng.choice((f"{letters}-{digits}", f"{letters}{digits}", f"{digits}{letters}"))


def any_date(rng: Random, first_year: int = 1930, last_year: int = 2030) -> date:
    """A day between two years, the last included."""
    start = date(first_year, 1, 1)
    return start + timedelta(days=rng.randrange((date(last_year, 12, 31) - start).days + 1))


def ordinal(number: int) -> str:
    """1st, 2nd, 3rd, 4th."""
    ending = "th" if 10 <= number % 100 <= 20 else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number}{ending}"


def written_date(rng: Random, day: date) -> str:
    """One of the ways people write a date; all-number forms are day first unless they begin with the year."""
    month = MONTHS[day.month - 1]
    return rng.choice(
        (
            f"{day.day} {month} {day.year}",
            f"{month} {day.day}, {day.year}",
            f"{ordinal(day.day)} of {month} {day.year}",
            f"{day.day} {month[:3]} {day.year}",
            f"{day.day:02}/{day.month:02}/{day.year}",
            f"{day.day:02}.{day.month:02}.{day.year}",
            f"{day.day}.{day.month}.{day.year}",
            day.isoformat(),
        )
    )


def phone_digits(rng: Random, shortest: int = 7, longest: int = 10) -> str:
    """A telephone number as bare digits."""
    return "0" + "".join(rng.choice("0123456789") for _ in range(rng.randint(shortest, longest) - 1))


def written_phone(rng: Random, digits: str) -> str:
    """One of the ways people group the digits of a telephone number."""
    area = rng.choice((3, 4))
    middle = area + (len(digits) - area) // 2
    a, b, c = digits[:area], digits[area:middle], digits[middle:]
    return rng.choice((digits, f"{a} {b}{c}", f"{a} {b} {c}", f"{a}-{b}-{c}", f"({a}) {b} {c}", f"{a}/{b}{c}"))


def clock_time(rng: Random) -> str:
    """A time of day on the 24-hour clock."""
    return f"{rng.randint(6, 22)}:{rng.choice((0, 5, 10, 15, 20, 30, 40, 45, 50)):02}"


def price(rng: Random) -> str:
    """An amount with two decimals."""
    return f"{rng.randint(1, 180)}.{rng.randint(0, 99):02}"
