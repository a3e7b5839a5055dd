"""Invented texts with personal data at known places, and texts that only look like it.

Check digits are computed here in their own way, so that a fault in the finder's is not repeated.
`python tests/data/personal/personal_corpus.py` prints precision and recall of the finder by kind.
"""

from __future__ import annotations

import random
import re
import string
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from engine.data.personal.finder import find_personal


@dataclass(frozen=True)
class Labelled:
    """A text and what is personal in it: (kind, the very characters)."""

    text: str
    truth: tuple[tuple[str, str], ...]


# Names are chosen here by hand, half of them not in the lists that ship.
NAMES = (
    "Anna Schmidt",
    "Thomas Brown",
    "Maria Garcia",
    "Jean-Pierre Dubois",
    "Priya Sharma",
    "Mohammed Al-Fayed",
    "Katarzyna Nowak",
    "Sven Lindqvist",
    "Giulia Ferrante",
    "Hiroshi Tanaka",
    "Emily Oakhurst",
    "Carlos Mendoza",
    "Olga Petrova",
    "David Cohen",
    "Sarah O'Connor",
    "Lars van der Berg",
    "Aisha Bello",
    "Peter Quillfeather",
    "Laura Winterbourne",
    "Nguyen Thanh",
    "Robert J. Halloway",
    "Claire Beaumont",
    "Stefan Zwirner",
    "Fatima Zahra",
    "John Smith",
    "Emma Ratcliffe-Moore",
    "Michael Brandtner",
    "Zoe Papadaki",
    "Kwame Mensah",
    "Ingrid Halvorsen",
    "Дмитрий Соколов",
    "Sofia Almeida",
)
NAME_SENTENCES = (
    "Please forward the file to {} before noon.",
    "My name is {} and I ordered two chairs.",
    "{} called yesterday about the lease.",
    "The patient, {}, was admitted on Monday.",
    "I spoke with {} and she agreed.",
    "Customer name: {}\nStatus: open",
    "Meeting with {}, then lunch.",
    "The contract was signed by {} in Rotterdam.",
)


def corpus(seed: int = 7, each: int = 40) -> list[Labelled]:
    """`each` texts of every kind, twice as many hard negatives, and texts with several kinds at once."""
    chance = random.Random(seed)
    makers = {
        "email": _email,
        "phone": _phone,
        "iban": _iban,
        "card": _card,
        "national_id": _national_id,
        "ip": _ip,
        "secret": _secret,
        "address": _address,
        "birth_date": _birth_date,
        "account": _account,
        "passport": _passport,
    }
    texts = []
    for kind, make in makers.items():
        for _ in range(each):
            sentence, value = make(chance)
            texts.append(Labelled(sentence.replace("{}", value), ((kind, value),)))
    for _ in range(2 * each):
        name = chance.choice(NAMES)
        texts.append(Labelled(chance.choice(NAME_SENTENCES).format(name), (("name", name),)))
    for _ in range(each):
        name, (_, email), (_, phone) = chance.choice(NAMES), _email(chance), ("", _international(chance))
        text = f"Hello,\n\nplease reach {name} at {email} or {phone}.\nThe order 4500127733 ships on 2024-03-18."
        texts.append(Labelled(text, (("name", name), ("email", email), ("phone", phone))))
    texts += [Labelled(text, ()) for text in hard_negatives(chance, 8 * each)]
    return texts


