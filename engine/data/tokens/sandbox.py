"""Jinja templates that came with a model or from a person, run so that they can do no harm: no access to Python, and
limits of time and size.

The environment is the one that transformers gives chat templates, so that a template writes the same text here and
there. What a template allocates inside one operation of Python's (a centred text of 10 GB) no limit here sees; whoever
renders unknown templates does it in a process whose memory is limited.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from datetime import datetime
from functools import lru_cache
from typing import Any

import jinja2
from jinja2 import nodes
from jinja2.ext import Extension
from jinja2.parser import Parser
from jinja2.runtime import Macro
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace

from engine.data.contents import Unusable
from engine.data.tokens.time_limit import LIMIT_SECONDS, OverTime, time_limit
from profiles.problem import Problem, printable

# Longer than any row that can be learnt from, and as much memory as a small process may take.
LIMIT_CHARACTERS = 1 << 26
# Powers of larger exponents are nothing that a text needs, and one operation on them takes minutes.
_LARGEST_EXPONENT = 64
_REASON_CHARACTERS = 160


class _OverSize(Exception):
    """A template wrote, or built, more than LIMIT_CHARACTERS."""


def compile_template(source: str, where: str, *, strict: bool = False) -> jinja2.Template:
    """`source` ready to render; the same one for the same source. With `strict`, what has no value is an error.

    Raises Problem naming `where` and the line when it is not valid Jinja.
    """
    try:
        return _compile(source, strict)
    except jinja2.TemplateSyntaxError as error:
        raise Problem(
            f"{where}, line {error.lineno}",
            f"is not valid Jinja: {_reason(error.message or '')}",
            "Correct the template at that line.",
        ) from None
    except Exception as error:  # thousands of nested brackets, constants that cannot be worked out, lone surrogates
        raise Problem(where, f"cannot be read as Jinja: {_said(error)}", "Write the template more simply.") from None


def render_limited(template: jinja2.Template, context: Mapping[str, Any], where: str) -> str:
    """What `template` writes about `context`. `where` names it within a sentence: "the chat template".

    Raises Unusable when the template rejects the row, fails, or takes more than LIMIT_SECONDS or LIMIT_CHARACTERS.
    """
    pieces: list[str] = []
    size = 0
    try:
        with time_limit():
            for piece in template.root_render_func(template.new_context(dict(context))):
                size += len(piece)
                if size > LIMIT_CHARACTERS:
                    raise _OverSize
                pieces.append(piece)
    except OverTime:
        raise Unusable(f"keeps {where} busy for more than {LIMIT_SECONDS:.0f} seconds") from None
    except _OverSize:
        raise Unusable(f"makes {where} write more than {LIMIT_CHARACTERS:,} characters") from None
    except jinja2.TemplateError as error:
        raise Unusable(f"is rejected by {where}: {_reason(error.message or '')}") from None
    except Exception as error:
        # A template is a program that came from elsewhere: whatever it raises is its fault or the row's.
        raise Unusable(f"makes {where} fail: {_said(error)}") from None
    return "".join(pieces)


@lru_cache(maxsize=64)
def _compile(source: str, strict: bool) -> jinja2.Template:
    return (_STRICT if strict else _CHAT).from_string(source)


def _said(error: Exception) -> str:
    return _reason(f"{type(error).__name__}: {error}")


def _reason(text: str) -> str:
    """What a template or a library said, as the end of a sentence of ours."""
    return printable(text, _REASON_CHARACTERS).rstrip(". ")


class _Environment(ImmutableSandboxedEnvironment):
    intercepted_binops = frozenset(("*", "**"))

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        if operator == "**" and isinstance(right, int | float) and abs(right) > _LARGEST_EXPONENT:
            raise _OverSize
        if operator == "*":
            for repeated, count in ((left, right), (right, left)):
                is_repetition = isinstance(repeated, str | list | tuple) and isinstance(count, int)
                if is_repetition and len(repeated) * count > LIMIT_CHARACTERS:
                    raise _OverSize
        return super().call_binop(context, operator, left, right)


class _GenerationTag(Extension):
    """`{% generation %}`, by which some templates mark what the model writes: passed through as a block."""

    tags = {"generation"}  # noqa: RUF012 - Jinja reads it from the class

    def parse(self, parser: Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.CallBlock(self.call_method("_written"), [], [], body).set_lineno(line)

    def _written(self, caller: Macro) -> str:
        return caller()


class _DictMaker:
    """`dict` in templates, without the class's other attributes."""

    def __call__(self, *args: Any, **fields: Any) -> dict[Any, Any]:
        return dict(*args, **fields)

    def fromkeys(self, *args: Any) -> dict[Any, Any]:
        return dict.fromkeys(*args)


class _GuardedNamespace(Namespace):
    """`namespace` in templates, where names that begin with an underscore would reach into Python. Its attributes are
    the template's fields alone, so the check is no method of it."""

    def __init__(*args: Any, **fields: Any) -> None:  # no named `self`, so that a template may have a field called so
        values = dict(*args[1:], **fields)
        for name in values:
            _check_field(name)
        Namespace.__init__(args[0], values)

    def __setitem__(self, name: str, value: Any) -> None:
        _check_field(name)
        super().__setitem__(name, value)


def _check_field(name: Any) -> None:
    if isinstance(name, str) and name.startswith("_"):
        raise jinja2.exceptions.SecurityError(f"a namespace cannot have a field called {name!r}")


def _raise_exception(message: str) -> None:
    raise jinja2.TemplateError(message)


def _strftime_now(form: str) -> str:
    return datetime.now().strftime(form)


def _tojson(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """Without Jinja's own escapes for HTML."""
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _environment(undefined: type[jinja2.Undefined]) -> _Environment:
    environment = _Environment(
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=undefined,
        extensions=[_GenerationTag, "jinja2.ext.loopcontrols"],
    )
    environment.filters["tojson"] = _tojson
    given: dict[str, Callable[..., Any]] = {
        "raise_exception": _raise_exception,
        "strftime_now": _strftime_now,
        "dict": _DictMaker(),
        "namespace": _GuardedNamespace,
    }
    environment.globals.update(given)
    return environment


_CHAT = _environment(jinja2.Undefined)
_STRICT = _environment(jinja2.StrictUndefined)
