"""Jinja templates that came with a model or from a person, run so that they can do no harm: no access to Python, and
limits of time and size.

The environment is the one that transformers gives chat templates, so that a template writes the same text here and
there; but for what no prompt needs (lorem ipsum, links in HTML, pretty printing). The size of what a single operation
would make is looked at before (engine.data.tokens.bounds). What can still be long without end is a comparison of lists
that hold each other; whoever renders unknown templates does it in a process whose time and memory are limited.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from datetime import datetime
from functools import lru_cache
from typing import Any

import jinja2
from jinja2 import filters, nodes
from jinja2.compiler import CodeGenerator, Frame, optimizeconst
from jinja2.ext import Extension
from jinja2.parser import Parser
from jinja2.runtime import Macro
from jinja2.sandbox import ImmutableSandboxedEnvironment, SandboxedFormatter
from jinja2.utils import Namespace

from engine.data.contents import Unusable
from engine.data.quoting import said_by_template
from engine.data.tokens import bounds
from engine.data.tokens.bounds import LIMIT_CHARACTERS, OverSize
from engine.data.tokens.time_limit import LIMIT_SECONDS, OverTime, time_limit
from profiles.problem import Problem, printable

# The largest of published models has 20 KB.
_LIMIT_SOURCE_CHARACTERS = 1 << 20
_REASON_CHARACTERS = 160


def compile_template(source: str, where: str, *, strict: bool = False) -> jinja2.Template:
    """`source` ready to render; the same one for the same source. With `strict`, what has no value is an error.

    Raises Problem naming `where` and the line when it is not valid Jinja.
    """
    if len(source) > _LIMIT_SOURCE_CHARACTERS:
        what = f"has {len(source):,} characters; no template needs over {_LIMIT_SOURCE_CHARACTERS:,}"
        raise Problem(where, what, "Copy it from its source again, or write it more simply.")
    try:
        with time_limit():  # constants are worked out in it
            return _compile(source, strict)
    except OverTime:
        what = f"was not read as Jinja within {LIMIT_SECONDS:.0f} seconds"
        raise Problem(where, what, "Write the template more simply.") from None
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
                    raise OverSize
                pieces.append(piece)
    except OverTime:
        raise Unusable(f"keeps {where} busy for more than {LIMIT_SECONDS:.0f} seconds") from None
    except OverSize:
        raise Unusable(f"makes {where} write more than {LIMIT_CHARACTERS:,} characters") from None
    except jinja2.TemplateError as error:
        raise Unusable(f"is rejected by {where}: {_of_a_row(template, error.message or '')}") from None
    except Exception as error:
        # A template is a program that came from elsewhere: whatever it raises is its fault or the row's.
        said = _of_a_row(template, str(error))
        raise Unusable(f"makes {where} fail: {type(error).__name__}: {said}") from None
    return "".join(pieces)


@lru_cache(maxsize=64)
def _compile(source: str, strict: bool) -> jinja2.Template:
    return (_STRICT if strict else _CHAT).from_string(source)


def _of_a_row(template: jinja2.Template, text: str) -> str:
    """What was said when a template met a row: marked, where it may hold words of the row."""
    return said_by_template(template.root_render_func.__code__, text, _REASON_CHARACTERS)


def _said(error: Exception) -> str:
    return _reason(f"{type(error).__name__}: {error}")


def _reason(text: str) -> str:
    """What a template or a library said, as the end of a sentence of ours."""
    return printable(text, _REASON_CHARACTERS).rstrip(". ")


class _Code(CodeGenerator):
    """Jinja's own, with what stands between `~` put together by `_Environment.joined`."""

    @optimizeconst
    def visit_Concat(self, node: nodes.Concat, frame: Frame) -> None:
        self.write("environment.joined((")
        for part in node.nodes:
            self.visit(part, frame)
            self.write(", ")
        self.write("))")


