"""Pretrains the bundled base model on the generated text: `python -m engine.demo.pretrain`.

Everything starts from one seed: the text, the tokenizer learned from it, the first weights and the order of
training. It takes about half an hour on three CPU cores that know bfloat16.
"""

import argparse
import json
import math
import os
import platform
import shutil
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
# Threads that spin while they wait take the cores from each other when the machine is shared: a step on four
# busy cores took 7.7 s instead of 0.5 s.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import tokenizers
import torch
import torch.distributed as dist
import transformers
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import multiprocessing
from torch.nn.functional import cross_entropy
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from . import MODEL_DIRECTORY
from .corpus import TURN_END, TURN_START, copying, documents

LONGEST = 1_024
DOCUMENT_END = "<|endoftext|>"
PAD = "<|pad|>"
ANSWER_START = f"{TURN_START}assistant\n"
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
# A space joins only a word in small letters. Before a capital or a digit it stands alone, so that a name or a
# number is the same tokens after a space, a quote or a line's start, and copying it is copying tokens.
WORD_PATTERN = r" ?\p{Ll}+|\p{Lu}\p{Ll}*|\p{N}|[\p{L}\p{M}]+|[^\s\p{L}\p{M}\p{N}]+|\s"


@dataclass(frozen=True)
class Stage:
    """A stretch of the training: how many steps, on which text, in rows of how many tokens."""

    steps: int
    text: str
    row: int


@dataclass(frozen=True)
class Plan:
    """What decides the outcome, and is written into the record beside the model."""

    seed: int = 20
    vocabulary: int = 2_048
    tokenizer_documents: int = 40_000
    # Plain copying in short rows teaches looking back; long rows come last, so that far positions are seen.
    stages: tuple[Stage, ...] = (
        Stage(400, "copying", 64),
        Stage(1_400, "documents", 256),
        Stage(200, "documents", 1_024),
    )
    tokens_per_step: int = 6_144
    warmup: int = 50
    muon_rate: float = 4e-3
    adam_rate: float = 3e-3
    prompt_weight: float = 0.1

    @property
    def steps(self) -> int:
        """The steps of all stages."""
        return sum(stage.steps for stage in self.stages)


def train_tokenizer(plan: Plan) -> PreTrainedTokenizerFast:
    """A byte-level BPE: any string can be written in it, and digits stay single."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(WORD_PATTERN), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    marks = [TURN_START, TURN_END, DOCUMENT_END, PAD]
    trainer = trainers.BpeTrainer(
        vocab_size=plan.vocabulary,
        special_tokens=marks,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(islice(documents(plan.seed), plan.tokenizer_documents), trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=TURN_END,
        pad_token=PAD,
        additional_special_tokens=[TURN_START, DOCUMENT_END],
        model_max_length=LONGEST,
        clean_up_tokenization_spaces=False,
        chat_template=CHAT_TEMPLATE,
    )


def new_model(plan: Plan, tokenizer: PreTrainedTokenizerFast) -> LlamaForCausalLM:
    """A small Llama with grouped-query attention and tied embeddings, with random weights."""
    torch.manual_seed(plan.seed)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=plan.vocabulary,
            hidden_size=192,
            intermediate_size=512,
            num_hidden_layers=4,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=LONGEST,
            tie_word_embeddings=True,
            initializer_range=0.06,
            bos_token_id=None,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )


class Reader:
    """Turns documents into rows of tokens, and marks those of plain text and of an assistant's answers."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast, stream: Iterator[str]) -> None:
        self._tokenizer = tokenizer
        self._documents = stream
        self._document_end = tokenizer.convert_tokens_to_ids(DOCUMENT_END)
        self._answer_start = tokenizer.encode(ANSWER_START)
        self._tokens: list[int] = []
        self._answers: list[bool] = []

    def rows(self, count: int, length: int) -> tuple[torch.Tensor, torch.Tensor]:
        """The next tokens as `count` rows, and the same shape of marks."""
        needed = count * length
        while len(self._tokens) < needed:
            for tokens in self._tokenizer(list(islice(self._documents, 64)))["input_ids"]:
                self._answers += [*self._marks(tokens), False]
                self._tokens += [*tokens, self._document_end]
        tokens, self._tokens = self._tokens[:needed], self._tokens[needed:]
        answers, self._answers = self._answers[:needed], self._answers[needed:]
        return torch.tensor(tokens).view(count, length), torch.tensor(answers).view(count, length)

    def _marks(self, tokens: list[int]) -> list[bool]:
        if tokens[0] != self._answer_start[0]:
            return [True] * len(tokens)
        marks, inside, opening = [], False, self._answer_start
        for position, token in enumerate(tokens):
            marks.append(inside)
            if token == self._tokenizer.eos_token_id:
                inside = False
            elif tokens[max(0, position + 1 - len(opening)) : position + 1] == opening:
                inside = True
        return marks


