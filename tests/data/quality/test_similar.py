"""Near duplicates: signatures against known similarity, and the groups they make."""

import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.data.quality.similar import near_duplicate_groups, signature, signatures, similarity


def pair_with_similarity(chance, share, triples=240):
    """Two texts of which `share` of all word triples are common to both: the same beginning, different ends."""
    common = round(2 * triples * share / (1 + share))

    def words(count):
        return [f"w{chance.randrange(10**9)}" for _ in range(count)]

    start = words(common + 2)
    return " ".join(start + words(triples - common)), " ".join(start + words(triples - common))


def found_share(share, pairs=300):
    chance = random.Random(f"{share}")
    texts = [text for _ in range(pairs) for text in pair_with_similarity(chance, share)]
    groups = near_duplicate_groups(signatures(texts))
    return float(np.mean(groups[1::2] == groups[0::2]))


def test_pairs_are_found_above_the_threshold_and_not_below():
    shares = {share: found_share(share) for share in (0.5, 0.65, 0.9, 0.95)}

    assert shares[0.95] >= 0.99 and shares[0.9] >= 0.97
    assert shares[0.65] <= 0.03 and shares[0.5] == 0


@pytest.mark.parametrize("share", [0.3, 0.6, 0.8, 0.95])
def test_the_estimate_is_near_the_true_similarity(share):
    chance = random.Random(3)
    estimates = [similarity(*map(signature, pair_with_similarity(chance, share))) for _ in range(60)]

    assert abs(float(np.mean(estimates)) - share) < 0.03


def test_case_punctuation_and_spacing_do_not_count_and_texts_without_words_are_near_to_nothing():
    groups = near_duplicate_groups(signatures(["Is it so? Yes, it is!", "is it so -- yes it  is", "", "...", ""]))

    assert groups.tolist() == [0, 0, 2, 3, 4]


def test_scripts_without_spaces_are_compared_by_character():
    one = "図書館は毎日午前九時から午後八時まで開いています。予約は電話でお願いします。"
    other = one.replace("毎日", "平日")
    groups = near_duplicate_groups(signatures([one, other, "明日は雨が降るでしょう。傘を持って行ってください。"]), 0.7)

    assert groups.tolist() == [0, 0, 2]


def test_many_texts_with_one_opening_are_not_taken_for_each_other(tmp_path):
    chance = random.Random(5)
    opening = "please answer the following question about the library in one short sentence"
    texts = [f"{opening} " + " ".join(f"w{chance.randrange(10**6)}" for _ in range(40)) for _ in range(2_000)]
    texts += [text + " thanks" for text in texts[:100]]
    np.save(tmp_path / "signatures.npy", signatures(texts))

    groups = near_duplicate_groups(np.load(tmp_path / "signatures.npy", mmap_mode="r"))

    assert groups[:2_000].tolist() == list(range(2_000))
    assert groups[2_000:].tolist() == list(range(100))


@given(st.lists(st.sampled_from(["a b c d", "a b c d e", "x y z", "", "q"]), max_size=20))
def test_a_group_is_named_by_its_first_text(texts):
    groups = near_duplicate_groups(signatures(texts))

    assert all(groups[first] == first <= at for at, first in enumerate(groups.tolist()))
    for at, text in enumerate(texts):
        assert (groups[at] == texts.index(text)) or text in ("", "a b c d", "a b c d e")
