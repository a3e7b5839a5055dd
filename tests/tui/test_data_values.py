"""What the Data screen computes and draws, without a screen: lengths, X-ray lines, searches, and real children."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from data_fakes import intake_rows, write_rows
from hypothesis import given
from hypothesis import strategies as st

from engine.data.source import Source
from engine.data.tokens.xray import XRayToken
from engine.demo import MODEL_DIRECTORY
from engine.spec import SourceSection
from tui.theme import make_look
from tui.widgets.data.board import DataChoice, DataPrepared, Progress
from tui.widgets.data.length_table import LADDER, LengthTable, edges_of, moved, whole_at
from tui.widgets.data.rows import SampleRow, Wanted, search
from tui.widgets.data.sources import DataSources
from tui.widgets.data.xray_text import counts_of, xray_lines

LENGTHS = st.lists(st.integers(1, 200_000), min_size=1, max_size=200)


@given(LENGTHS, st.integers(8, 200_000))
def test_what_a_length_cuts_is_what_counting_row_by_row_gives(lengths: list[int], length: int) -> None:
    table = LengthTable(Counter(lengths), "tokens")
    assert table.cut_rows(length) == sum(each > length for each in lengths)
    assert table.cut_units(length) == sum(max(0, each - length) for each in lengths)
    assert table.quantile(0.5) == sorted(lengths)[(len(lengths) - 1) // 2]
    for per_octave in (2, 4, 8):
        edges = [*edges_of(per_octave), table.longest, length]
        assert set(LADDER) <= set(edges_of(per_octave))
        assert sum(bar.rows for bar in table.bars(edges)) == len(lengths)
    longer = whole_at(table)
    assert longer is None or table.cut_rows(longer) <= 0.005 * len(lengths)


@given(st.integers(8, 200_000))
def test_a_length_moves_along_the_ladder_and_stops_at_its_ends(length: int) -> None:
    assert moved(length, 1) > length or length >= LADDER[-1]
    assert moved(length, -1) < length or length <= LADDER[0]


TOKENS = st.builds(
    XRayToken,
    id=st.integers(0, 99),
    text=st.text(min_size=1, max_size=12),
    trained=st.booleans(),
    special=st.booleans(),
    stop=st.booleans(),
    cut=st.booleans(),
)


@given(st.lists(TOKENS, max_size=40), st.sampled_from([12, 40, 78]), st.booleans(), st.booleans())
def test_every_token_is_drawn_once_within_the_width(tokens, width: int, colored: bool, borders: bool) -> None:
    look = make_look(ascii=not colored, no_color=not colored)
    lines = xray_lines(tokens, width, look, borders)
    assert all(line.cell_len <= width + 1 for line in lines)  # the sign of an end stands behind its token
    if not colored:
        assert all(line.plain.isascii() for line in lines)
    counts = counts_of(tokens)
    assert counts.learnt + counts.masked + counts.cut == len(tokens)


def test_the_text_of_a_row_can_be_read_from_its_lines() -> None:
    words = ["<s>", "The ", "cat ", "sat", ".", "\n", "Yes", "</s>"]
    tokens = [XRayToken(at, word, at > 5, word[0] == "<", at == 7) for at, word in enumerate(words)]
    lines = [line.plain for line in xray_lines(tokens, 78, make_look(), borders=False)]
    assert lines == ["○ masked  <s>The cat sat.↵", "● learnt  Yes</s>■"]


def test_a_search_goes_on_through_the_file_until_it_has_enough(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "rows.jsonl", intake_rows(300), broken=1)
    source = Source(path)

    def found(wanted: Wanted, limit: int = 500, cancelled: bool = False) -> list[SampleRow]:
        portions = list(search(DataSources().rows(source), wanted, limit, lambda: cancelled))
        assert cancelled or portions[-1].done
        return [row for portion in portions for row in portion.rows]

    assert [row.line for row in found(Wanted(words="note 299"))] == [300]
    assert [row.line for row in found(Wanted("set aside"))] == [301]
    assert len(found(Wanted(), limit=20)) == 20
    assert found(Wanted(), cancelled=True) == []
    assert [row.line for row in found(Wanted(lines=frozenset({3, 5})))] == [3, 5]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FINETUI_HOME", str(tmp_path / "home"))
    return tmp_path


def test_the_children_behind_the_screen_tell_of_every_row(home: Path) -> None:
    rows = intake_rows(30)
    path = write_rows(home / "rows.jsonl", [*rows, rows[0]], broken=1)
    settings = {"data.sequence_length": 128, "data.max_rejected_share": 0.1}
    choice = DataChoice((SourceSection(path=path),), None, settings, MODEL_DIRECTORY)
    sources = DataSources()
    desk = sources.desk(MODEL_DIRECTORY, "model")
    try:
        (xray,) = desk.xray(Source(path), 2, 128, "answers")
        counts = counts_of(xray.tokens)
        assert counts.ends == 1 and counts.learnt and counts.learnt + counts.masked + counts.cut == len(xray.tokens)
        lengths = desk.lengths(Source(path), 500)
        assert len(lengths) == 31
    finally:
        desk.close()
    *progress, prepared = sources.prepare(choice)
    assert isinstance(prepared, DataPrepared) and all(isinstance(each, Progress) for each in progress)
    lost = sum(row.prompt_tokens >= 128 for row in lengths)
    assert (prepared.counts.rows, prepared.counts.aside) == (32, 1 + lost) and lost
    assert prepared.counts.cut == sum(row.tokens > 128 for row in lengths) - lost
    *_, findings = sources.report(choice, None)
    assert any("the same as an earlier" in each.title and each.fix is not None for each in findings), findings
    assert sources.find_personal("write to ana.ruiz@clinic.example") == [(9, 32, "e-mail addresses")]
    assert not sources.find_personal("Note 3")