class _Formatter(SandboxedFormatter):
    def format_field(self, value: Any, format_spec: str) -> Any:
        bounds.widths(format_spec)
        return super().format_field(bounds.written(value), format_spec)

    def convert_field(self, value: Any, conversion: Any) -> Any:
        return super().convert_field(bounds.written(value), conversion)


class _Environment(ImmutableSandboxedEnvironment):
    code_generator_class = _Code
    intercepted_binops = frozenset(("*", "**", "+", "%"))
    joined = staticmethod(bounds.joined)

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        bounds.operated(operator, left, right)
        return super().call_binop(context, operator, left, right)

    def call(__self, __context: Any, __obj: Any, *args: Any, **kwargs: Any) -> Any:
        text, name = getattr(__obj, "__self__", None), getattr(__obj, "__name__", "")
        if isinstance(text, str) and (bounded := bounds.method(text, name)) is not None:
            __obj = bounded
        return super().call(__context, __obj, *args, **kwargs)

    def wrap_str_format(self, value: Any) -> Callable[..., str] | None:
        if super().wrap_str_format(value) is None:
            return None
        form, is_map = value.__self__, value.__name__ == "format_map"

        def formatted(*args: Any, **kwargs: Any) -> str:
            given = ((), args[0]) if is_map and len(args) == 1 and not kwargs else (args, kwargs)
            text = _Formatter(self).vformat(str(form), *given)
            bounds.require(len(text))
            return text

        return formatted


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
    size = bounds.size_of(value)
    bounds.require(size * max(1, indent or 0) if isinstance(indent, int) else size + len(indent or ""))
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _center(value: str, width: int = 80) -> str:
    bounds.require(width)
    return filters.do_center(value, width)


def _format(value: str, *args: Any, **kwargs: Any) -> str:
    bounds.operated("%", str(value), args or tuple(kwargs.values()))
    return filters.do_format(value, *args, **kwargs)


def _indent(text: str, width: int | str = 4, first: bool = False, blank: bool = False) -> str:
    size = len(width) if isinstance(width, str) else width
    bounds.require(len(text) + (text.count("\n") + 1) * size)
    return filters.do_indent(text, width, first, blank)


@jinja2.pass_eval_context
def _join(context: Any, value: Any, d: str = "", attribute: str | int | None = None) -> str:
    if attribute is not None:
        value = map(filters.make_attrgetter(context.environment, attribute), value)
    return bounds.joined(value, str(bounds.written(d)))


def _replace(text: Any, old: str, new: str, count: int | None = None) -> str:
    return bounds.replaced(str(bounds.written(text)), str(old), str(new), -1 if count is None else count)


def _round(value: float, precision: int = 0, method: Any = "common") -> float:
    bounds.rounded(precision)
    return filters.do_round(value, precision, method)


def _string(value: Any) -> str:
    return str(bounds.written(value))


def _wordwrap(text: str, width: int = 79, break_long_words: bool = True, wrapstring: str | None = None) -> str:
    bounds.require(len(text) * max(1, len(wrapstring or "")))
    return filters.do_wordwrap(_CHAT, text, width, break_long_words, wrapstring)


_BOUNDED: dict[str, Callable[..., Any]] = {
    "tojson": _tojson,
    "center": _center,
    "format": _format,
    "indent": _indent,
    "join": _join,
    "replace": _replace,
    "round": _round,
    "string": _string,
    "wordwrap": _wordwrap,
}
"""Jinja's filters that may make much of little, each with its size looked at before."""
_LEFT_OUT_FILTERS = ("pprint", "urlize", "xmlattr")
_LEFT_OUT_GLOBALS = ("lipsum",)


def _environment(undefined: type[jinja2.Undefined]) -> _Environment:
    environment = _Environment(
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=undefined,
        finalize=bounds.written,
        extensions=[_GenerationTag, "jinja2.ext.loopcontrols"],
    )
    environment.filters.update(_BOUNDED)
    for name in _LEFT_OUT_FILTERS:
        del environment.filters[name]
    for name in _LEFT_OUT_GLOBALS:
        del environment.globals[name]
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
