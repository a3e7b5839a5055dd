"""Token ids in, text out as early as it is certain: no half characters, in sum the whole decoded text."""

from __future__ import annotations

from typing import Any

REPLACEMENT = "\ufffd"
UNFINISHED_BYTES = 3


class TextStream:
    """Decodes one growing answer. Special tokens leave no text.

    A character may be spread over several tokens, and decoding its first bytes alone gives a replacement
    character. So text that ends in one is held back until later tokens complete it, or `finish` says that
    none will. A token is always decoded together with those before it back to the last cut, since some
    tokenizers (SentencePiece) drop the space in front of the first token they are given.
    """

    def __init__(self, tokenizer: Any):
        self._tokenizer = tokenizer
        self._ids: list[int] = []
        # ids[context:cut] were given out already and are decoded again only to see what follows them.
        self._context = self._cut = 0
        self._given = 0  # characters after the cut

    def add(self, token_id: int) -> str:
        """The text that `token_id` makes certain; "" when that is not known yet."""
        self._ids.append(token_id)
        text = self._text_after_cut()
        if not text.endswith(REPLACEMENT):
            return self._cut_after(text)
        # When more tokens wait than an unfinished character has bytes, only the last one is undecided.
        if len(self._ids) - self._cut <= UNFINISHED_BYTES:
            return ""
        news, self._given = text[self._given : -1], len(text) - 1
        return news

    def finish(self) -> str:
        """What was held back, with a replacement character for bytes that never became one."""
        return self._cut_after(self._text_after_cut())

    def _cut_after(self, text: str) -> str:
        news = text[self._given :]
        if text:  # tokens without a text of their own do not serve as context
            self._context = self._cut
        self._cut, self._given = len(self._ids), 0
        return news

    def _text_after_cut(self) -> str:
        known = self._decode(self._ids[self._context : self._cut])
        return self._decode(self._ids[self._context :])[len(known) :]

    def _decode(self, ids: list[int]) -> str:
        return self._tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
