"""The real engine from launch to hand-over: a real supervisor, a real worker, a real (tiny) model."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from training import make_spec, write_chats
from transformers import AutoModelForCausalLM, AutoTokenizer

from engine.run.checkpoints.manifest import list_checkpoints
from engine.run.checkpoints.verifying import damage
from engine.run.directory import RunDirectory
from engine.run.launch import launch, resume, stop
from engine.run.liveness import liveness
from engine.run.processes.recorded import recorded_processes
from engine.run.telemetry.journal import JournalTail
from engine.run.telemetry.reading import read_state
from engine.spec import RunSpec

# A bound for waiting, not a measurement: a loaded machine takes tens of seconds to import the training libraries.
PATIENCE_SECONDS = 240


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FINETUI_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("OMP_NUM_THREADS", "2")


def _spec(tmp_path: Path, model: Path, **sections: dict[str, Any]) -> RunSpec:
    chats = write_chats(tmp_path / "chats.jsonl", 48)
    held_out = write_chats(tmp_path / "held-out.jsonl", 6, seed=9)
    sections = {
        "evaluation": {"every_steps": 4, "answers": 4, "max_new_tokens": 8},
        "checkpoint": {"every_steps": 4},
        **sections,
    }
    return make_spec(model, chats, held_out, **sections)


def _wait(condition: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, f"waited in vain for {what}"
        time.sleep(0.05)


def _wait_for_end(run: RunDirectory) -> None:
    _wait(lambda: liveness(run) in ("ended", "died"), f"the end of {run.name}:\n{_log(run)}")


def _log(run: RunDirectory) -> str:
    return run.log_path.read_text(encoding="utf-8")[-3000:] if run.log_path.exists() else ""


def _losses(run: RunDirectory) -> dict[int, float]:
    events = JournalTail(run.events_path).read(run.events_path.stat().st_size)  # a line being written is not there yet
    return {event["step"]: event["loss"] for event in events if event["kind"] == "step"}


def test_a_run_trains_measures_and_hands_over_an_adapter_that_peft_loads(tmp_path: Path, llama: Path):
    run = launch(_spec(tmp_path, llama, train={"max_steps": 8}))
    _wait_for_end(run)
    state = read_state(run)
    assert state.outcome == "finished", _log(run)
    assert state.step == state.planned_steps == 8
    before, after = state.evaluation("before"), state.evaluation("after")
    assert before is not None
    assert after is not None
    assert after.held_out_loss < before.held_out_loss
    assert len(state.samples) == 4
    assert all(sample.expected for sample in state.samples)
    assert state.measured_peak_bytes > 0
    assert state.plan["predicted_peak_bytes"] > 0
    assert state.outputs == {"adapter": "outputs/adapter"}

    adapter = run.path / state.outputs["adapter"]
    tuned = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(llama), adapter)
    trained = load_file(run.checkpoints / f"step-{state.best_step:06d}" / "trainable.safetensors")
    for name, parameter in tuned.named_parameters():
        if "lora_" in name:
            assert torch.equal(parameter, trained[name]), name
    tokenizer = AutoTokenizer.from_pretrained(adapter)
    assert tokenizer.apply_chat_template([{"role": "user", "content": "hi"}], tokenize=False) == (
        "<|im_start|>user\nhi<|im_end|>\n"
    )


def test_a_full_run_hands_over_a_model_that_transformers_loads(tmp_path: Path, llama: Path):
    run = launch(_spec(tmp_path, llama, method={"kind": "full"}, train={"max_steps": 4}))
    _wait_for_end(run)
    state = read_state(run)
    assert state.outcome == "finished", _log(run)
    folder = run.path / state.outputs["model"]
    tuned = AutoModelForCausalLM.from_pretrained(folder)
    trained = load_file(run.checkpoints / f"step-{state.best_step:06d}" / "trainable.safetensors")
    for name, parameter in tuned.named_parameters():
        assert torch.equal(parameter, trained[name]), name
    # It ends its answers with the end-of-turn token it was trained to end with, not only at the end of text.
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert tokenizer.convert_tokens_to_ids("<|im_end|>") in tuned.generation_config.eos_token_id


def test_stopped_killed_or_terminated_a_run_saves_and_goes_on_as_if_nothing_had_happened(tmp_path: Path, llama: Path):
    spec = _spec(tmp_path, llama, train={"max_steps": 4000}, evaluation={"every_steps": 0, "answers": 0})
    run = launch(spec)
    _wait(lambda: len(_losses(run)) >= 5, "five steps")
    stop(run)
    _wait_for_end(run)
    state = read_state(run)
    assert state.outcome == "stopped", _log(run)
    stopped_at = state.step
    assert 5 <= stopped_at < 4000
    newest = list_checkpoints(run.checkpoints)[-1]
    assert newest.name == f"step-{stopped_at:06d}"
    assert damage(newest) is None
    assert (run.outputs / "adapter" / "adapter_model.safetensors").is_file()

    first_half = _losses(run)
    resume(run)
    _wait(lambda: max(_losses(run)) >= stopped_at + 5, "five more steps")
    losses = _losses(run)
    # Each step was taken once: the second attempt began where the first one ended.
    assert sorted(losses) == list(range(1, max(losses) + 1))
    assert {step: losses[step] for step in first_half} == first_half

    # Nobody is left to write the journal: the worker saves and ends by itself.
    processes = recorded_processes(run)
    os.kill(processes["supervisor"].pid, signal.SIGKILL)
    _wait(lambda: not processes["worker"].is_alive(), "the worker's end")
    assert liveness(run) == "died"
    newest = list_checkpoints(run.checkpoints)[-1]
    assert damage(newest) is None
    assert int(newest.name.removeprefix("step-")) >= max(losses)

    resume(run)
    _wait(lambda: read_state(run).phase == "training" and read_state(run).attempts == 3, "training to go on")
    os.kill(recorded_processes(run)["supervisor"].pid, signal.SIGTERM)
    _wait(lambda: liveness(run) == "ended", "the end after SIGTERM")
    state = read_state(run)
    assert state.outcome == "stopped", _log(run)
    assert state.attempts == 3


def test_weights_that_are_no_numbers_are_refused_by_tensor_name(tmp_path: Path, llama: Path):
    poisoned = tmp_path / "poisoned"
    model = AutoModelForCausalLM.from_pretrained(llama)
    with torch.no_grad():
        model.model.layers[0].mlp.up_proj.weight[0, 0] = float("nan")
    model.save_pretrained(poisoned)
    AutoTokenizer.from_pretrained(llama).save_pretrained(poisoned)
    run = launch(_spec(tmp_path, poisoned))
    _wait_for_end(run)
    state = read_state(run)
    assert state.outcome == "failed"
    assert state.problem is not None
    assert "model.layers.0.mlp.up_proj.weight" in state.problem["where"]
    assert state.problem["fix"]
