"""The environment that finetui's own child processes start with."""

from __future__ import annotations

import pytest

from engine.modules import module_environment

ALLOCATOR = ("PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF")


@pytest.mark.parametrize("decided", [None, *ALLOCATOR])
def test_the_gpu_allocators_segments_grow_unless_a_person_decided(monkeypatch: pytest.MonkeyPatch, decided: str | None):
    for name in ALLOCATOR:
        monkeypatch.delenv(name, raising=False)
    if decided is not None:
        monkeypatch.setenv(decided, "max_split_size_mb:128")
    found = {name: value for name, value in module_environment().items() if name in ALLOCATOR}
    if decided is None:
        assert found == dict.fromkeys(ALLOCATOR, "expandable_segments:True")
    else:
        assert found == {decided: "max_split_size_mb:128"}
