"""A person's own shape: Jinja templates that make the prompt and the answer from a row's columns."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from engine.data.contents import Conversation, Message, PlainText, Unusable
from engine.data.rows import shown
from engine.data.source import Source
from profiles.problem import Problem

if TYPE_CHECKING:
    import jinja2

# One row may be the exception; a template that never ends would take its whole time again for every row.
_MOST_TIMEOUTS = 2


class OwnTemplate:
    """Makes conversations of one question and one answer, or plain text where there is no prompt.

    The templates see each column by its name, and all of them as `row`. Raises Problem for templates that are no
    valid Jinja or are missing, and when rows keep them busy for longer than they may.
    """

    def __init__(self, source: Source):
        from engine.data.tokens.sandbox import compile_template  # Jinja is needed here only

        where = shown(source.path)
        if not source.answer_template:
            raise Problem(where, "has no answer_template", 'Write one, such as answer_template = "{{ reply }}".')
        self._where = where
        self._answer = compile_template(source.answer_template, f"{where}, answer_template", strict=True)
        self._prompt: jinja2.Template | None = None
        if source.prompt_template:
            self._prompt = compile_template(source.prompt_template, f"{where}, prompt_template", strict=True)
        self._timeouts = 0

    @property
    def has_prompt(self) -> bool:
        return self._prompt is not None

    def build(self, row: Mapping[str, Any]) -> Conversation | PlainText:
        """Raises Unusable where the row has nothing that a template asks for, or it writes nothing."""
        context = {**row, "row": row}
        answer = self._render(self._answer, context, "answer_template")
        if not answer.strip():
            raise Unusable("makes answer_template write nothing: there is nothing to learn")
        if self._prompt is None:
            return PlainText(answer)
        prompt = self._render(self._prompt, context, "prompt_template")
        if not prompt.strip():
            raise Unusable("makes prompt_template write nothing")
        return Conversation((Message("user", prompt), Message("assistant", answer)), is_pair=True)

    def _render(self, template: jinja2.Template, context: Mapping[str, Any], name: str) -> str:
        from engine.data.tokens.sandbox import render_limited
        from engine.data.tokens.time_limit import LIMIT_SECONDS

        started = time.monotonic()
        try:
            return render_limited(template, context, name)
        except Unusable:
            self._timeouts += time.monotonic() - started >= LIMIT_SECONDS
            if self._timeouts >= _MOST_TIMEOUTS:
                what = f"has a {name} that takes more than {LIMIT_SECONDS:.0f} seconds a row"
                raise Problem(self._where, what, "Correct the loop in the template.") from None
            raise


def columns_read(source: Source, columns: tuple[str, ...]) -> tuple[str, ...]:
    """Those of a row's columns that the templates name; all of them where they take the row as a whole."""
    from jinja2 import meta
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    environment = ImmutableSandboxedEnvironment()
    named: set[str] = set()
    for text in (source.prompt_template, source.answer_template):
        named |= meta.find_undeclared_variables(environment.parse(text))
    return columns if "row" in named else tuple(column for column in columns if column in named)