def hard_negatives(chance: random.Random, count: int) -> Iterator[str]:
    makers = (
        lambda: f"Order number {_digits(chance, 16)} has shipped.",
        lambda: f"Your order #{_digits(chance, 10)} and invoice {_digits(chance, 8)} are attached.",
        lambda: f"Upgrade from version {_dotted(chance, 3)} to {_dotted(chance, 4)} first.",
        lambda: f"The ISBN is 978-{_digits(chance, 1)}-{_digits(chance, 3)}-{_digits(chance, 5)}-{_digits(chance, 1)}.",
        lambda: f"ISBN-10: {_digits(chance, 9)}X, published in 1998.",
        lambda: f"commit {_hex(chance, 40)}\nfixes the parser",
        lambda: f'expected_sha256 = "{_hex(chance, 64)}"',
        lambda: f"checksum: md5 {_hex(chance, 32)} size {_digits(chance, 9)}",
        lambda: f"Released on {chance.randint(1990, 2025)}-{chance.randint(1, 12):02}-{chance.randint(1, 28):02}.",
        lambda: f"Between {chance.randint(1500, 1900)}-{chance.randint(1901, 2020)} the town grew.",
        lambda: f"pi is 3.{_digits(chance, 15)} and e is 2.{_digits(chance, 14)}",
        lambda: f"np.array([{_digits(chance, 7)}, {_digits(chance, 8)}, {_digits(chance, 9)}])",
        lambda: f"for i in range({_digits(chance, 7)}): total += {_digits(chance, 10)}",
        lambda: (
            f"Tracking 1Z{_digits(chance, 16)}, part no. {_digits(chance, 3)}-{_digits(chance, 4)}-{_digits(chance, 2)}"
        ),
        lambda: f"The population rose from {_digits(chance, 6)} to 1 {_digits(chance, 3)} {_digits(chance, 3)} people.",
        lambda: f"id: {uuid(chance)}, seed {_digits(chance, 10)}",
        lambda: f"timestamp={chance.randint(10**9, 2 * 10**9)} latency=0.{_digits(chance, 9)}",
        lambda: f"coordinates {chance.uniform(-90, 90):.6f}, {chance.uniform(-180, 180):.6f}",
        lambda: f"The server listens on 127.0.0.1:{_digits(chance, 4)} and 192.168.1.{chance.randint(2, 250)}.",
        lambda: f"Chrome/{_dotted(chance, 4)} Safari/537.36",
        lambda: chance.choice(
            (
                "We visited Paris, Madison Avenue and the Jordan River in May.",
                "Grace Period and Rose Garden are product names.",
                "Albert Einstein and Marie Curie won the Nobel Prize.",
                "In Washington the Lincoln Memorial is open on Sunday.",
                "Charlotte Hornets beat the Austin Spurs; June Sales rose.",
                "def login(password: str, token: str) -> Token:",
                'password = os.environ["DB_PASSWORD"]',
                "api_key = config.get('api_key')  # set your_api_key here",
                'os.getenv("SECRET_KEY", "changeme")',
                "The secret is: practice every day. The key is patience.",
                "max_tokens: 4096, tokenizer_path=/models/tok.json",
                "Use the @pytest.fixture decorator and icon@2x.png",
                "git clone git@github.com:pallets/flask.git",
                "npm install react@18.2.0 lodash@4.17.21",
                "Mark Twain wrote it; Will Smith is not in it. Will Tuesday work?",
                "Microsoft Word, Google Maps and Amazon Prime are services.",
                "He ran 10 Miles Way too fast, then took 2 Steps Back.",
                "The ratio is 3:45:67:89:10:11 and the time 12:34:56.",
                "Call 911 or 112 in an emergency; dial 0 for help.",
                "Total: 1,234,567.89 EUR; VAT 19 % of 55 000 000.",
                "Section 1.2.3.4 of the manual, figure 5.6.7.8",
                "The 2019-2020 season, pages 1234-5678, sizes 10-20-30.",
                "Serial 123456789, model AB123456, SKU 987-65-4321-0",
                "RGB(123, 45, 67) or #A1B2C3; matrix 3x4x5 = 60",
                "The Treaty of 1648 and the Thirty Years War: see Chapter 12.",
                "Dear Customer, thank you for your order. Best regards, the Team",
                "Theorem 4.1 (Cauchy). Let x be 1.0000001 and y 9999999.",
                "Boeing 737-800 and Airbus A320-200 fly on route 66.",
            )
        ),
    )
    for index in range(count):
        yield makers[index % len(makers)]()


def _email(chance: random.Random) -> tuple[str, str]:
    local = chance.choice(("anna.schmidt", "t_brown", "info+news", "m.garcia88", "j-p", "ops"))
    domain = chance.choice(("mail.com", "uni-köln.de", "firm.co.uk", "example.org", "sub.host.museum", "gmail.com"))
    sentences = ("Write to {}.", "<{}>", "Contact: {}, thanks", "email={}&x=1", "({}) replied", "mailto:{}")
    return chance.choice(sentences), f"{local}{chance.randint(1, 99)}@{domain}"


def _international(chance: random.Random) -> str:
    forms = (
        "+49 30 #######",
        "+1 (212) ###-####",
        "+44 7911 ######",
        "+33 6 ## ## ## ##",
        "+81-90-####-####",
        "+91 98### #####",
    )
    return _filled(chance, chance.choice(forms))


def _phone(chance: random.Random) -> tuple[str, str]:
    if chance.random() < 0.4:
        return chance.choice(("Call {} now.", "Ring me: {}", "({})", "Reach us at {} or by post")), _international(
            chance
        )
    form = chance.choice(
        (
            "(415) 5##-####",
            "212-6##-####",
            "07### ######",
            "06 ## ## ## ##",
            "020 7### ####",
            "030/#######",
            "0412 ### ###",
            "090-####-####",
        )
    )
    if chance.random() < 0.3:
        return chance.choice(("Phone: {}", "Tel. {}", "my mobile number is {}", "call me at {} please")), _filled(
            chance, "8########"
        )
    return chance.choice(("You get me on {}.", "Questions? {}", "Office {} (mornings)")), _filled(chance, form)


