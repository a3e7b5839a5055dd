"""Benchmark rows among training rows."""

import json

from engine.data.quality.benchmarks import benchmark_texts
from engine.data.quality.leaks import LeakIndex

QUESTIONS = [
    "A farmer has seventeen sheep and all but nine of them run away; how many sheep are left?",
    "Which river runs through the town where the old lighthouse keeper was born, and how long is it?",
    "What is the capital of Peru?",
    "ok",
]


def test_a_row_leaks_when_it_holds_half_of_what_a_benchmark_asks_anywhere_in_it():
    index = LeakIndex.of(QUESTIONS)
    rows = [
        ["Warm up first.", f"Now this one. {QUESTIONS[0].upper()} Think step by step."],
        ["Which river runs through the town where the old lighthouse keeper was born, I wonder."],
        ["A farmer has seventeen sheep and all but nine of them"],  # less than half
        ["A farmer has seventeen sheep", "and all but nine of them run away; how many sheep are left?"],
        ["what is the capital of peru"],
        ["ok"],
        [],
    ]

    assert index.leaks(rows).tolist() == [0, 1, -1, 0, 2, -1, -1]


def test_how_a_benchmark_asks_is_no_leak():
    asks = "Answer the following multiple choice question with one of the letters A, B, C or D and nothing else."
    index = LeakIndex.of(
        [f"{asks} Is item number {number} heavier than the {number}th stone here?" for number in range(50)]
    )

    assert index.leaks([[f"{asks} What is the tallest tree in the garden of the museum?"]]).tolist() == [-1]
    assert index.leaks([[f"{asks} Is item number 7 heavier than the 7th stone here?"]]).tolist() == [7]


def test_an_index_is_the_same_from_disk_and_empty_ones_leak_nothing(tmp_path):
    LeakIndex.of(QUESTIONS).save(tmp_path)

    assert LeakIndex.load(tmp_path).leaks([[QUESTIONS[1]]]).tolist() == [1]
    assert LeakIndex.of([]).leaks([["some text"]]).tolist() == [-1]
    assert LeakIndex.of(QUESTIONS).leaks([]).tolist() == []


def test_benchmarks_of_known_and_unknown_shapes_are_read(tmp_path):
    path = tmp_path / "bench.jsonl"
    rows = [
        {"question": "How many moons has Mars?", "answer": "Two"},
        {"stem": "How many moons has the planet Venus?", "choices": ["none", "one of them"], "gold": 0},
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))

    assert benchmark_texts(path) == (["How many moons has Mars?", "How many moons has the planet Venus?"], [1, 2])
