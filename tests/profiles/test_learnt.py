"""What measured rows do to an estimate: towards the truth, never far down, and only where they belong."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from model_folder import LLAMA, make_model

from profiles.geometry import Geometry, read_geometry
from profiles.learnt import FORMULA, OUT_OF_MEMORY, Learnt, MeasuredRow, model_key, shipped_rows
from profiles.memory import COMPONENTS, MemoryEstimate
from profiles.settings import Settings

MIB = 1 << 20
SETTINGS = Settings(method="lora", device="cuda", compute_dtype="bf16", attention="varlen", sequence_length=1024)
CARD = "NVIDIA Test Card"
TENSORS, CONTEXT = 8000 * MIB, 1000 * MIB


@pytest.fixture(scope="module")
def geometry(tmp_path_factory: pytest.TempPathFactory) -> Geometry:
    return read_geometry(make_model(tmp_path_factory.mktemp("model"), LLAMA))


def _estimate(tensors: int = TENSORS, context: int = CONTEXT, error_share: float = 0.2) -> MemoryEstimate:
    components = {**dict.fromkeys(COMPONENTS, 0), "weights": tensors, "context": context}
    return MemoryEstimate(components, "loss", error_share, ("The peak is in the phase: loss.",))


def _row(geometry: Geometry, process: float, **fields: Any) -> dict[str, Any]:
    return {
        "device": CARD,
        "model": model_key(geometry),
        "method": "lora",
        "formula": FORMULA,
        "predicted_allocated_bytes": TENSORS,
        "predicted_process_bytes": TENSORS + CONTEXT,
        "allocated_bytes": TENSORS,
        "process_bytes": int(process),
        "outcome": "ok",
        **fields,
    }


def _adjusted(geometry: Geometry, *rows: dict[str, Any], **of: Any) -> MemoryEstimate:
    return Learnt.from_rows(rows).adjust(_estimate(**of), geometry, SETTINGS, CARD)


@given(
    shares=st.lists(st.floats(0.9, 1.6), min_size=1, max_size=60),
    bounds=st.lists(st.floats(0.9, 2.0), max_size=3),
    error_share=st.floats(0.02, 0.5),
)
def test_a_corrected_estimate_stays_within_reason(
    geometry: Geometry, shares: list[float], bounds: list[float], error_share: float
):
    whole = TENSORS + CONTEXT
    rows = [_row(geometry, whole * share) for share in shares]
    rows += [_row(geometry, whole * share, outcome=OUT_OF_MEMORY) for share in bounds]
    before, after = _estimate(error_share=error_share), _adjusted(geometry, *rows, error_share=error_share)
    assert 0.02 <= after.error_share <= 0.5
    # Tensors are the formula's business; the context moves between half of what was predicted and four times that.
    assert after.allocated_bytes == before.allocated_bytes
    assert CONTEXT / 2 <= after.components["context"] <= 4 * CONTEXT
    assert after.peak_bytes == sum(after.components.values())
    # What ran out of memory there is not proposed again, unless it had room enough for any such run.
    lowest = max((share for share in bounds if share <= 1.5), default=0)
    assert after.peak_bytes >= min(lowest * whole, TENSORS + 4 * CONTEXT) - 2


@given(share=st.floats(1.0, 1.3), count=st.integers(1, 40))
def test_rows_that_agree_are_believed_and_narrow_the_band(geometry: Geometry, share: float, count: int):
    measured = (TENSORS + CONTEXT) * share
    after = _adjusted(geometry, *[_row(geometry, measured) for _ in range(count)])
    assert after.peak_bytes == pytest.approx(measured, rel=1e-6)
    fewer = _adjusted(geometry, *[_row(geometry, measured) for _ in range(max(1, count - 1))])
    assert 0.02 <= after.error_share <= fewer.error_share < 0.2


@given(share=st.floats(0.95, 0.999), more=st.integers(1, 20))
def test_a_lower_measurement_is_believed_slowly(geometry: Geometry, share: float, more: int):
    whole = TENSORS + CONTEXT
    few, many = (_adjusted(geometry, *[_row(geometry, whole * share)] * count) for count in (1, 1 + more))
    assert whole * share <= many.peak_bytes + 1 < few.peak_bytes + 2 <= whole + 2


@given(shares=st.lists(st.floats(0.9, 1.8), min_size=2, max_size=9), seed=st.integers(0, 9))
def test_rows_that_disagree_widen_the_band_whatever_their_order(geometry: Geometry, shares: list[float], seed: int):
    rows = [_row(geometry, (TENSORS + CONTEXT) * share) for share in shares]
    after = _adjusted(geometry, *rows)
    for row in rows:
        assert abs(row["process_bytes"] / after.peak_bytes - 1) <= after.error_share + 1e-6 or after.error_share == 0.5
    random.Random(seed).shuffle(rows)
    assert _adjusted(geometry, *rows).components == after.components


def test_a_single_outlier_among_many_moves_nothing(geometry: Geometry):
    rows = [_row(geometry, (TENSORS + CONTEXT) * 1.02)] * 20 + [_row(geometry, (TENSORS + CONTEXT) * 3)]
    assert _adjusted(geometry, *rows).peak_bytes == pytest.approx((TENSORS + CONTEXT) * 1.02, rel=1e-6)


def test_the_newest_rows_count(geometry: Geometry):
    old, new = (TENSORS + CONTEXT) * 1.2, (TENSORS + CONTEXT) * 1.01
    rows = [_row(geometry, old)] * 100 + [_row(geometry, new)] * 32
    assert _adjusted(geometry, *rows).peak_bytes == pytest.approx(new, rel=1e-6)


def test_other_models_and_methods_teach_the_context_of_the_device_alone(geometry: Geometry):
    # Tensors 500 MiB above their prediction are that model's own; the context of 1.3 times is the device's.
    fields = {"model": "other-1x1x1-v1", "allocated_bytes": TENSORS + 500 * MIB}
    rows = [_row(geometry, TENSORS + 500 * MIB + 1.3 * CONTEXT, **fields)] * 3
    assert _adjusted(geometry, *rows).components["context"] == pytest.approx(1.3 * CONTEXT, rel=1e-6)
    assert _adjusted(geometry, *rows[:2]) == _estimate(), "two runs of another model say little"
    own = _row(geometry, TENSORS + 1.1 * CONTEXT)
    assert _adjusted(geometry, *rows, own).components["context"] == pytest.approx(1.1 * CONTEXT, rel=1e-6)


def test_rows_of_another_device_or_size_say_nothing(geometry: Geometry):
    learnt = Learnt.from_rows([_row(geometry, (TENSORS + CONTEXT) * 1.2)] * 5)
    assert learnt.adjust(_estimate(), geometry, SETTINGS, "cpu") == _estimate()
    tiny = _estimate(tensors=10 * MIB, context=450 * MIB)
    assert learnt.adjust(tiny, geometry, SETTINGS, CARD) == tiny
    assert Learnt.from_rows(()).adjust(tiny, geometry, SETTINGS, CARD) is tiny


JUNK: dict[str, Any] = {
    "another formula": {"formula": FORMULA + 1},
    "no formula": {"formula": None},
    "a fault": {"outcome": "RuntimeError: no kernel"},
    "nothing predicted": {"predicted_allocated_bytes": 0},
    "no context predicted": {"predicted_process_bytes": TENSORS},
    "more tensors than process": {"allocated_bytes": 100 * TENSORS},
    "not a number": {"process_bytes": "lots"},
    "infinite": {"process_bytes": float("inf")},
    "negative": {"process_bytes": -5},
    "out of memory with plenty free": {"outcome": OUT_OF_MEMORY, "process_bytes": 2 * (TENSORS + CONTEXT)},
}


@pytest.mark.parametrize("fields", JUNK.values(), ids=JUNK.keys())
def test_rows_that_cannot_be_used_are_passed_over(geometry: Geometry, fields: dict[str, Any]):
    assert _adjusted(geometry, {**_row(geometry, 3 * TENSORS), **fields}) == _estimate()
    assert _adjusted(geometry, {}) == _estimate()


def test_a_model_is_known_by_its_sizes_wherever_it_lies(tmp_path: Path, geometry: Geometry):
    assert model_key(read_geometry(make_model(tmp_path / "copy", LLAMA))) == model_key(geometry)
    wider = make_model(tmp_path / "wider", {**LLAMA, "hidden_size": 2 * LLAMA["hidden_size"]})
    assert model_key(read_geometry(wider)) != model_key(geometry)


def test_rows_read_from_csv_teach_the_same(geometry: Geometry):
    row = _row(geometry, (TENSORS + CONTEXT) * 1.1)
    written = {name: "" if value is None else str(value) for name, value in row.items()}
    assert _adjusted(geometry, written) == _adjusted(geometry, row) != _estimate()
    unknown = {**written, "allocated_bytes": ""}
    assert _adjusted(geometry, unknown) == _adjusted(geometry, {**row, "allocated_bytes": None})
    assert all(MeasuredRow.read(each) is not None for each in shipped_rows() if each["outcome"] == "ok")