def _iban(chance: random.Random) -> tuple[str, str]:
    country, body = chance.choice(
        (
            ("DE", "##################"),
            ("GB", "NWBK##############"),
            ("FR", "#######################"),
            ("NL", "ABNA##########"),
            ("ES", "####################"),
        )
    )
    body = _filled(chance, body)
    number = "".join(str(ord(each) - 55) if each.isalpha() else each for each in body + country) + "00"
    packed = f"{country}{98 - int(number) % 97:02}{body}"
    spaced = " ".join(packed[at : at + 4] for at in range(0, len(packed), 4))
    return chance.choice(("Transfer it to {} today.", "IBAN: {}", "{}")), chance.choice((packed, spaced))


def _card(chance: random.Random) -> tuple[str, str]:
    start, length = chance.choice((("4", 16), ("51", 16), ("37", 15), ("6011", 16)))
    body = start + _digits(chance, length - len(start) - 1)
    total = sum(sum(divmod(int(digit) * (2 - at % 2), 10)) for at, digit in enumerate(reversed(body)))
    number = body + str(-total % 10)
    if length == 16 and chance.random() < 0.7:
        number = chance.choice((" ", "-")).join(number[at : at + 4] for at in range(0, 16, 4))
    return chance.choice(("My card {} was declined.", "Visa {} exp 09/27", "Charge {} please.", "Use {}")), number


def _national_id(chance: random.Random) -> tuple[str, str]:
    match chance.randrange(9):
        case 0:
            return "SSN: {}", f"{chance.randint(100, 665)}-{chance.randint(10, 99)}-{chance.randint(1000, 9999)}"
        case 1:
            number = chance.randint(10**7, 10**8 - 1)
            return "Su DNI es {}.", f"{number}{'TRWAGMYFPDXBNJZSQVHLCKE'[number % 23]}"
        case 2:
            return (
                "National Insurance {}",
                f"AB {chance.randint(10, 99)} {chance.randint(10, 99)} {chance.randint(10, 99)} C",
            )
        case 3:
            base = _digits(chance, 9)
            for _ in range(2):
                weights = range(len(base) + 1, 1, -1)
                rest = sum(int(digit) * weight for digit, weight in zip(base, weights, strict=True)) % 11
                base += str(0 if rest < 2 else 11 - rest)
            return "CPF {}", f"{base[:3]}.{base[3:6]}.{base[6:9]}-{base[9:]}"
        case 4:
            body = f"1{chance.randint(50, 99)}{chance.randint(1, 12):02}75{_digits(chance, 6)}"
            return "Numéro de sécurité sociale : {}", body + f"{97 - int(body) % 97:02}"
        case 5:
            while True:
                base = str(chance.randint(10**8, 10**9 - 1))
                if (sum(int(base[at]) * (9 - at) for at in range(8)) - int(base[8])) % 11 == 0:
                    return "Mijn BSN is {}.", base
        case 6:
            body = f"{chance.randint(60, 99)}{chance.randint(1, 12):02}{chance.randint(1, 28):02}{_digits(chance, 4)}"
            total = sum(int(digit) * (1, 3, 7, 9)[at % 4] for at, digit in enumerate(body))
            return "PESEL {}", body + str(-total % 10)
        case 7:
            born = f"{chance.randint(1950, 2005)}{chance.randint(1, 12):02}{chance.randint(1, 28):02}"
            body = f"110105{born}{_digits(chance, 3)}"
            total = sum(int(digit) * (2 ** (17 - at) % 11) for at, digit in enumerate(body))
            return "身份证号 {}", body + "10X98765432"[total % 11]
        case _:
            body = f"{chance.randint(50, 99)}{chance.randint(1, 12):02}{chance.randint(1, 28):02}{_digits(chance, 3)}"
            total = sum(sum(divmod(int(digit) * (2 - at % 2), 10)) for at, digit in enumerate(body))
            return "personnummer {}", f"{body[:6]}-{body[6:]}{-total % 10}"


def _ip(chance: random.Random) -> tuple[str, str]:
    address = f"{chance.randint(20, 90)}.{chance.randint(0, 255)}.{chance.randint(0, 255)}.{chance.randint(1, 254)}"
    if chance.random() < 0.2:
        return chance.choice(("Logged in from {}", "[{}]:8080")), "2a00:1450:4001:81b::200e"
    return chance.choice(("Logged in from {}", "host {} port 22", "[{}] GET /", "{}:8080")), address


