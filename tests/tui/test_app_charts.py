"""The chart, the memory bar and the cells written: exact widths, gaps, marks, and how little a new point changes."""

from __future__ import annotations

import io
import math

import pyte
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console
from rich.segment import Segment
from rich.style import Style
from rich.text import Text
from textual._compositor import ChopsUpdate, LayoutUpdate
from textual.geometry import Region
from textual.strip import Strip

from tui.memory_shares import COMPONENTS, LETTERS
from tui.screen_update import ScreenCells, to_ascii
from tui.theme import DEFAULT_LOOK, make_look
from tui.widgets.line_chart import ChartData, Mark, axis_bounds, render_chart, smooth
from tui.widgets.memory_bar import render_memory_bar, render_memory_legend

LOOKS = {"color": DEFAULT_LOOK, "no-color": make_look(no_color=True), "ascii": make_look(ascii=True, no_color=True)}
looks = pytest.mark.parametrize("look", LOOKS.values(), ids=LOOKS)


def chart(points, marks=(), look=DEFAULT_LOOK, width=80, height=12, last_step=100, smoothed=True) -> list[str]:
    data = ChartData(Text("loss"), points, last_step, marks, smoothed=smoothed)
    return [line.plain for line in render_chart(data, width, height, look)]


def falling(until: int) -> list[tuple[int, float | None]]:
    return [(step, 3 * math.exp(-step / 20) + 0.3 + 0.1 * math.sin(step)) for step in range(1, until + 1)]


@looks
@given(
    values=st.lists(st.one_of(st.none(), st.floats(-1e9, 1e9)), max_size=60),
    width=st.integers(1, 150),
    height=st.integers(1, 40),
)
@settings(max_examples=60, deadline=None)
def test_a_chart_always_fits(look, values, width: int, height: int) -> None:
    lines = chart(list(enumerate(values)), look=look, width=width, height=height, last_step=60)
    assert len(lines) <= height or height < 3
    assert all(cell_len(line) <= width for line in lines)
    assert not look.ascii or "".join(lines).isascii()


def test_a_new_step_changes_few_cells() -> None:
    before, after = chart(falling(60)), chart(falling(61))
    changed = sum(
        old != new for line, other in zip(before, after, strict=True) for old, new in zip(line, other, strict=True)
    )
    assert 0 < changed <= 6


