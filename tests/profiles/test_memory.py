"""The memory formulas against what torch really allocates in a training step, and how they move with the settings."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from model_folder import LLAMA, make_model

from engine.offline import set_offline

set_offline()

import torch  # noqa: E402
from torch.utils._python_dispatch import TorchDispatchMode  # noqa: E402
from torch.utils._pytree import tree_map_only  # noqa: E402
from transformers import AutoModelForCausalLM, LlamaConfig, Qwen3Config  # noqa: E402

from engine.methods.loading import load_base  # noqa: E402
from engine.methods.trainable import checkpoint_layers, make_trainable, trainable_parameters  # noqa: E402
from engine.objectives.next_token import chunked_loss  # noqa: E402
from engine.spec import MethodSection, OptimizerSection  # noqa: E402
from engine.train.document_attention import DOCUMENT_ATTENTION, register  # noqa: E402
from engine.train.optimizer import gradient_norm, make_optimizer  # noqa: E402
from profiles.geometry import read_geometry  # noqa: E402
from profiles.memory import COMPONENTS, estimate  # noqa: E402
from profiles.settings import Settings  # noqa: E402

SHAPE: dict[str, Any] = {
    "vocab_size": 3000,
    "hidden_size": 128,
    "intermediate_size": 352,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 2048,
}
BASE = Settings(method="lora", device="cpu", compute_dtype="fp32", attention="sdpa", sequence_length=512)


class AllocatedBytes(TorchDispatchMode):
    """Counts the bytes of all living storages; `peak` is the most there were."""

    def __init__(self) -> None:
        super().__init__()
        self.living: dict[int, int] = {}
        self.now = self.peak = 0

    def count(self, tensor: torch.Tensor) -> None:
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key not in self.living:
            self.living[key] = storage.nbytes()
            self.now += storage.nbytes()
            self.peak = max(self.peak, self.now)
            weakref.finalize(storage, self._free, key)

    def _free(self, key: int) -> None:
        self.now -= self.living.pop(key)

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        tree_map_only(torch.Tensor, self.count, result)
        return result


@pytest.fixture(autouse=True)
def two_threads() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(threads)


def allocated_by_training(folder: Path, settings: Settings) -> int:
    """Most bytes of tensors in three optimizer steps as the engine takes them, four documents in a row."""
    dtypes = {"fp32": torch.float32, "bf16": torch.bfloat16}
    model = load_base(folder, dtype=dtypes[settings.weight_dtype], device="cpu", quantise=settings.method == "qlora")
    method = MethodSection(kind=settings.method, rank=settings.rank, targets=settings.targets, dropout=settings.dropout)
    model = make_trainable(model, method)
    checkpoint_layers(model, settings.gradient_checkpointing)
    base = model.get_base_model() if settings.method != "full" else model
    register()
    base.config._attn_implementation = DOCUMENT_ATTENTION
    parameters = trainable_parameters(model)
    optimizer = make_optimizer(parameters, OptimizerSection(kind=settings.optimizer))
    head = base.get_output_embeddings()
    learning_head = [parameter for parameter in head.parameters() if parameter.requires_grad]
    lengths = (settings.tokens // 4,) * 4
    ids = torch.arange(settings.tokens)[None] % base.config.vocab_size
    positions = torch.cat([torch.arange(length) for length in lengths])[None]
    model.train()
    allocated = AllocatedBytes()
    with allocated:
        for tensor in (*model.parameters(), *model.buffers()):
            allocated.count(tensor.data)
        for _ in range(3):
            for _ in range(settings.gradient_accumulation):
                with torch.autocast("cpu", torch.bfloat16, enabled=settings.autocast):
                    states = base.model(
                        input_ids=ids, position_ids=positions, use_cache=False, document_lengths=lengths
                    ).last_hidden_state.flatten(0, -2)
                    loss = chunked_loss(
                        states.index_select(0, torch.arange(settings.tokens - 1)),
                        ids[0, 1:],
                        head,
                        learning_head,
                        chunk=settings.loss_chunk,
                        scale=1 / settings.tokens,
                    )
                    del states
                loss.backward()
            gradient_norm(parameters.values(), 1.0)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
    return allocated.peak


CASES: dict[str, tuple[type, bool, Settings]] = {
    "lora": (LlamaConfig, False, BASE),
    "lora, recomputing": (LlamaConfig, False, replace(BASE, gradient_checkpointing=1, sequence_length=1024)),
    "lora, every 2nd layer": (LlamaConfig, False, replace(BASE, gradient_checkpointing=2, sequence_length=1024)),
    "lora on two layers, small chunks": (
        LlamaConfig,
        True,
        replace(BASE, targets=("q_proj", "v_proj"), loss_chunk=64, rank=8),
    ),
    "lora with dropout": (LlamaConfig, False, replace(BASE, dropout=0.1, loss_chunk=128)),
    "lora in bf16": (Qwen3Config, True, replace(BASE, compute_dtype="bf16", loss_chunk=128)),
    "qlora": (LlamaConfig, False, replace(BASE, method="qlora")),
    "head norms": (Qwen3Config, True, replace(BASE, micro_batch=2, loss_chunk=256)),
    "full": (LlamaConfig, False, replace(BASE, method="full")),
    "full, tied, accumulating": (LlamaConfig, True, replace(BASE, method="full", gradient_accumulation=2)),
    "full, few tokens": (LlamaConfig, True, replace(BASE, method="full", sequence_length=32)),
    "full, 8-bit, recomputing": (
        LlamaConfig,
        False,
        replace(BASE, method="full", optimizer="adamw_8bit", gradient_checkpointing=1),
    ),
    "full in bf16": (LlamaConfig, False, replace(BASE, method="full", compute_dtype="bf16")),
}


@pytest.mark.parametrize("case", CASES)
def test_the_estimate_is_what_torch_allocates(tmp_path: Path, case: str) -> None:
    kind, tied, settings = CASES[case]
    torch.manual_seed(0)
    heads = {"head_dim": 64} if kind is Qwen3Config else {}
    AutoModelForCausalLM.from_config(kind(**SHAPE, **heads, tie_word_embeddings=tied)).save_pretrained(tmp_path)

    measured = allocated_by_training(tmp_path, settings)
    predicted = estimate(read_geometry(tmp_path), settings).allocated_bytes

    assert predicted == pytest.approx(measured, rel=0.06), f"{predicted / measured - 1:+.1%}"


def test_components_add_up_and_follow_the_settings(tmp_path: Path) -> None:
    geometry = read_geometry(make_model(tmp_path / "m", {"vocab_size": 5000}))

    def part(name: str, **changes: Any) -> int:
        found = estimate(geometry, replace(BASE, **changes))
        assert tuple(found.components) == COMPONENTS and min(found.components.values()) >= 0
        assert sum(found.components.values()) == found.peak_bytes
        return found.components[name]

    parameters = geometry.parameters
    assert part("weights", method="full") == 4 * parameters
    assert part("optimizer", method="full") == 8 * parameters
    assert part("weights", compute_dtype="bf16", device="cuda") == 2 * parameters
    assert part("weights", method="qlora") < part("weights")
    assert part("adapters", rank=32) == 2 * part("adapters", rank=16)
    assert part("adapters", method="full") == 0
    assert part("activations", sequence_length=1024) == 2 * part("activations", sequence_length=512)
    assert part("activations", attention="eager") > part("activations")
    assert part("loss", loss_chunk=64) < part("loss", loss_chunk=512)
    assert part("optimizer", method="full", optimizer="adamw_8bit") < part("optimizer", method="full") / 3


def test_a_model_the_formulas_were_not_made_for_says_so(tmp_path: Path) -> None:
    known = read_geometry(make_model(tmp_path / "known"))
    other = read_geometry(make_model(tmp_path / "other", {**LLAMA, "model_type": "phimoe", "num_experts": 4}))
    assert estimate(other, BASE).error_share > 2 * estimate(known, BASE).error_share
    assert any("phimoe" in reason for reason in estimate(other, BASE).reasons)
