"""A run's pace, as later predictions of time learn from it."""

from __future__ import annotations

import pytest
import torch

from engine.train.metrics import StepMetrics


def test_the_pace_leaves_out_warming_up_and_whatever_was_no_training(monkeypatch: pytest.MonkeyPatch):
    clock = [100.0]
    monkeypatch.setattr("engine.train.metrics.time.monotonic", lambda: clock[0])
    metrics = StepMetrics(torch.device("cpu"), lambda *told: None)
    one = torch.ones(())
    paces = []
    for seconds, tokens in ((60.0, 1), (9.0, 1), (2.0, 100), (2.0, 100), (1.0, 300)):
        clock[0] += 1000.0  # a measurement
        metrics.start()
        clock[0] += seconds
        metrics.record({"tokens": tokens, "target_tokens": tokens / 4}, one, one)
        paces.append(metrics.pace)
    assert paces[:-1] == [None] * 4
    assert paces[-1] == (100.0, 0.25)
