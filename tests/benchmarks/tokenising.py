"""Rows and tokens a second from conversations to token ids with answer spans, on one core, against the usual way:
`apply_chat_template` for each row and a batched call of the tokenizer, without masks. Seconds are
processor time, so that a busy machine tells nearly the same.

The tokenizer is a byte-level BPE of 32,000 tokens made from Python's own library, with the chat templates of
tests/chat_families.py; the rows are made from the same files. Needs no network.
"""

from __future__ import annotations

import argparse
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
from tokenizers import Tokenizer, trainers  # noqa: E402
from transformers import PreTrainedTokenizerFast  # noqa: E402

from engine.data.contents import Conversation, Message  # noqa: E402
from engine.data.tokens.encoded import Tokenised  # noqa: E402
from engine.data.tokens.reference import describe  # noqa: E402
from engine.data.tokens.text_tokenizer import TextTokenizer  # noqa: E402
from engine.data.tokens.tokeniser import Tokeniser  # noqa: E402

_BATCH_ROWS = 256


def library_text() -> list[str]:
    """The sources of Python's own library: code and English, some 4 MB."""
    folder = Path(sysconfig.get_path("stdlib"))
    return [path.read_text(errors="replace") for path in sorted(folder.glob("*.py"))]


def large_tokenizer(name: str, texts: list[str], kept: Path) -> PreTrainedTokenizerFast:
    """The family's tokenizer with 32,000 tokens."""
    path = kept / f"{name}.json"
    small, family = tokenizer_of(name), FAMILIES[name]
    if path.is_file():
        backend = Tokenizer.from_file(str(path))
    else:
        specials = [token for token in dict.fromkeys(("<unk>", family.bos, family.eos, *family.specials)) if token]
        backend = small.backend_tokenizer
        backend.train_from_iterator(texts, trainers.BpeTrainer(vocab_size=32_000, special_tokens=specials))
        kept.mkdir(parents=True, exist_ok=True)
        backend.save(str(path))
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token=family.bos, eos_token=family.eos, chat_template=family.template
    )


def conversations(texts: list[str], count: int) -> list[Conversation]:
    """Conversations of one to three turns, 40 to 4,000 characters each."""
    draw = random.Random(0)
    whole = "\n".join(texts)

    def piece() -> str:
        size = int(10 ** draw.uniform(1.6, 3.3))
        at = draw.randrange(len(whole) - size)
        return whole[at : at + size].strip() or "x"

    rows = []
    for _ in range(count):
        messages = [Message("system", "You are a careful and friendly assistant who answers briefly.")]
        for _ in range(draw.choice((1, 1, 2, 3))):
            messages += [Message("user", piece()), Message("assistant", piece())]
        rows.append(Conversation(tuple(messages)))
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=4096)
    parser.add_argument("--families", nargs="+", default=["chatml", "llama3", "thinking"])
    parser.add_argument("--kept", type=Path, default=Path("/tmp/finetui-bench-tokenizers"))
    asked = parser.parse_args()
    texts = library_text()
    rows = conversations(texts, asked.rows)
    print(f"{'family':<10} {'way':<34} {'rows/s':>9} {'tokens/s':>11}")
    for name in asked.families:
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
