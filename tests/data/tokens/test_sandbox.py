"""Templates can do no harm: whatever they do ends in a reason for the row, or a Problem for the template."""

from __future__ import annotations

import threading

import pytest

from engine.data.contents import Unusable
from engine.data.tokens import time_limit
from engine.data.tokens.sandbox import compile_template, render_limited
from profiles.problem import Problem

FOREVER = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"


def said(source: str, **context: object) -> str:
    """Why a row cannot be used with this template."""
    with pytest.raises(Unusable) as told:
        render_limited(compile_template(source, "the template"), context, "the template")
    return str(told.value)


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("{{ raise_exception('no\x1b[31m system') }}", "is rejected by the template: no\\x1b[31m system"),
        ("{{ x.y.z }}", "is rejected by the template: 'x' is undefined"),
        ("{{ ''.__class__.__mro__ }}", "is rejected by the template: access to attribute '__class__'"),
        ("{% set n = namespace() %}{% set n.__x = 1 %}", "is rejected by the template: a namespace cannot have"),
        ("{{ namespace(_x=1) }}", "is rejected by the template: a namespace cannot have"),
        ("{% include '/etc/passwd' %}", "makes the template fail: TypeError: no loader"),
        ("{{ 1 / 0 }}", "makes the template fail: ZeroDivisionError"),
        ("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "makes the template fail: RecursionError"),
        ("{{ 'x' * 10 ** 10 }}", "makes the template write more than 67,108,864 characters"),
        ("{{ 9 ** (9 ** 9) }}", "makes the template write more than"),
        ("{% for a in range(99999) %}{{ 'x' * 9999 }}{% endfor %}", "makes the template write more than"),
        ("{{ range(10 ** 9) | list }}", "makes the template fail: OverflowError"),
        ("{{ [1].append(2) }}", "is rejected by the template: "),
    ],
)
def test_what_a_template_may_not_do_is_the_rows_reason(source: str, reason: str):
    assert said(source).startswith(reason)


def test_a_template_that_never_ends_is_interrupted_in_any_thread(monkeypatch: pytest.MonkeyPatch):
    reason = "keeps the template busy for more than 5 seconds"
    compile_template(FOREVER, "the template")  # which is kept, so that it is not what takes too long below
    reasons: list[str] = []
    with monkeypatch.context() as impatient:
        impatient.setattr(time_limit, "LIMIT_SECONDS", 0.1)
        assert said(FOREVER) == reason
        thread = threading.Thread(target=lambda: reasons.append(said(FOREVER)))
        thread.start()
        thread.join(timeout=60)
    assert reasons == [reason]
    # And whoever comes after is not disturbed.
    assert render_limited(compile_template("{{ x }}", "t"), {"x": "fine"}, "t") == "fine"


@pytest.mark.parametrize(
    ("source", "told"),
    [
        ("{{ a }}\n{% if %}", "the template, line 2: is not valid Jinja: Expected an expression"),
        ("{{ a | nosuchfilter }}", "the template, line 1: is not valid Jinja: No filter named 'nosuchfilter'"),
        ("{{ " + "(" * 10_000 + " }}", "the template: cannot be read as Jinja: RecursionError"),
    ],
)
def test_a_template_that_is_no_jinja_is_told_with_its_line(source: str, told: str):
    with pytest.raises(Problem) as problem:
        compile_template(source, "the template")
    assert str(problem.value).startswith(told)


def test_a_column_that_is_not_there_is_an_error_only_where_asked():
    assert render_limited(compile_template("[{{ quesiton }}]", "t"), {"question": "x"}, "t") == "[]"
    with pytest.raises(Unusable, match="'quesiton' is undefined"):
        render_limited(compile_template("[{{ quesiton }}]", "t", strict=True), {"question": "x"}, "t")
