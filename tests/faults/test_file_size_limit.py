"""Files that may only be so large: a write is taken in part, the run ends in words, and resumes to the same bits."""

from __future__ import annotations

from pathlib import Path

import pytest
from fault_ledger import Ledger
from scripts import told_by

KIND = "file size limit (RLIMIT_FSIZE)"


# From the largest file down: the normal suite tries a checkpoint's, and one of what is prepared.
@pytest.mark.parametrize("every", [11, pytest.param(1, marks=pytest.mark.slow)])
def test_a_worker_whose_files_may_not_grow_ends_in_words_and_the_end_is_the_same(
    tmp_path: Path, ledger: Ledger, every: int
):
    outcomes = told_by("limits_under_faults.py", tmp_path, every)
    assert len(outcomes) >= 2
    for each in outcomes:
        ledger.injected(KIND)
        ledger.resumed(KIND, each["exact"])
        assert each["exact"], each
        assert (each["outcome"], each["status"], each["problems"]) == ("failed", 2, 1), each
        assert "a file would be larger than this process" in each["why"], each
        assert "ulimit -f" in each["why"] + each["remedy"], each
    assert any("the checkpoint of step" in each["why"] for each in outcomes)
