"""TRL's SFTTrainer, packed: `run_trl.py ASSETS full|lora`, in an environment that has trl."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")

import torch
from datasets import load_dataset
from result import Clock, emit
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import SFTConfig, SFTTrainer


def main(assets: Path, method: str, output: str) -> None:
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    model = AutoModelForCausalLM.from_pretrained(assets / "model", dtype=torch.float32)
    adapter = None
    if method == "lora":
        from peft import LoraConfig

        adapter = LoraConfig(r=16, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM")
    config = SFTConfig(
        output_dir=output,
        max_length=512,
        packing=True,
        per_device_train_batch_size=2,
        num_train_epochs=1,
        learning_rate=1e-4,
        logging_steps=1,
        save_strategy="no",
        report_to=[],
        use_cpu=True,
        bf16=False,
        fp16=False,
        gradient_checkpointing=False,
        seed=0,
        optim="adamw_torch",
        disable_tqdm=True,
    )
    trainer = SFTTrainer(
        model=model,
        args=config,
        train_dataset=load_dataset(
            "json", data_files=str(assets / "train.jsonl"), split="train", cache_dir=f"{output}/cache"
        ),
        processing_class=AutoTokenizer.from_pretrained(assets / "model"),
        peft_config=adapter,
    )
    tokens = count_tokens(trainer.model)
    clock = Clock()
    trainer.train()
    times = clock.read()
    log = [entry for entry in trainer.state.log_history if "grad_norm" in entry]
    emit("TRL", tokens[0], times, [entry["grad_norm"] for entry in log], [entry["loss"] for entry in log])


def count_tokens(model: Any) -> list[int]:
    """Counts, in the list's one item, the tokens that training forwards get; packed rows are hardly padded."""
    count, forward = [0], model.forward

    def counted(*args: Any, **kwargs: Any) -> Any:
        ids, mask = kwargs["input_ids"], kwargs.get("attention_mask")
        count[0] += int(mask.sum()) if mask is not None and mask.dim() == 2 else ids.numel()
        return forward(*args, **kwargs)

    model.forward = counted
    return count


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        main(Path(sys.argv[1]), sys.argv[2], folder)
