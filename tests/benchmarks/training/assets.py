"""The shared work of the training benchmark: a random Llama with a tokenizer, and texts of skewed length (seed 0).

Run as a script: `python assets.py FOLDER`.
"""

from __future__ import annotations

import json
import os
import random
import sys
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")

SAMPLES = 128
LONGEST_TOKENS = 512
VOCABULARY = 8192


def make_assets(folder: Path) -> None:
    """Write model/, train.jsonl (text rows) and train_sft.json (LLaMA-Factory's rows) into `folder`."""
    import numpy as np
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    rng, numpy_rng = random.Random(0), np.random.default_rng(0)
    syllables = [consonant + vowel for consonant in "bcdfghjklmnprstvwz" for vowel in "aeiou"]
    words = sorted({"".join(rng.choice(syllables) for _ in range(rng.randint(1, 4))) for _ in range(9000)})[:6000]
    rng.shuffle(words)
    shares = 1 / np.arange(1, len(words) + 1) ** 1.05  # Zipf
    shares /= shares.sum()
    # log-normal: a median of about 70 words with a long tail, as chats have
    lengths = np.clip(numpy_rng.lognormal(np.log(60), 0.95, SAMPLES).astype(int), 8, 460)
    texts = [" ".join(words[i] for i in numpy_rng.choice(len(words), int(length), p=shares)) for length in lengths]

    bpe = Tokenizer(models.BPE(unk_token=None))
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        show_progress=False,
        special_tokens=["<pad>", "<s>", "</s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    bpe.train_from_iterator(texts, trainer)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=bpe, bos_token="<s>", eos_token="</s>", pad_token="<pad>", model_max_length=2048
    )
    tokenizer.chat_template = "{% for m in messages %}{{ m['content'] + eos_token }}{% endfor %}"
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=384,
        num_hidden_layers=6,
        num_attention_heads=6,
        num_key_value_heads=2,
        intermediate_size=1024,
        max_position_embeddings=2048,
        tie_word_embeddings=False,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=0,
    )
    torch.manual_seed(0)
    folder.mkdir(parents=True, exist_ok=True)
    LlamaForCausalLM(config).float().save_pretrained(folder / "model")
    tokenizer.save_pretrained(folder / "model")
    with (folder / "train.jsonl").open("w", encoding="utf-8") as file:
        file.writelines(json.dumps({"text": text}) + "\n" for text in texts)
    halves = [(text[: len(text) // 4], text[len(text) // 4 :]) for text in texts]
    rows = [{"instruction": first, "output": rest} for first, rest in halves]
    (folder / "train_sft.json").write_text(json.dumps(rows), encoding="utf-8")


if __name__ == "__main__":
    make_assets(Path(sys.argv[1]))
