"""A checkpoint with a flipped bit, a short or a missing file: named, passed over and kept; the end is the same."""

from __future__ import annotations

from pathlib import Path

import pytest
from fault_ledger import Ledger
from scripts import told_by


# The normal suite tries each ninth damage: there are seven of each file, so that it meets all kinds, each on another.
@pytest.mark.parametrize("every", [9, pytest.param(1, marks=pytest.mark.slow)])
def test_a_run_goes_on_from_the_checkpoint_before_a_damaged_one_to_the_same_bits(
    tmp_path: Path, ledger: Ledger, every: int
):
    outcomes = told_by("checkpoints_under_damage.py", tmp_path, every)
    assert {each["kind"] for each in outcomes} == {"flipped bit", "short file", "missing file"}
    assert len({each["file"] for each in outcomes}) >= 4
    for each in outcomes:
        kind = f"checkpoint with a {each['kind']}"
        ledger.injected(kind)
        ledger.resumed(kind, each["exact"])
        if not each["kept"]:
            ledger.lost(kind)
        assert each["exact"] and each["kept"], each
        named = [text for text in each["told"] if text.startswith("step-000004 was passed over: ")]
        assert len(named) == 1 and (each["file"] in named[0] or each["file"] == "manifest.json"), each
        assert "went on from the checkpoint of step 2" in each["told"], each
