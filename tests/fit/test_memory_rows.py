"""Rows of measured memory on disk: kept, read back whatever happened to the file, and taken in by estimates."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import tiny

from engine.fit.memory_rows import Expected, load_learnt, measured_folder, predict_for_tokens, read_rows, remember
from profiles.geometry import read_geometry
from profiles.memory import estimate
from profiles.settings import Settings

SETTINGS = Settings(
    method="lora", device="cpu", compute_dtype="fp32", attention="sdpa", sequence_length=512, micro_batch=2
)


@pytest.fixture
def expected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Expected:
    monkeypatch.setenv("FINETUI_HOME", str(tmp_path / "home"))
    geometry = read_geometry(tiny.make_model(tmp_path / "model"))
    return Expected(geometry, SETTINGS, estimate(geometry, SETTINGS), "Some GPU (80 GB)")


def _file() -> Path:
    (path,) = measured_folder().iterdir()
    return path


def test_what_is_kept_corrects_the_next_estimate_of_the_same_device(expected: Expected):
    before = expected.estimate
    for _ in range(2):
        remember(expected, process_bytes=round(1.1 * before.peak_bytes))
    assert _file().name == "some-gpu-80-gb.jsonl"
    after = load_learnt().adjust(before, expected.geometry, SETTINGS, expected.device_name)
    assert after.peak_bytes == pytest.approx(1.1 * before.peak_bytes, rel=1e-6)
    assert load_learnt().adjust(before, expected.geometry, SETTINGS, "cpu") == before
    # A run under the corrected estimate is told what is believed, and is again compared with the formula.
    corrected = replace(expected, estimate=after)
    prediction = predict_for_tokens(corrected, SETTINGS.tokens)
    assert prediction.believed_bytes == pytest.approx(after.peak_bytes, rel=1e-6)
    assert prediction.process_bytes == before.peak_bytes


def test_a_run_of_short_rows_is_compared_with_what_short_rows_take(expected: Expected):
    whole, short = (predict_for_tokens(expected, tokens) for tokens in (SETTINGS.tokens, 101))
    assert whole.process_bytes == expected.estimate.peak_bytes
    one_row = replace(SETTINGS, sequence_length=51)
    assert short.process_bytes == estimate(expected.geometry, one_row).peak_bytes < whole.process_bytes


def test_damaged_lines_are_passed_over(expected: Expected):
    remember(expected, process_bytes=1 << 30)
    kept = _file().read_bytes()
    _file().write_bytes(b'\x00\xff not json\n[1, 2]\n\n{"device": 3}\n' + kept + kept[: len(kept) // 2])
    assert [row.get("process_bytes") for row in read_rows()] == [None, 1 << 30]
    load_learnt()


def test_the_file_does_not_grow_without_end_and_keeps_the_newest(expected: Expected):
    for size in range(1, 900):
        remember(expected, process_bytes=size)
    sizes = [row["process_bytes"] for row in read_rows()]
    assert 100 < len(sizes) < 900
    assert sizes == list(range(900 - len(sizes), 900))
    assert [path.suffix for path in measured_folder().iterdir()] == [".jsonl"]


def test_a_place_that_cannot_be_written_costs_the_row_alone(expected: Expected):
    measured_folder().parent.mkdir(parents=True)
    measured_folder().write_text("a file where the folder should be")
    remember(expected, process_bytes=1 << 30)
    assert list(read_rows()) == []
