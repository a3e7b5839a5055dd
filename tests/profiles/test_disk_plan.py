"""The bytes that a run will write, against those that real saves wrote."""

from __future__ import annotations

from pathlib import Path

import pytest
import tiny
from training import build_setup, make_spec, write_chats

from engine.run.creating import create_run
from engine.run.disk_room import disk_plan, require_room
from engine.train.checkpoints import Progress, checkpoint_bytes, save_checkpoint
from engine.train.outputs import output_bytes, write_outputs
from profiles.disk_plan import saves_of
from profiles.geometry import read_geometry
from profiles.problem import Problem

KIB = 1 << 10


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.make_model(tmp_path_factory.mktemp("llama"), hidden=256, layers=4, dtype="bfloat16")


def tree_bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize("method", ["lora", "qlora", "partial", "full"])
@pytest.mark.parametrize("optimizer", ["adamw", "adamw_8bit", "adafactor"])
def test_saves_take_what_was_planned(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model: Path, method: str, optimizer: str
):
    monkeypatch.setenv("FINETUI_HOME", str(tmp_path / "home"))
    rows = write_chats(tmp_path / "rows.jsonl", 8)
    kind = {"kind": method, "trained_layers": 2, "rank": 16}
    spec = make_spec(model, rows, method=kind, optimizer={"kind": optimizer})
    setup = build_setup(spec)
    (first, *_) = setup.plan.micro_batches(0)
    setup.add_gradients(setup.forward.collate(first), 1)
    setup.update()
    run = create_run(spec)
    saved = save_checkpoint(run.checkpoints, Progress(1, 1, None, None), setup.parameters, setup.optimizer, keep=1)
    _, folder = write_outputs(setup, run)

    plan = disk_plan(spec, read_geometry(model), steps=1)
    for planned, exact, really in (
        (plan.checkpoint_bytes, checkpoint_bytes(setup.parameters, setup.optimizer), tree_bytes(saved.path)),
        (plan.output_bytes, output_bytes(setup), tree_bytes(folder)),
    ):
        # Never too little; and not much too much, small files aside.
        assert really <= planned <= really * 1.03 + 160 * KIB
        assert really <= exact + 8 * KIB and exact <= really * 1.03 + 128 * KIB


def test_as_many_checkpoints_are_counted_as_there_are_at_once(tmp_path: Path, model: Path):
    rows = write_chats(tmp_path / "rows.jsonl", 8)
    geometry = read_geometry(model)
    assert [saves_of(steps, every) for steps, every in ((7, 0), (7, 3), (6, 3), (2, 3))] == [1, 3, 2, 1]

    def at_once(steps: int, keep: int, held_out_share: float) -> int:
        values = {"checkpoint": {"every_steps": 10, "keep": keep}, "data": {"held_out_share": held_out_share}}
        return disk_plan(make_spec(model, rows, **values), geometry, steps).checkpoints

    # Those kept, the best, and the one being written; no more than are ever saved.
    assert at_once(1000, keep=2, held_out_share=0.1) == 4
    assert at_once(1000, keep=2, held_out_share=0.0) == 3
    assert at_once(15, keep=5, held_out_share=0.1) == 2


def test_a_disk_without_room_is_refused_with_what_is_needed_what_is_free_and_what_helps(tmp_path: Path, model: Path):
    rows = write_chats(tmp_path / "rows.jsonl", 8)
    spec = make_spec(model, rows, method={"kind": "full"}, checkpoint={"every_steps": 1, "keep": 3})
    plan = disk_plan(spec, read_geometry(model), steps=100)
    require_room(plan, spec, plan.total_bytes * 2, tmp_path)
    with pytest.raises(Problem) as raised:
        require_room(plan, spec, plan.total_bytes // 2, tmp_path)
    told = str(raised.value)
    assert str(tmp_path) in told and "checkpoints at once" in told and "checkpoint.keep (3)" in told
