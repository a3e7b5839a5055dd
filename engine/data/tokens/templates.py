"""Which chat template a conversation is written with: the model's own, one of those known here, or a person's file."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

from profiles.bounded_files import read_bytes
from profiles.problem import Problem, printable

if TYPE_CHECKING:
    from engine.data.tokens.text_tokenizer import Description

_LIMIT_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class KnownTemplate:
    name: str
    about: str
    """For people: who uses it, how it looks."""
    marks: tuple[str, ...]
    """Special tokens that it is written with; as plain text they cost more tokens and are easier to confuse."""

    @property
    def text(self) -> str:
        return _text(self.name)


# In the order in which they are looked for in a vocabulary.
KNOWN_TEMPLATES = {
    each.name: each
    for each in (
        KnownTemplate("chatml", "Qwen, Yi, Hermes and many others: <|im_start|>user", ("<|im_start|>", "<|im_end|>")),
        KnownTemplate(
            "llama3",
            "Llama 3 and later: <|start_header_id|>user<|end_header_id|>",
            ("<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"),
        ),
        KnownTemplate("gemma", "Gemma: <start_of_turn>user", ("<start_of_turn>", "<end_of_turn>")),
        KnownTemplate("phi3", "Phi-3 and 3.5: <|user|> ... <|end|>", ("<|user|>", "<|assistant|>", "<|end|>")),
        KnownTemplate("zephyr", "Zephyr, TinyLlama: <|user|> ... </s>", ("<|user|>", "<|assistant|>")),
        KnownTemplate("mistral", "Mistral, Mixtral: [INST] ... [/INST]", ("[INST]", "[/INST]")),
        KnownTemplate("alpaca", "Alpaca: ### Instruction: ... ### Response: ...", ()),
        KnownTemplate("plain", "for base models: User: ... Assistant: ... and the end-of-text token", ()),
    )
}


@dataclass(frozen=True, slots=True)
class TemplateChoice:
    name: str
    """"model", a known one's name, or the path of a file."""
    template: str | None
    """None for the model's own."""
    notes: tuple[str, ...] = ()


def choose_template(choice: str, description: Description, where: str) -> TemplateChoice:
    """The template that `choice` means: "model", a name of KNOWN_TEMPLATES, or a path to a .jinja file.

    `where` names the model. Raises Problem when it is none of them, or when the file cannot be read.
    """
    if choice == "model":
        return TemplateChoice("model", None)
    if (known := KNOWN_TEMPLATES.get(choice)) is not None:
        tokens = set(description.special.values())
        absent = [mark for mark in known.marks if mark not in tokens]
        spelt = f"the chat template {choice} writes {', '.join(absent)}, which {where} has no special tokens for"
        return TemplateChoice(choice, known.text, (f"{spelt}: learnt as plain text",) if absent else ())
    if not choice.endswith(".jinja"):
        raise Problem(
            "data.chat_template",
            f'"{printable(choice)}" is no chat template that finetui knows',
            f"Use model, {', '.join(KNOWN_TEMPLATES)}, or a path to a .jinja file.",
        )
    return TemplateChoice(choice, _read(Path(choice).expanduser()))


def suggest_template(tokens: Collection[str]) -> tuple[str, str]:
    """(name, reason) of the known template for a model that has none, by the special tokens it has."""
    for known in KNOWN_TEMPLATES.values():
        if known.marks and all(mark in tokens for mark in known.marks):
            return known.name, f"the model has its special tokens {' and '.join(known.marks[:2])}"
    return "plain", "the model has no special tokens for turns, so they are written in words"


@cache
def _text(name: str) -> str:
    return (files("engine.data.tokens.known") / f"{name}.jinja").read_text(encoding="utf-8")


def _read(path: Path) -> str:
    try:
        data = read_bytes(path, _LIMIT_BYTES + 1)
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise Problem(str(path), f"byte {error.start} is not UTF-8", "Save the template as UTF-8.") from None
    if len(data) > _LIMIT_BYTES:
        raise Problem(str(path), "is larger than 1 MiB, so it is no chat template", "Check data.chat_template.")
    return text
