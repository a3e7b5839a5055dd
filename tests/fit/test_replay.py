"""The replay against real steps: what it counts, what it extrapolates, what it keeps, and how it fails."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from engine.fit.models import find_model
from engine.fit.replay import Replayed, cached_replay, replay, replay_many
from engine.modules import module_environment
from engine.offline import set_offline
from engine.seal import sealing
from profiles.geometry import Geometry
from profiles.memory import estimate
from profiles.problem import Problem
from profiles.settings import Settings

CONFIG: dict[str, Any] = {
    "model_type": "llama",
    "vocab_size": 900,
    "hidden_size": 64,
    "intermediate_size": 176,
    "num_hidden_layers": 5,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "tie_word_embeddings": False,
}
GEMMA: dict[str, Any] = {
    **CONFIG,
    "model_type": "gemma3_text",
    "head_dim": 16,
    "num_hidden_layers": 9,
    "sliding_window": 64,
    "layer_types": ["full_attention" if layer % 4 == 3 else "sliding_attention" for layer in range(9)],
    "tie_word_embeddings": True,
}
LORA = Settings(
    method="lora", device="cpu", compute_dtype="fp32", attention="sdpa", sequence_length=256, gradient_checkpointing=1
)
ENDLESS = [sys.executable, "-c", "import time; time.sleep(600)"]
"""In the place of a child that might be done before it is looked at."""
FULL = replace(LORA, method="full", gradient_checkpointing=0, compute_dtype="bf16", loss_chunk=128)


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FINETUI_HOME", str(tmp_path / "home"))


def geometry_of(folder: Path, config: dict[str, Any]) -> Geometry:
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config))
    return find_model(folder)


def real_peak(folder: Path, settings: Settings) -> int:
    """The most bytes of tensors in two real steps of a random model, made in `folder`."""
    set_offline()
    import torch
    from transformers import AutoConfig

    from engine.fit.live_bytes import LiveBytes
    from engine.fit.training_step import TORCH_DTYPES, TrainingStep, head_for, method_section
    from engine.methods.loading import AUTO_CLASSES
    from engine.methods.trainable import make_trainable
    from engine.train.optimizer import make_optimizer

    torch.manual_seed(0)
    config = AutoConfig.from_pretrained(folder, local_files_only=True)
    head = head_for(settings)
    config.update(head.configuration())
    model = AUTO_CLASSES[head.kind].from_config(config, dtype=TORCH_DTYPES[settings.weight_dtype])
    step = TrainingStep.of(
        make_trainable(model, method_section(settings)), settings, make_optimizer, settings.attention
    )
    live = LiveBytes()
    with live:
        for tensor in (*step.forward.model.parameters(), *step.forward.model.buffers(), *step.batch_tensors()):
            live.count(tensor.detach())
        for _ in range(2):
            step.micro_batch(lambda _: None)
            assert float(step.update(lambda _: None)) > 0
    return live.peak


def test_a_replay_counts_what_a_real_step_holds_and_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    geometry = geometry_of(tmp_path / "model", CONFIG)
    assert cached_replay(geometry, LORA) is None

    found = replay_many(geometry, (LORA, FULL))

    for settings, replayed in zip((LORA, FULL), found, strict=True):
        assert replayed is not None
        assert replayed.allocated_bytes == max(replayed.phases.values())
        assert replayed.allocated_bytes == pytest.approx(real_peak(geometry.path, settings), rel=0.01)
    monkeypatch.setattr(sealing, "GroupProcess", None)  # a child cannot be started any more
    assert replay(geometry, LORA) == found[0] == cached_replay(geometry, LORA)
    assert replay(geometry, replace(LORA, answers=8)) == found[0], "answers are no part of a step"
    assert cached_replay(geometry, replace(LORA, rank=8)) is None


def test_every_objective_is_replayed_as_it_is_learnt(tmp_path: Path) -> None:
    geometry = geometry_of(tmp_path / "model", CONFIG)
    many = [replace(LORA, objective=each) for each in ("dpo", "kto", "classification", "embedding")]
    many.append(replace(FULL, objective="simpo"))
    for settings, replayed in zip(many, replay_many(geometry, many), strict=True):
        assert replayed is not None
        assert replayed.allocated_bytes == pytest.approx(real_peak(geometry.path, settings), rel=0.01)
        phases = estimate(geometry, settings).phases
        foreseen = max(phases.get(phase, 0) for phase in replayed.phases)
        assert foreseen == pytest.approx(replayed.allocated_bytes, rel=0.04)


@pytest.mark.parametrize(
    ("config", "changes"),
    [
        (CONFIG, {"method": "full", "device": "cuda", "attention": "varlen", "compute_dtype": "bf16"}),
        (CONFIG, {"gradient_checkpointing": 2, "gradient_accumulation": 2}),
        (CONFIG, {"method": "partial", "trained_layers": 3, "gradient_checkpointing": 2, "compute_dtype": "bf16"}),
        (CONFIG, {"method": "partial", "trained_layers": 1, "optimizer": "adafactor"}),
        (GEMMA, {"method": "qlora", "gradient_checkpointing": 0}),
        (GEMMA, {"device": "cuda", "offload_checkpoints": True, "dropout": 0.1}),
        (GEMMA, {"device": "cuda", "attention": "varlen", "compute_dtype": "bf16"}),
    ],
)
def test_few_layers_stand_for_the_whole_depth(config: dict[str, Any], changes: dict[str, Any]) -> None:
    set_offline()
    from engine.fit.fake_step import replay_step

    settings = replace(LORA, **changes)

    assert replay_step(config, settings) == replay_step(config, settings, every_layer=True)


def test_offloaded_inputs_are_not_on_the_device() -> None:
    set_offline()
    from engine.fit.fake_step import replay_step

    held = replace(LORA, device="cuda", sequence_length=512)
    forward = replay_step(CONFIG, held)["forward"]

    offloaded = replay_step(CONFIG, replace(held, offload_checkpoints=True))["forward"]

    inputs = 512 * CONFIG["hidden_size"] * 4
    # While the last layer runs, its own input is there, and the first's, which the model's forward refers to.
    assert forward - offloaded == (CONFIG["num_hidden_layers"] - 2) * inputs


def test_what_cannot_be_replayed_is_a_problem(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    geometry = geometry_of(tmp_path / "model", CONFIG)
    broken = {**CONFIG, "rope_parameters": {"rope_type": "nonsense", "rope_theta": 1.0}}
    unbuildable = replace(geometry, config=replace(geometry.config, values=broken))

    with pytest.raises(Problem) as problem:
        replay(unbuildable, LORA)
    assert "config.json" in str(problem.value) and "Traceback" not in str(problem.value)
    monkeypatch.setattr("engine.fit.replay.module_command", lambda _: ENDLESS)
    with pytest.raises(Problem, match="longer than"):
        replay(geometry, LORA, timeout_seconds=0.0)
    assert cached_replay(unbuildable, LORA) is cached_replay(geometry, LORA) is None


def test_a_cancelled_replay_leaves_no_child_and_no_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    geometry = geometry_of(tmp_path / "model", CONFIG)
    children: list[subprocess.Popen[bytes]] = []
    start = sealing.GroupProcess

    def remembering(*arguments: Any, **options: Any) -> subprocess.Popen[bytes]:
        children.append(start(*arguments, **options))
        return children[-1]

    monkeypatch.setattr(sealing, "GroupProcess", remembering)
    monkeypatch.setattr("engine.fit.replay.module_command", lambda _: ENDLESS)
    cancelled = threading.Event()
    cancelled.set()

    assert replay(geometry, LORA, cancelled=cancelled) is None
    assert [child.returncode for child in children] == [-9]


def test_a_replay_needs_no_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    geometry = geometry_of(tmp_path / "model", CONFIG)
    monkeypatch.setenv("FINETUI_CACHE", "/proc/nowhere")  # no folder can be made there, sealed or not
    found = replay(geometry, LORA)
    assert found is not None and found.allocated_bytes == max(found.phases.values())
    assert cached_replay(geometry, LORA) is None


def test_the_child_is_offline_and_opens_no_connection() -> None:
    request = {"config": CONFIG, "settings": [asdict(LORA)], "every_layer": False}
    watched = (
        "import os, runpy, socket, sys\n"
        "def forbid(event, arguments):\n"
        "    if event in ('socket.connect', 'socket.getaddrinfo'):\n"
        "        os._exit(9)\n"
        "sys.addaudithook(forbid)\n"
        "runpy.run_module('engine.fit.replay_child', run_name='__main__')\n"
    )
    child = subprocess.run(
        [sys.executable, "-c", watched],
        input=json.dumps(request),
        env={key: value for key, value in module_environment().items() if not key.startswith("HF_")},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )

    assert child.returncode == 0, child.stderr
    assert Replayed(0, json.loads(child.stdout)["phases"], 0.0).phases["loss"] > 0


def test_asking_needs_no_torch() -> None:
    watched = "import sys; import engine.fit.replay; sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    subprocess.run([sys.executable, "-c", watched], env=module_environment(), timeout=120, check=True)
