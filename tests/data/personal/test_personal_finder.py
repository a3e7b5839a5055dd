"""What is found as personal data, and what is left alone."""

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from personal_corpus import corpus, scores

from engine.data.personal.checksums import luhn, mod11_10, verhoeff
from engine.data.personal.finder import find_personal


def found(text):
    return [(each.kind, text[each.start : each.end]) for each in find_personal(text)]


def test_precision_and_recall_of_every_kind_on_an_invented_corpus_full_of_lookalikes():
    by_kind, faults = scores(corpus(seed=11, each=40))

    worst = {kind: (score.precision, score.recall) for kind, score in by_kind.items()}
    assert all(precision >= 0.97 for precision, _ in worst.values()), (worst, faults[:20])
    assert all(recall >= 0.95 for _, recall in worst.values()), (worst, faults[:20])


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        ("iban", "to GB29 NWBK 6016 1331 9268 19, today", "GB29 NWBK 6016 1331 9268 19"),
        ("card", "4111 1111 1111 1111", "4111 1111 1111 1111"),
        ("phone", "Tel.: 030 12345678", "030 12345678"),
        ("phone", "in 2020 555-123-4567 was hers", "555-123-4567"),
        ("national_id", "Aadhaar 2341 2341 2346", "2341 2341 2346"),
        ("national_id", "RSSMRA85T10A562S", "RSSMRA85T10A562S"),
        ("national_id", "AHV 756.9217.0769.85", "756.9217.0769.85"),
        ("national_id", "henkilötunnus 131052-308T", "131052-308T"),
        ("email", "git@github.com is not a repository here", "git@github.com"),
        ("private_key", "-----BEGIN PRIVATE KEY-----\n" + "MIIEvQIBADAN\n" * 4 + "-----END PRIVATE KEY-----", None),
        ("secret", "token eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.dozjgNryP4J3jVmNHl0w5N_XgL0n3I9P", None),
        ("mac", "eth0 at 3c:22:fb:9a:01:7e up", "3c:22:fb:9a:01:7e"),
        ("name", "Sincerely,\nKatarzyna\n", "Katarzyna"),
        ("name", "Smith, John was late", "Smith, John"),
        ("name", "Frau Wetterstein kam an.", "Wetterstein"),
    ],
)
def test_published_examples_and_forms_with_few_relatives(kind, text, value):
    assert (kind, value) in found(text) or (value is None and found(text)[0][0] == kind)


@pytest.mark.parametrize(
    "text",
    [
        "GB29 NWBK 6016 1331 9268 18",  # a wrong check digit
        "4111 1111 1111 1112",
        "Order number 4539578763621486",
        "RSSMRA85T10A562T",
        "ISBN 978-3-16-148410-0",
        "released 2024-03-18T12:34:56Z",
        "sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
        "Spring 2024, Engineering 23, Brigade 12",
        "token = Name.Builtin; tokenizer: PreTrainedTokenizerBase",
        'publicKeyToken="1fc8b3b9a1e18e3b"',
        "https://doi.org/10.1016/0020-0190(73)90029-X",
        "password: str, api_key=None, secret=os.environ['SECRET_1']",
        "Jordan River, Virginia Beach, Paris Agreement, Grace Hopper",
        "127.0.0.1, 10.0.0.7, v1.2.3.4, section 33.44.55.66",
    ],
)
def test_lookalikes_are_left_alone(text):
    assert found(text) == []


def test_check_digits_against_published_numbers():
    assert luhn("79927398713") and not luhn("79927398710")
    assert verhoeff("2363") and not verhoeff("2364")
    assert mod11_10("86095742719") and not mod11_10("86095742718")


@settings(max_examples=150, deadline=None)
@given(
    st.lists(
        st.one_of(
            st.text(max_size=12),
            st.sampled_from(
                (
                    "Anna Schmidt",
                    "anna@mail.com",
                    "+49 30 1234567",
                    "password: ",
                    "eyJ",
                    "12 ",
                    "Dr. ",
                    "://",
                    "\n",
                    "DE89",
                )
            ),
        ),
        max_size=30,
    ).map("".join)
)
def test_whatever_the_text_findings_are_in_order_apart_and_inside(text):
    places = find_personal(text)

    assert all(0 <= each.start < each.end <= len(text) for each in places)
    assert all(one.end <= other.start for one, other in pairwise(places))


@pytest.mark.parametrize(
    "piece", ["anna@mail.com ", "1 ", "Aa ", "password=", "12 Main ", "+1(", "-----BEGIN PRIVATE KEY-----"]
)
def test_a_long_text_of_one_piece_takes_time_in_proportion(piece):
    assert isinstance(find_personal(piece * (400_000 // len(piece))), list)
