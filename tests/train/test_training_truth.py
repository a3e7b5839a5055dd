"""The loop's numbers against a plain reference, and against itself under every equivalent arrangement."""

from __future__ import annotations

from pathlib import Path

import pytest
import tiny
import torch
from safetensors.torch import load_file
from torch.nn import functional as F
from training import build_setup, losses, make_spec, train, write_chats

from engine.run.checkpoints.manifest import list_checkpoints
from engine.run.creating import create_run
from engine.run.processes.channel import MemoryChannel
from engine.train.optimizer import rate_share
from engine.train.recipe import Recipe


@pytest.fixture(scope="module")
def chats(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_chats(tmp_path_factory.mktemp("data") / "chats.jsonl", 64)


def _last_checkpoint(run) -> Path:
    return list_checkpoints(run.checkpoints)[-1]


def _reference_losses(spec, steps: int) -> list[float]:
    """transformers' own forward on one document at a time, whole logits, torch's plain AdamW and clipping."""
    setup = build_setup(spec)  # the same weights: loading and adapter initialisation are seeded
    setup.forward.use_plain_attention()
    model = setup.model.train()
    parameters = list(setup.parameters.values())
    optimizer = torch.optim.AdamW(
        parameters, lr=spec.optimizer.learning_rate, weight_decay=0, fused=False, foreach=False
    )
    found = []
    for step in range(steps):
        examples = [example for batch in setup.plan.micro_batches(step) for example in batch]
        targets = sum(int(example.trained.sum()) for example in examples)
        total = 0.0
        for example in examples:
            ids = torch.from_numpy(example.input_ids).long()
            labels = torch.where(torch.from_numpy(example.trained), ids, -100)
            logits = model(input_ids=ids[None]).logits[0]
            loss = F.cross_entropy(logits[:-1], labels[1:], reduction="sum") / targets
            loss.backward()
            total += float(loss)
        torch.nn.utils.clip_grad_norm_(parameters, spec.optimizer.max_gradient_norm)
        for group in optimizer.param_groups:
            group["lr"] = spec.optimizer.learning_rate * rate_share(step, setup.total_steps, spec.schedule)
        optimizer.step()
        optimizer.zero_grad()
        found.append(total)
    return found


OTHERS = [(method, family) for method in ("full", "lora") for family in ("qwen3", "gemma3")]
OTHERS += [("partial", "llama"), ("partial", "gemma3")]


@pytest.mark.parametrize(
    ("method", "family", "steps"),
    [
        ("full", "llama", 20),
        ("lora", "llama", 20),
        *((method, family, 8) for method, family in OTHERS),
        *(pytest.param(method, family, 20, marks=pytest.mark.slow) for method, family in OTHERS),
    ],
)
def test_losses_match_a_plain_reference_step_by_step(tmp_path: Path, chats: Path, method: str, family: str, steps: int):
    model = tiny.make_model(tmp_path / "model", family)
    spec = make_spec(
        model,
        chats,
        method={"kind": method, "trained_layers": 1},
        train={"max_steps": steps, "micro_batch": 2, "gradient_accumulation": 2, "loss_chunk": 16},
    )
    _, events = train(spec)
    ours, reference = losses(events), _reference_losses(spec, steps)
    assert len(ours) == steps
    assert ours == pytest.approx(reference, abs=1e-4)
    # A comparison of two losses that never move would prove little.
    assert abs(reference[-1] - reference[0]) > 0.05


def test_packed_and_unpacked_rows_take_the_same_step(llama: Path, chats: Path):
    results = []
    for packing in (True, False):
        # One step over everything, so that both see the same rows.
        spec = make_spec(llama, chats, data={"packing": packing}, train={"max_steps": 1, "gradient_accumulation": 64})
        run, events = train(spec)
        results.append((losses(events), load_file(_last_checkpoint(run) / "trainable.safetensors")))
    (packed_loss, packed), (plain_loss, plain) = results
    assert packed_loss == pytest.approx(plain_loss, abs=1e-5)
    for name, tensor in packed.items():
        torch.testing.assert_close(tensor, plain[name], atol=2e-5, rtol=1e-3)


def test_accumulation_of_4_by_1_equals_1_by_4(llama: Path, chats: Path):
    results = []
    for micro_batch, accumulation in ((1, 4), (4, 1)):
        spec = make_spec(
            llama,
            chats,
            train={"max_steps": 8, "micro_batch": micro_batch, "gradient_accumulation": accumulation},
        )
        results.append(losses(train(spec)[1]))
    assert results[0] == pytest.approx(results[1], abs=1e-5)


@pytest.mark.parametrize("checkpointing", [1, 2])
@pytest.mark.parametrize("method", ["full", "lora"])
def test_gradient_checkpointing_changes_nothing_but_memory(llama: Path, chats: Path, method: str, checkpointing: int):
    plain, recomputed = (
        losses(
            train(
                make_spec(
                    llama,
                    chats,
                    method={"kind": method},
                    train={"max_steps": 4, "gradient_checkpointing": every},
                )
            )[1]
        )
        for every in (0, checkpointing)
    )
    assert recomputed == pytest.approx(plain, abs=1e-6)


@pytest.mark.parametrize(
    ("method", "optimizer"),
    [
        *(("lora", "adamw"), ("full", "adamw"), ("qlora", "adamw"), ("partial", "adamw")),
        *(("lora", "adamw_8bit"), ("lora", "adafactor"), ("full", "adafactor")),
    ],
)
def test_a_resumed_run_is_bit_identical(llama: Path, chats: Path, method: str, optimizer: str):
    spec = make_spec(
        llama,
        chats,
        method={"kind": method, "dropout": 0.1 if method == "lora" else 0.0, "trained_layers": 1},
        optimizer={"kind": optimizer},
        train={"max_steps": 9, "gradient_accumulation": 2},
    )
    whole, whole_events = train(spec)
    parted, first = train(spec, stop_after=4)
    _, second = train(spec, parted)
    assert losses(first) + losses(second) == losses(whole_events)
    assert len(losses(first)) == 4
    for name in ("trainable", "optimizer", "random"):
        one, other = (load_file(_last_checkpoint(run) / f"{name}.safetensors") for run in (whole, parted))
        assert one.keys() == other.keys()
        assert all(torch.equal(one[key], other[key]) for key in one), name


def test_the_same_seed_gives_the_same_run_and_another_seed_another(llama: Path, chats: Path):
    first, again, other = (
        losses(train(make_spec(llama, chats, train={"max_steps": 3, "seed": seed}))[1]) for seed in (1, 1, 2)
    )
    assert first == again
    assert first != other


@pytest.mark.parametrize(
    ("method", "family"),
    [("lora", "llama"), ("full", "llama"), ("partial", "llama"), ("qlora", "llama"), ("qlora", "qwen2")],
)
def test_every_method_learns(tmp_path: Path, method: str, family: str):
    model = tiny.make_model(tmp_path / "model", family)
    chats = write_chats(tmp_path / "learn.jsonl", 40, longest=6)
    rate = 2e-2 if method.endswith("lora") else 3e-3
    spec = make_spec(
        model,
        chats,
        method={"kind": method, "rank": 16, "alpha": 16.0, "trained_layers": 2},
        optimizer={"learning_rate": rate},
        train={"max_steps": 40, "gradient_accumulation": 2},
    )
    found = losses(train(spec)[1])
    assert sum(found[-3:]) / 3 < 0.6 * sum(found[:3]) / 3


@pytest.mark.parametrize("family", ["llama", "qwen3", "gemma3", "mistral", "gpt2", "mixtral"])
def test_documents_in_one_row_do_not_see_each_other(tmp_path: Path, family: str):
    """Each document's loss in a shared row is its loss alone, beyond the sliding window's 64 tokens too."""
    model = tiny.make_model(tmp_path / "model", family, layers=3)
    chats = write_chats(tmp_path / "chats.jsonl", 12, longest=120)
    setup = build_setup(make_spec(model, chats, data={"sequence_length": 512}))
    assert not setup.forward.padded, setup.forward.reason
    setup.model.eval()
    examples = sorted(setup.dataset.train, key=lambda example: len(example.input_ids))[-4:]
    assert max(len(example.input_ids) for example in examples) > 64
    together = float(setup.forward.summed_loss(setup.forward.collate(examples)))
    alone = sum(setup.forward.plain_loss(example) for example in examples)
    assert together == pytest.approx(alone, rel=1e-5)


def test_what_is_asked_while_measuring_is_done_at_the_next_step(llama: Path, chats: Path, tmp_path: Path):
    held_out = write_chats(tmp_path / "held-out.jsonl", 4, seed=5)
    spec = make_spec(llama, chats, held_out, train={"max_steps": 3})
    channel = MemoryChannel()
    channel.waiting = ["save"]  # read while the base is measured, before the first step
    run = create_run(spec)
    Recipe(build_setup(spec), run, channel).train()
    saved = [event["step"] for event in channel.events if event["kind"] == "checkpoint"]
    assert len(saved) == 2
    assert saved[-1] == 3
