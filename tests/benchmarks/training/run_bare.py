"""A bare loop over transformers and peft on packed rows, all at its default: `run_bare.py ASSETS full|lora`.

Documents are kept apart by restarting position ids, from which transformers' sdpa path builds its block-diagonal mask.
"""

from __future__ import annotations

import json
import os
import random
import sys
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
from result import Clock, emit
from torch.nn import functional as F
from transformers import AutoModelForCausalLM, AutoTokenizer

LONGEST_TOKENS, ROWS_PER_STEP, RATE = 512, 2, 1e-4


def main(assets: Path, method: str) -> None:
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    torch.manual_seed(0)
    tokenizer = AutoTokenizer.from_pretrained(assets / "model")
    model = AutoModelForCausalLM.from_pretrained(assets / "model", dtype=torch.float32)
    if method == "lora":
        from peft import LoraConfig, get_peft_model

        model = get_peft_model(model, LoraConfig(r=16, lora_alpha=32, target_modules="all-linear"))
    model.train()
    texts = [json.loads(line)["text"] for line in (assets / "train.jsonl").open(encoding="utf-8")]
    rows = pack([tokenizer(text)["input_ids"] + [tokenizer.eos_token_id] for text in texts])
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=RATE, weight_decay=0.0)
    norms, losses, tokens = [], [], 0
    clock = Clock()
    for start in range(0, len(rows), ROWS_PER_STEP):
        documents = [document for row in rows[start : start + ROWS_PER_STEP] for document in row]
        ids = torch.tensor([[token for document in documents for token in document]])
        positions = torch.tensor([[place for document in documents for place in range(len(document))]])
        labels = torch.where(positions == 0, -100, ids)
        logits = model(input_ids=ids, position_ids=positions, use_cache=False).logits
        loss = F.cross_entropy(logits[0, :-1], labels[0, 1:])
        loss.backward()
        norms.append(float(torch.nn.utils.clip_grad_norm_(parameters, 1.0)))
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        losses.append(loss.item())
        tokens += ids.numel()
    emit("bare loop", tokens, clock.read(), norms, losses)


def pack(documents: list[list[int]]) -> list[list[list[int]]]:
    """First-fit-decreasing rows of at most LONGEST_TOKENS tokens, shuffled."""
    rows: list[list[list[int]]] = []
    for document in sorted((document[:LONGEST_TOKENS] for document in documents), key=len, reverse=True):
        for row in rows:
            if sum(map(len, row)) + len(document) <= LONGEST_TOKENS:
                row.append(document)
                break
        else:
            rows.append([document])
    random.Random(0).shuffle(rows)
    return rows


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