def batches(plan: Plan, tokenizer: PreTrainedTokenizerFast) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """The rows of every step, stage by stage."""
    readers = {
        "copying": Reader(tokenizer, copying(plan.seed)),
        "documents": Reader(tokenizer, documents(plan.seed)),
    }
    for stage in plan.stages:
        for _ in range(stage.steps):
            yield readers[stage.text].rows(plan.tokens_per_step // stage.row, stage.row)


def rate(plan: Plan, step: int) -> float:
    """Linear warmup, then a cosine down to nothing, as a share of the highest rate."""
    if step < plan.warmup:
        return (step + 1) / plan.warmup
    return 0.5 * (1 + math.cos(math.pi * (step - plan.warmup) / (plan.steps - plan.warmup)))


def token_losses(model: LlamaForCausalLM, tokens: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The loss of each token but the first of its row, and whether the likeliest token was right."""
    logits = model(input_ids=tokens).logits[:, :-1].float().flatten(0, 1)
    targets = tokens[:, 1:].flatten()
    return cross_entropy(logits, targets, reduction="none"), logits.argmax(-1) == targets


@torch.no_grad()
def measure(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, plan: Plan) -> dict[str, float]:
    """Loss on documents from another seed, and how much of the assistant's answers is predicted right."""
    tokens, answers = Reader(tokenizer, documents(plan.seed + 1)).rows(64, 256)
    losses, right = token_losses(model.eval(), tokens)
    model.train()
    marks = answers[:, 1:].flatten()
    return {
        "loss": round(losses.mean().item(), 4),
        "answer_loss": round(losses[marks].mean().item(), 4),
        "answer_tokens_right": round(right[marks].float().mean().item(), 4),
    }


def optimizers(model: LlamaForCausalLM, plan: Plan) -> list[torch.optim.Optimizer]:
    """Muon for the matrices, which learns in about half the steps here; AdamW for embeddings and norms."""
    embeddings = model.get_input_embeddings().weight
    matrices = [p for p in model.parameters() if p.ndim == 2 and p is not embeddings]
    others = [embeddings, *(p for p in model.parameters() if p.ndim != 2)]
    return [
        torch.optim.Muon(matrices, lr=plan.muon_rate, weight_decay=0.1, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(others, lr=plan.adam_rate, betas=(0.9, 0.95), weight_decay=0.0, fused=True),
    ]


def pretrain(rank: int, workers: int, meeting: Path, plan: Plan, folder: Path) -> None:
    """One worker of the loop: it takes its share of each step's rows, and all workers add up their gradients.

    What cannot be foreseen (a new name in a question) counts less than what can (the answer).
    """
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=workers)
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
    model = new_model(plan, tokenizer)
    parts = optimizers(model, plan)
    schedules = [torch.optim.lr_scheduler.LambdaLR(part, lambda step: rate(plan, step)) for part in parts]
    began = time.monotonic()
    for step, (tokens, answers) in enumerate(batches(plan, tokenizer), 1):
        weights = torch.where(answers[:, 1:], 1.0, plan.prompt_weight)
        with torch.autocast("cpu", torch.bfloat16):
            losses, _ = token_losses(model, tokens[rank::workers])
        loss = (losses * weights[rank::workers].flatten()).sum() / weights.sum()
        loss.backward()
        gradients = [p.grad for p in model.parameters()]
        flat = torch.cat([gradient.flatten() for gradient in gradients])
        dist.all_reduce(flat)
        for gradient, total in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
            gradient.copy_(total.view_as(gradient))
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for part, schedule in zip(parts, schedules, strict=True):
            part.step()
            schedule.step()
        model.zero_grad()
        if rank == 0 and (step % 100 == 0 or step == plan.steps):
            figures = measure(model, tokenizer, plan)
            print(f"step {step} of {plan.steps}, {time.monotonic() - began:.0f} s: {figures}", flush=True)
    if rank == 0:
        save(model, tokenizer, record(model, plan, figures, workers, time.monotonic() - began), folder)
    dist.destroy_process_group()


def record(
    model: LlamaForCausalLM, plan: Plan, figures: dict[str, float], workers: int, seconds: float
) -> dict[str, object]:
    """What is kept beside the model about how it was made."""
    return {
        "made": datetime.now(UTC).strftime("%Y-%m-%d"),
        "how": f"python -m engine.demo.pretrain --workers {workers}",
        "plan": asdict(plan),
        "parameters": sum(p.numel() for p in model.parameters()),
        "steps": plan.steps,
        "tokens": plan.steps * plan.tokens_per_step,
        "held_out": figures,
        "seconds": round(seconds),
        "arithmetic": "bfloat16 autocast on float32 weights, CPU; stored in bfloat16",
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "transformers": transformers.__version__,
            "tokenizers": tokenizers.__version__,
        },
    }


def save(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, about: dict[str, object], folder: Path) -> None:
    """Writes the model, its tokenizer and its record."""
    model.generation_config = GenerationConfig(
        eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id, do_sample=False
    )
    model.to(torch.bfloat16).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    (folder / "pretraining.json").write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")


def main() -> None:
    """Reads the command line, makes the model aside, and then puts it in place of the old one."""
    parser = argparse.ArgumentParser(description="Pretrains the bundled base model.")
    parser.add_argument("--to", type=Path, default=MODEL_DIRECTORY, help="where the model goes")
    parser.add_argument("--workers", type=int, default=3, help="processes of one CPU thread each")
    arguments = parser.parse_args()
    plan = Plan()
    aside = arguments.to.with_name(f"{arguments.to.name}.new")
    shutil.rmtree(aside, ignore_errors=True)
    train_tokenizer(plan).save_pretrained(aside)
    with tempfile.TemporaryDirectory() as scratch:
        meeting = Path(scratch) / "meeting"
        multiprocessing.spawn(pretrain, (arguments.workers, meeting, plan, aside), nprocs=arguments.workers)
    shutil.rmtree(arguments.to, ignore_errors=True)
    aside.rename(arguments.to)
    print(f"saved to {arguments.to}")


if __name__ == "__main__":
    main()
