"""Small random models with real tokenizers, and finished runs, made on disk in a second for the tests.

Nothing here is a stand-in: the folders hold what `save_pretrained` writes, so whatever reads models reads
these.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

from engine.offline import set_offline
from engine.spec import RunSpec, parse_spec

Family = Literal["llama", "qwen2", "qwen3", "gemma3", "mistral", "gpt2", "mixtral"]
Template = Literal["chatml", "gemma"]
Method = Literal["lora", "full", "partial", "qlora"]

TURN_START, TURN_END, DOCUMENT_END, PAD = "<|im_start|>", "<|im_end|>", "<|endoftext|>", "<|pad|>"
TEMPLATES: dict[str, str] = {
    "chatml": (
        "{% for message in messages %}"
        "{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' }}"
        "{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
    ),
    # Like gemma's: refuses a system message, and calls the assistant "model".
    "gemma": (
        "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system role') }}{% endif %}"
        "{% for message in messages %}"
        "{{ '<|im_start|>' + ('model' if message['role'] == 'assistant' else message['role']) + '\\n'"
        " + message['content'] | trim + '<|im_end|>\\n' }}"
        "{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|im_start|>model\\n' }}{% endif %}"
    ),
}
CONTEXT_TOKENS = 1024
TEXT = (
    "The patient came in on Monday with a headache and a mild fever. Please answer with one JSON record.",
    "user assistant system name date reason urgent low high the a of and to in is was for on with",
    "What is the capital? It is a city of rain, bread and long streets; nobody there owns an umbrella.",
    "0 1 2 3 4 5 6 7 8 9 10 100 2024-01-02 14:30",
)


def make_tokenizer(path: Path, template: Template | None = "chatml") -> Path:
    """A byte-level BPE tokenizer of about 370 tokens in `path`; without a chat template for None."""
    set_offline()
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=[TURN_START, TURN_END, DOCUMENT_END, PAD],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(TEXT, trainer)
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=DOCUMENT_END,
        pad_token=PAD,
        additional_special_tokens=[TURN_START, TURN_END],
        model_max_length=CONTEXT_TOKENS,
        clean_up_tokenization_spaces=False,
        **({"chat_template": TEMPLATES[template]} if template else {}),
    ).save_pretrained(path)
    return path


def make_model(
    path: Path,
    family: Family = "llama",
    hidden: int = 64,
    layers: int = 2,
    vocab: int | None = None,
    *,
    tied: bool = True,
    dtype: str = "float32",
    template: Template | None = "chatml",
    context: int = CONTEXT_TOKENS,
    seed: int = 0,
) -> Path:
    """A random model of `family` with its tokenizer in `path`; the vocabulary is the tokenizer's unless
    given.

    The weights are drawn ten times wider than usual, so that greedy answers wander instead of repeating a
    token.
    """
    set_offline()
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(make_tokenizer(path, template))
    torch.manual_seed(seed)
    config = _config(family, hidden, layers, context)
    config.vocab_size = vocab or len(tokenizer)
    config.tie_word_embeddings = tied
    config.initializer_range = 0.2
    config.bos_token_id = None
    config.eos_token_id = tokenizer.eos_token_id
    config.pad_token_id = tokenizer.pad_token_id
    AutoModelForCausalLM.from_config(config, dtype=getattr(torch, dtype)).save_pretrained(path)
    return path


def make_reciter(path: Path, text: str, template: Template | None = "chatml") -> Path:
    """A model that answers every prompt ending in a line break with `text` and then ends its turn.

    The layers add nothing, and the head maps each token to the one after it, so the tokens of `text` must be
    distinct.
    """
    make_model(path, tied=False, template=template)
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(path)
    ending = TURN_END if template else DOCUMENT_END
    ids = tokenizer("\n" + text + ending, add_special_tokens=False)["input_ids"]
    assert len(set(ids)) == len(ids), f"{text!r} repeats a token, so what follows it is not decided"
    model = AutoModelForCausalLM.from_pretrained(path)
    with torch.no_grad():
        for layer in model.model.layers:
            layer.self_attn.o_proj.weight.zero_()
            layer.mlp.down_proj.weight.zero_()
        embedding, head = model.model.embed_tokens.weight, model.lm_head.weight
        embedding.copy_(torch.nn.functional.normalize(torch.randn_like(embedding), dim=1))
        head.zero_()
        for before, after in pairwise(ids):
            head[after] = embedding[before]
    model.save_pretrained(path)
    return path


def make_run(
    home: Path,
    method: Method = "lora",
    *,
    model: Path | None = None,
    tuned: Path | None = None,
    targets: list[str] | None = None,
    name: str = "tiny",
) -> Any:
    """A finished run (RunDirectory) under `home`, as a person would find it: spec, journal, and what was
    learned.

    `model` is the base (a tiny llama is made unless given). For "full" and "partial", `tuned` is a model folder to
    take as the result; otherwise the base's own weights are perturbed. Adapters are PEFT's, with random matrices, so
    the tuned model never equals the base. The caller sets FINETUI_HOME to `home` where the code under test
    looks there.
    """
    set_offline()
    home.mkdir(parents=True, exist_ok=True)
    model = model or make_model(home / "base")
    data = home / "train.jsonl"
    data.write_text('{"prompt": "Where does it hurt?", "completion": "The head."}\n' * 8)
    table: dict[str, Any] = {"name": name, "model": {"path": str(model)}, "data": {"train": [str(data)]}}
    table["method"] = {"kind": method, "rank": 4, "alpha": 8.0, **({"targets": targets} if targets else {})}
    spec = parse_spec(table, "make_run")
    run = _create(home, spec)
    write_model, output = (_write_adapter, "adapter") if spec.method.adapts else (_write_full, "model")
    write_model(spec, run.outputs / output, tuned)
    _finish_journal(run, output)
    return run


def _config(family: Family, hidden: int, layers: int, context: int) -> Any:
    import transformers

    if family == "gpt2":
        return transformers.GPT2Config(n_embd=hidden, n_layer=layers, n_head=4, n_positions=context)
    shape: dict[str, Any] = {
        "hidden_size": hidden,
        "intermediate_size": 2 * hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": hidden // 4,
        "max_position_embeddings": context,
    }
    families: dict[Family, Callable[[], Any]] = {
        "llama": lambda: transformers.LlamaConfig(**shape),
        "qwen2": lambda: transformers.Qwen2Config(**shape),  # q, k and v have biases
        "qwen3": lambda: transformers.Qwen3Config(**shape),
        "mistral": lambda: transformers.MistralConfig(**shape, sliding_window=64),
        "mixtral": lambda: transformers.MixtralConfig(**shape, num_local_experts=4, num_experts_per_tok=2),
        "gemma3": lambda: transformers.Gemma3TextConfig(
            **shape, sliding_window=64, layer_types=["sliding_attention"] * (layers - 1) + ["full_attention"]
        ),
    }
    return families[family]()


def _create(home: Path, spec: RunSpec) -> Any:
    import os
    from unittest import mock

    from engine.run.creating import create_run

    with mock.patch.dict(os.environ, {"FINETUI_HOME": str(home)}):
        return create_run(spec)


def _write_adapter(spec: RunSpec, path: Path, tuned: Path | None) -> None:
    assert tuned is None, "an adapter is made from random matrices"
    import torch

    from engine.methods.loading import load_base, load_tokenizer
    from engine.methods.trainable import make_trainable

    quantise = spec.method.kind == "qlora"
    base = load_base(spec.model.path, dtype=torch.float32, device="cpu", quantise=quantise)
    torch.manual_seed(1)
    adapted = make_trainable(base, spec.method)
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "lora_B" in name or "lora_embedding_A" in name:  # the halves that begin as zero
                parameter.normal_(std=0.2)
    adapted.save_pretrained(path)
    load_tokenizer(spec.model.path).save_pretrained(path)


def _write_full(spec: RunSpec, path: Path, tuned: Path | None) -> None:
    import torch

    from engine.methods.loading import load_base, load_tokenizer

    model = load_base(tuned or spec.model.path, dtype=torch.float32, device="cpu")
    if tuned is None:
        torch.manual_seed(1)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(torch.randn_like(parameter) * 0.05)
    model.save_pretrained(path)
    load_tokenizer(spec.model.path).save_pretrained(path)


def _finish_journal(run: Any, output: str) -> None:
    from engine.run.telemetry.journal import JournalWriter

    journal = JournalWriter(run.events_path)
    journal.append("attempt", number=1, resumed_from=None, worker_pid=1)
    journal.append("plan", planned_steps=2, rows_per_step=1, train_rows=7, held_out_rows=1, target_tokens=21)
    journal.append("evaluation", when="before", step=0, held_out_loss=6.1, exact_match=0.0, answers=1)
    for step in (1, 2):
        journal.append(
            "step", step=step, epoch=step / 2, loss=6.0 - step, learning_rate=1e-4, gradient_norm=1.0,
            target_tokens=8, tokens=32, seconds=0.1, memory_bytes=1 << 28,
        )  # fmt: skip
    journal.append("evaluation", when="after", step=2, held_out_loss=4.2, exact_match=1.0, answers=1)
    journal.append("output", name=output, path=f"outputs/{output}")
    journal.append("end", outcome="finished", why="", step=2)
    journal.close()
