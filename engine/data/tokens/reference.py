"""The tokenizer of a model's folder as transformers reads it, and what of it text needs. Imports transformers; the rest
of this package asks it through a child process.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer

from engine.data.tokens.loading import require_tokenizer
from engine.data.tokens.text_tokenizer import Description
from profiles.problem import Problem, printable

_REASON_CHARACTERS = 200


def read_tokenizer(path: Path) -> Any:
    """The tokenizer in a model's folder. Raises Problem when there is none or it cannot be read."""
    require_tokenizer(path)
    try:
        tokenizer = AutoTokenizer.from_pretrained(path, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # tokenizers raises a bare Exception for a file that does not parse
        text = str(error).strip() or type(error).__name__
        reason = printable(text.splitlines()[0], _REASON_CHARACTERS)
        raise Problem(f"{path}, tokenizer", reason, "Copy the tokenizer's files again.") from error
    if tokenizer.pad_token_id is None:
        # Padding never carries loss and is masked from attention, so any token serves.
        tokenizer.pad_token = tokenizer.eos_token or tokenizer.convert_ids_to_tokens(0)
    return tokenizer


def describe(tokenizer: Any) -> Description:
    """What text needs of a transformers tokenizer. Raises Problem when it has no fast implementation."""
    if not tokenizer.is_fast:
        raise Problem(
            f"{tokenizer.name_or_path}", "has no tokenizer.json", "Use a model folder that has a tokenizer.json."
        )
    special = {token: added.content for token, added in tokenizer.added_tokens_decoder.items() if added.special}
    named = zip(tokenizer.all_special_ids, tokenizer.all_special_tokens, strict=True)
    special |= {token: text for token, text in named if text}
    templates = tokenizer.chat_template
    if not isinstance(templates, dict):
        templates = {"default": templates}
    return Description(
        backend=tokenizer.backend_tokenizer.to_str(),
        named=tokenizer.special_tokens_map,
        special=dict(sorted(special.items())),
        eos_id=tokenizer.eos_token_id,
        bos_id=tokenizer.bos_token_id,
        unk_id=tokenizer.unk_token_id,
        vocabulary=len(tokenizer),
        chat_template=templates.get("default"),
        tool_template=templates.get("tool_use"),
    )


def describe_folder(path: Path) -> dict[str, Any]:
    """`describe` of the tokenizer in a model's folder, as JSON takes it. Raises Problem."""
    return dataclasses.asdict(describe(read_tokenizer(path)))