def test_what_is_not_a_number_is_a_gap_and_does_not_bend_the_scale() -> None:
    points = falling(100)
    with_gap = [(step, None if 40 <= step < 60 else value) for step, value in points]
    whole, gapped = chart(points), chart(with_gap)
    assert [line[:8] for line in whole] == [line[:8] for line in gapped]
    columns = range(8 + 72 * 45 // 100, 8 + 72 * 55 // 100)
    assert any(line[column] != " " for line in whole[1:-1] for column in columns)
    assert all(line[column] == " " for line in gapped[1:-1] for column in columns)


@looks
def test_held_out_measurements_stand_out(look) -> None:
    marks = [Mark(0, 3.2, "before"), Mark(50, 0.6), Mark(100, 0.4, "after")]
    text = "\n".join(chart(falling(100), marks, look)[1:])
    before, other = ("B", "o") if look.ascii else ("◇", "◆")
    assert text.count(before) == 1 and text.count(other) == 2 + ("steps".count("o") if look.ascii else 0)


@given(st.floats(-1e6, 1e6), st.floats(0, 1e6), st.integers(2, 50))
def test_axis_bounds_hold_the_values_and_label_within(low: float, span: float, rows: int) -> None:
    bottom, top, ticks = axis_bounds(low, low + span, rows)
    slack = 1e-6 * max(1.0, abs(low), span)
    assert bottom <= low + slack and top >= low + span - slack and top > bottom
    assert all(bottom - slack <= tick <= top + slack for tick in ticks) and len(ticks) <= 30


def test_smoothing_keeps_a_constant_and_forgets_a_spike() -> None:
    assert all(value == pytest.approx(2.0) for _, value in smooth([(step, 2.0) for step in range(50)], 5))
    spiked = smooth([(step, 100.0 if step == 10 else 1.0) for step in range(60)], 3)
    assert spiked[10][1] > 10 and spiked[59][1] == pytest.approx(1.0, abs=1e-3)
    assert smooth([(1, 1.0), (2, None), (3, 1.0)], 5)[1] == (2, None)


amounts = st.dictionaries(st.sampled_from(COMPONENTS), st.integers(1, 1 << 40))


@looks
@given(components=amounts, total=st.integers(1, 1 << 41), width=st.integers(24, 120), others=st.integers(0, 1 << 38))
@settings(max_examples=80)
def test_a_memory_bar_is_exactly_as_wide_as_asked(look, components, total: int, width: int, others: int) -> None:
    bar = render_memory_bar(components, total, width, others_bytes=others, look=look)
    assert bar.cell_len == width
    if look is not DEFAULT_LOOK:
        # Every part is there, in the one order, however small it is.
        letters = [
            letter for index, letter in enumerate(bar.plain) if letter.isalpha() and bar.plain[index - 1] != letter
        ]
        expected = [LETTERS[name] for name in COMPONENTS if name in components] + ["x"] * bool(others)
        assert letters == expected


def test_an_overfull_bar_is_full_and_an_empty_one_is_empty() -> None:
    plain = LOOKS["ascii"]
    assert render_memory_bar({"weights": 50}, 10, 12, look=plain).plain == "[WWWWWWWWWW]"
    assert render_memory_bar({}, 10, 12, look=plain).plain == "[..........]"
    assert render_memory_bar({"weights": 5}, 10, 12, look=plain).plain == "[WWWWW.....]"


def test_the_legend_names_every_part() -> None:
    parts = dict.fromkeys(COMPONENTS, 1 << 30)
    text = "\n".join(line.plain for line in render_memory_legend(parts, 78, LOOKS["ascii"], 5 << 30))
    assert all(f"{LETTERS[name]} {name} 1.0 GiB" in text for name in COMPONENTS) and "free 5.0 GiB" in text


characters = st.sampled_from("ab .─█⣿名前é\u0301")
styles = st.sampled_from([None, Style(color="red"), Style(bold=True, bgcolor="#102030")])
line = st.lists(st.tuples(st.text(characters, max_size=12), styles), max_size=4)


@given(st.lists(st.lists(line, min_size=4, max_size=4), min_size=1, max_size=6))
@settings(max_examples=150, deadline=None)
def test_cells_pieced_together_are_the_cells_drawn_at_once(frames) -> None:
    console = Console(file=io.StringIO(), color_system="truecolor", force_terminal=True)
    pieced, whole = pyte.Screen(30, 4), pyte.Screen(30, 4)
    pieced_stream, whole_stream = pyte.Stream(pieced), pyte.Stream(whole)
    cells = ScreenCells(console)
    for frame in frames:
        # pyte wraps a mark that combines with the last column's character, so the last columns stay blank.
        strips = [Strip([Segment(text, style) for text, style in each]) for each in frame]
        strips = [strip.adjust_cell_length(28).adjust_cell_length(30) for strip in strips]
        update = cells.changes(LayoutUpdate([[strip] for strip in strips], Region(0, 0, 30, 4)))
        if update is not None:
            pieced_stream.feed(update.render_segments(console))
        whole.reset()
        fresh = ScreenCells(console).changes(LayoutUpdate([[strip] for strip in strips], Region(0, 0, 30, 4)))
        whole_stream.feed(fresh.render_segments(console))
        assert pieced.display == whole.display
        assert cells.changes(LayoutUpdate([[strip] for strip in strips], Region(0, 0, 30, 4))) is None


def test_nothing_is_written_raw_after_all_was_forgotten() -> None:
    console = Console(file=io.StringIO(), color_system="truecolor", force_terminal=True)
    cells = ScreenCells(console, no_color=True, ascii=True)
    drawn = Strip([Segment("─│", Style(color="red"))])
    for _ in range(2):
        update = cells.changes(ChopsUpdate([{0: drawn}], [(0, 0, 2)], [[2]]))
        assert update is not None and update.render_segments(console) == "\x1b[1;1H-|"
        cells.forget()


@given(st.text(max_size=40))
def test_ascii_is_as_wide_as_what_it_stands_for(text: str) -> None:
    assert to_ascii(text).isascii()
    assert sum(cell_len(character) for character in text) == len(to_ascii(text)) or not text.isprintable()