def _secret(chance: random.Random) -> tuple[str, str]:
    letters = string.ascii_letters + string.digits
    some = "".join(chance.choices(letters, k=40))
    forms = (
        ("key: {}", "sk-" + some),
        ("{}", "ghp_" + some[:36]),
        ('AWS_KEY="{}"', "AKIA" + "".join(chance.choices(string.ascii_uppercase + "234567", k=16))),
        ('api_key = "{}"', some),
        ("password: {}", "Tr" + some[:5] + "7!x"),
        ("My password is {}.", "blue" + some[:3] + "42!"),
        ("postgres://app:{}@db.internal/main", some[:14]),
        ("Authorization: Bearer {}", some),
        ("HF_TOKEN={}", "hf_" + some[:34]),
        ('{"client_secret": "{}"}', some[:32]),
    )
    return chance.choice(forms)


def _address(chance: random.Random) -> tuple[str, str]:
    number = chance.randint(1, 199)
    forms = (
        f"{number} Maple Street, Springfield, IL 62704",
        f"{number}B Baker Street, London NW1 6XE",
        f"Hauptstraße {number}, 10115 Berlin",
        f"{number} rue de la Paix, 75002 Paris",
        f"Calle Mayor {number}, 28013 Madrid",
        f"Via Roma {number}, 00184 Roma",
        f"Damstraat {number}, 1012 AB Amsterdam",
        f"{number} North Oak Avenue, Apt 4",
        f"P.O. Box {number + 1000}",
    )
    return chance.choice(
        ("I live at {}.", "Ship to {} please", "Address: {}\n", "We moved to {} in May.")
    ), chance.choice(forms)


def _birth_date(chance: random.Random) -> tuple[str, str]:
    forms = (
        f"12 March {chance.randint(1950, 2005)}",
        f"{chance.randint(1950, 2005)}-04-17",
        f"17.04.{chance.randint(1950, 2005)}",
        f"April 17, {chance.randint(1950, 2005)}",
    )
    return chance.choice(("She was born on {}.", "DOB: {}", "Date of birth: {}")), chance.choice(forms)


def _account(chance: random.Random) -> tuple[str, str]:
    return chance.choice(("Account number: {}", "my bank account no. {}", "Kontonummer {}")), _digits(chance, 9)


def _passport(chance: random.Random) -> tuple[str, str]:
    return chance.choice(("Passport number {}", "passport no. {} (valid)", "Reisepass: {}")), f"C{_digits(chance, 8)}"


def uuid(chance: random.Random) -> str:
    return "-".join(_hex(chance, length) for length in (8, 4, 4, 4, 12))


def _digits(chance: random.Random, count: int) -> str:
    return str(chance.randint(1, 9)) + "".join(chance.choices(string.digits, k=count - 1))


def _hex(chance: random.Random, count: int) -> str:
    return "".join(chance.choices("0123456789abcdef", k=count))


def _dotted(chance: random.Random, parts: int) -> str:
    return ".".join(str(chance.randint(0, 120)) for _ in range(parts))


def _filled(chance: random.Random, form: str) -> str:
    return re.sub("#", lambda _: str(chance.randint(1, 9)), form)


@dataclass(frozen=True)
class Score:
    right: int
    missed: int
    wrong: int

    @property
    def precision(self) -> float:
        return self.right / max(1, self.right + self.wrong)

    @property
    def recall(self) -> float:
        return self.right / max(1, self.right + self.missed)


def scores(texts: list[Labelled]) -> tuple[dict[str, Score], list[str]]:
    """Precision and recall by kind, of places that are right to the character; and what was missed or wrong."""
    right: Counter[str] = Counter()
    missed: Counter[str] = Counter()
    wrong: Counter[str] = Counter()
    faults = []
    for each in texts:
        found = [(one.kind, each.text[one.start : one.end]) for one in find_personal(each.text)]
        for kind, value in each.truth:
            if (kind, value) in found:
                right[kind] += 1
            else:
                missed[kind] += 1
                faults.append(f"missed {kind} {value!r} in {each.text!r}")
        for kind, value in found:
            if (kind, value) not in each.truth:
                wrong[kind] += 1
                faults.append(f"wrong {kind} {value!r} in {each.text!r}")
    kinds = sorted({*right, *missed, *wrong})
    return {kind: Score(right[kind], missed[kind], wrong[kind]) for kind in kinds}, faults


if __name__ == "__main__":
    by_kind, all_faults = scores(corpus(each=200))
    for kind, score in by_kind.items():
        print(f"{kind:<12} precision {score.precision:.3f}  recall {score.recall:.3f}  ({score})")
    print("\n".join(sorted(set(all_faults))))
