"""When a reading of the devices is worth a line in the journal: when a gauge would show it."""

from __future__ import annotations

import pytest

from engine.run.devices import looks_different

GPU = {"index": 0, "name": "GPU", "used_bytes": 8 << 30, "total_bytes": 24 << 30}
READING = {
    "cpu_share": 0.5,
    "memory_used_bytes": 10 << 30,
    "memory_total_bytes": 32 << 30,
    "worker_bytes": 1 << 30,
    "disk_free_bytes": 100 << 30,
    "gpus": [
        GPU | {"celsius": 61, "watts": 212.0, "share": 0.9},
        GPU | {"celsius": None, "watts": None, "share": None},
    ],
}


def changed(name: str, value: float) -> dict:
    if name in READING:
        return READING | {name: value}
    first, second = READING["gpus"]
    return READING | {"gpus": [first | {name: value}, second]}


@pytest.mark.parametrize(
    ("name", "noise", "change"),
    [
        ("cpu_share", 0.502, 0.54),
        ("memory_used_bytes", (10 << 30) + (20 << 20), 11 << 30),
        ("worker_bytes", (1 << 30) + (20 << 20), 2 << 30),
        ("disk_free_bytes", (100 << 30) - (20 << 20), 99 << 30),
        ("used_bytes", (8 << 30) + (20 << 20), 9 << 30),
        ("celsius", 61.2, 62),
        ("watts", 212.3, 220.0),
        ("share", 0.901, 0.5),
        ("share", 0.9, None),
    ],
)
def test_noise_is_no_change_and_a_change_is(name: str, noise: float, change: float):
    assert not looks_different(changed(name, noise), READING)
    assert looks_different(changed(name, change), READING)
