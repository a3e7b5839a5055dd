"""Rows and tokens a second from conversations to token ids with answer spans, on one core, against the usual way:
`apply_chat_template` for each row and a batched call of the tokenizer, without masks. Seconds are
processor time, so that a busy machine tells nearly the same.

The tokenizers have 32,000 tokens made from a third of the Python files that the rows are made from, with the chat
templates of tests/chat_families.py: byte-level BPE, and SentencePiece-like BPE (mistral, gemma). Needs no network.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
import sysconfig
import time
from collections.abc import Callable
from pathlib import Path

os.environ["TOKENIZERS_PARALLELISM"] = "false"
sys.path[:0] = [str(Path(__file__).resolve().parents[1]), str(Path(__file__).resolve().parents[2])]

from engine.offline import set_offline  # noqa: E402

set_offline()
os.environ["TOKENIZERS_PARALLELISM"] = "false"

from chat_families import FAMILIES, tokenizer_of  # noqa: E402
from tokenizers import Regex, Tokenizer, normalizers, pre_tokenizers, trainers  # noqa: E402
from transformers import PreTrainedTokenizerFast  # noqa: E402

from engine.data.contents import Conversation, Message  # noqa: E402
from engine.data.tokens.encoded import Tokenised  # noqa: E402
from engine.data.tokens.reference import describe  # noqa: E402
from engine.data.tokens.text_tokenizer import TextTokenizer  # noqa: E402
from engine.data.tokens.tokeniser import Tokeniser  # noqa: E402

_BATCH_ROWS = 256
_SYSTEM = "You are a careful and friendly assistant who answers briefly."
_WITHOUT_SYSTEM = ("mistral", "gemma")
_TEXT_BYTES = 24 * 10**6
# Longer ones are tables of data.
_LONGEST_FILE_BYTES = 300_000


def library_text() -> list[str]:
    """The sources of Python's own library and of some others: code and English, some 24 MB."""
    folders = [Path(sysconfig.get_path(name)) for name in ("stdlib", "purelib")]
    texts, size = [], 0
    for path in (path for folder in folders for path in sorted(folder.rglob("*.py"))):
        if size < _TEXT_BYTES and path.stat().st_size < _LONGEST_FILE_BYTES:
            texts.append(path.read_text(errors="replace"))
            size += len(texts[-1])
    return texts


def large_tokenizer(name: str, texts: list[str], kept: Path) -> PreTrainedTokenizerFast:
    """The family's tokenizer with 32,000 tokens."""
    path = kept / f"{name}.json"
    small, family = tokenizer_of(name), FAMILIES[name]
    if path.is_file():
        backend = Tokenizer.from_file(str(path))
    else:
        specials = [token for token in dict.fromkeys(("<unk>", family.bos, family.eos, *family.specials)) if token]
        # On a third of the texts, so that rows have words which the tokenizer has not seen.
        backend = trained(small.backend_tokenizer, texts[::3], specials)
        kept.mkdir(parents=True, exist_ok=True)
        backend.save(str(path))
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token=family.bos, eos_token=family.eos, chat_template=family.template
    )


def trained(small: Tokenizer, texts: list[str], specials: list[str]) -> Tokenizer:
    """A tokenizer like `small` with 32,000 tokens. One like SentencePiece's is trained word by word, as SentencePiece
    does it, and then works on whole texts."""
    written = json.loads(small.to_str())
    backend = Tokenizer.from_str(json.dumps(written))
    names: list[str] = []
    if written["model"]["byte_fallback"]:
        names = [f"<0x{byte:02X}>" for byte in range(256)]
        backend.normalizer = normalizers.Replace(" ", "▁")
        words = Regex(r"▁*\p{L}+|▁*\p{N}|▁*[^\p{L}\p{N}▁\n]+|\n+|▁+")
        backend.pre_tokenizer = pre_tokenizers.Split(words, behavior="isolated")
    backend.train_from_iterator(texts, trainers.BpeTrainer(vocab_size=32_000, special_tokens=[*specials, *names]))
    made = json.loads(backend.to_str())
    made["added_tokens"] = [each for each in made["added_tokens"] if each["content"] not in names]
    return Tokenizer.from_str(
        json.dumps({**made, "normalizer": written["normalizer"], "pre_tokenizer": written["pre_tokenizer"]})
    )


def conversations(texts: list[str], count: int, with_system: bool) -> list[Conversation]:
    """Conversations of one to three turns, 40 to 4,000 characters each."""
    draw = random.Random(0)
    whole = "\n".join(texts)

    def piece() -> str:
        size = int(10 ** draw.uniform(1.6, 3.3))
        at = draw.randrange(len(whole) - size)
        return whole[at : at + size].strip() or "x"

    rows = []
    for _ in range(count):
        messages = [Message("system", _SYSTEM)] if with_system else []
        for _ in range(draw.choice((1, 1, 2, 3))):
            messages += [Message("user", piece()), Message("assistant", piece())]
        rows.append(Conversation(tuple(messages)))
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=4096)
    parser.add_argument("--families", nargs="+", default=["chatml", "llama3", "thinking", "mistral", "gemma"])
    parser.add_argument("--kept", type=Path, default=Path("/tmp/finetui-bench-tokenizers"))
    asked = parser.parse_args()
    texts = library_text()
    print(f"{'family':<10} {'way':<34} {'rows/s':>9} {'tokens/s':>11}")
    for name in asked.families:
        rows = conversations(texts, asked.rows, with_system=name not in _WITHOUT_SYSTEM)
        tokenizer = large_tokenizer(name, texts, asked.kept)
        tokeniser = Tokeniser(TextTokenizer(name, describe(tokenizer)))

        def ours(batch: list[Conversation], tokeniser: Tokeniser = tokeniser) -> int:
            results = tokeniser.tokenise(batch)
            return sum(len(result.sequences[0]) for result in results if isinstance(result, Tokenised))

        def by_row(batch: list[Conversation], tokenizer: PreTrainedTokenizerFast = tokenizer) -> int:
            turns = ([message.as_dict() for message in row.messages] for row in batch)
            return sum(len(tokenizer.apply_chat_template(each, return_dict=False)) for each in turns)

        def batched(batch: list[Conversation], tokenizer: PreTrainedTokenizerFast = tokenizer) -> int:
            turns = [[message.as_dict() for message in row.messages] for row in batch]
            return sum(map(len, tokenizer.apply_chat_template(turns, return_dict=True)["input_ids"]))

        ways: list[tuple[str, Callable[[list[Conversation]], int]]] = [
            ("finetui, with answer spans", ours),
            ("apply_chat_template, row by row", by_row),
            ("apply_chat_template, batched", batched),
        ]
        for label, way in ways:
            way(rows[:_BATCH_ROWS])
            began, tokens = time.process_time(), 0
            for at in range(0, len(rows), _BATCH_ROWS):
                tokens += way(rows[at : at + _BATCH_ROWS])
            seconds = time.process_time() - began
            print(f"{name:<10} {label:<34} {len(rows) / seconds:>9,.0f} {tokens / seconds:>11,.0f}", flush=True)


if __name__ == "__main__":
    main()
