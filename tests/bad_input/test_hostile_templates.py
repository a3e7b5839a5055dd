"""Chat templates that were written to do harm: no way into Python, no memory or time beyond their limits, and a reason
for the row each time. All in one process whose memory and time the kernel limits, which outlives every one of them."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from command import REPOSITORY

from engine.child_process import describe_exit
from engine.data.tokens.sandbox import compile_template, render_limited

ADDRESS_SPACE_BYTES = 2 << 30
PROCESSOR_SECONDS = 30
"""For each; of those that never end, the time limit of the template itself is a third of a second here."""

# Doubles a value n times: `x` ends up 2^n times as large as it began.
DOUBLED = "{% set n = namespace(x=START) %}{% for i in range(60) %}{% set n.x = STEP %}{% endfor %}"


def doubled(start: str, step: str, use: str = "") -> str:
    return DOUBLED.replace("START", start).replace("STEP", step) + use


NESTED = doubled("['a']", "[n.x, n.x]")
REFUSED, TOO_MUCH, FAILS = "is rejected by", "write more than", "makes the template fail"
ENDLESS = "keeps the template busy"
BOUNDED = (TOO_MUCH, ENDLESS)
"""By its size, or, on a slow machine, by its time."""
NOTHING = ("wrote ", "wrote [Undefined]")
"""What was asked for has no value there."""

TEMPLATES = {
    # Ways into Python.
    "{{ ''.__class__.__mro__ }}": REFUSED,
    "{{ ''['__class__'] }}": NOTHING,
    "{{ ''|attr('__class__') }}": NOTHING,
    "{{ messages|map(attribute='__class__')|list }}": NOTHING,
    "{{ '{0.__class__}'.format('') }}": NOTHING,
    "{{ '{a.__class__}'.format_map({'a': ''}) }}": NOTHING,
    "{{ ('{0.__class__}'.format)('') }}": NOTHING,
    "{{ ['{0.__class__}']|map('format', '')|first }}": FAILS,
    "{{ cycler.__init__.__globals__ }}": REFUSED,
    "{{ joiner.__init__.__globals__ }}": REFUSED,
    "{{ namespace.__init__.__globals__ }}": REFUSED,
    "{{ dict.__init__.__globals__ }}": REFUSED,
    "{{ lipsum.__globals__ }}": REFUSED,
    "{{ raise_exception.__globals__ }}": NOTHING,
    "{{ strftime_now.__globals__ }}": NOTHING,
    "{{ self.__init__.__globals__ }}": REFUSED,
    "{{ messages.append.__self__ }}": REFUSED,
    "{{ messages.append(1) }}": REFUSED,
    "{{ messages[0].update(a=1) }}": REFUSED,
    "{{ environment.joined }}": REFUSED,
    "{% set n = namespace() %}{% set n.__class__ = 1 %}{{ n }}": REFUSED,
    "{% macro m() %}{% endmacro %}{{ m.__globals__ }}": NOTHING,
    "{% for a in [1] %}{{ loop.__init__.__globals__ }}{% endfor %}": REFUSED,
    "{{ (range(3)|map('string')).gi_frame }}": NOTHING,
    "{% include '/etc/passwd' %}": FAILS,
    "{% import 'os' as os %}{{ os }}": FAILS,
    "{% extends 'x' %}": FAILS,
    "{% from '../x' import y %}": FAILS,
    # Memory, in one operation.
    "{{ 'a' * 10**9 }}": TOO_MUCH,
    "{{ 10**9 * 'a' }}": TOO_MUCH,
    "{{ ([1] * 10**9)|length }}": TOO_MUCH,
    "{{ 'a'|center(10**10) }}": TOO_MUCH,
    "{{ 'a'.center(10**10) }}": TOO_MUCH,
    "{{ ['a']|map('center', 10**10)|first }}": TOO_MUCH,
    "{{ 'a'.zfill(10**10) }}": TOO_MUCH,
    "{{ ('\\t' * 1000).expandtabs(10**9) }}": TOO_MUCH,
    "{{ '%1000000000d' % 1 }}": TOO_MUCH,
    "{{ '%*d' % (10**9, 1) }}": TOO_MUCH,
    "{{ '%.1000000000f' % 1.5 }}": TOO_MUCH,
    "{{ '%1000000000d'|format(1) }}": TOO_MUCH,
    "{{ '{:1000000000}'.format(1) }}": TOO_MUCH,
    "{{ '{:{w}}'.format(1, w=10**9) }}": TOO_MUCH,
    "{{ ('a' * 10**6).replace('a', 'b' * 10**6) }}": TOO_MUCH,
    "{{ ('a' * 10**6)|replace('a', 'b' * 10**6) }}": TOO_MUCH,
    "{{ ('a' * 10**6).replace('', 'b' * 10**6) }}": TOO_MUCH,
    "{{ ('a' * 10**6).translate({97: 'b' * 10**6}) }}": TOO_MUCH,
    "{{ (['a' * 10**6] * 10**6)|join }}": TOO_MUCH,
    "{{ ''.join(['a' * 10**6] * 10**6) }}": TOO_MUCH,
    "{{ ('a\\n' * 10**6)|indent(10**6) }}": TOO_MUCH,
    "{{ messages|tojson(indent=10**9) }}": TOO_MUCH,
    "{{ ('a ' * 10**6)|wordwrap(1, wrapstring='b' * 10**6) }}": TOO_MUCH,
    "{{ range(10**9)|list }}": FAILS,
    doubled("'a'", "n.x + n.x"): BOUNDED,
    doubled("'a'", "n.x ~ n.x"): BOUNDED,
    doubled("'aa'", "n.x.replace('a', 'aa')"): BOUNDED,
    doubled("'a'", "'%s%s' % (n.x, n.x)"): BOUNDED,
    doubled("'a'", "'{0}{0}'.format(n.x)"): BOUNDED,
    doubled("'a'", "[n.x, n.x]|join"): BOUNDED,
    doubled("[1]", "n.x + n.x"): BOUNDED,
    NESTED + "{{ n.x }}": BOUNDED,
    NESTED + "{{ n.x|string }}": BOUNDED,
    NESTED + "{{ n.x|tojson }}": BOUNDED,
    NESTED + "{{ 'a' ~ n.x }}": BOUNDED,
    NESTED + "{{ '%s' % n.x }}": BOUNDED,
    NESTED + "{{ '{}'.format(n.x) }}": BOUNDED,
    NESTED + "{{ '{!r}'.format(n.x) }}": BOUNDED,
    NESTED + "{{ [n.x]|join }}": BOUNDED,
    NESTED + "{{ n.x|pprint }}": "is not valid Jinja",
    "{% for i in range(99999) %}{{ 'a' * 99999 }}{% endfor %}": TOO_MUCH,
    # Time, in one operation.
    "{{ 9 ** (9 ** 9) }}": TOO_MUCH,
    "{{ 1.5|round(10**9, 'floor') }}": TOO_MUCH,
    doubled("3", "n.x * n.x"): TOO_MUCH,
    doubled("3", "n.x ** 2"): TOO_MUCH,
    "{{ raise_exception('a' * 10**7) }}": REFUSED,
    # Without end.
    "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}": ENDLESS,
    "{% for a in range(99999) %}{% for b in range(99999) %}{{ m[range(999)|list] }}{% endfor %}{% endfor %}": ENDLESS,
    "{% macro f() %}{{ f() }}{{ f() }}{% endmacro %}{{ f() }}": FAILS,
    "{% for a in [[]] recursive %}{{ loop([a]) }}{% endfor %}": FAILS,
    # Reading alone.
    "{{ " + "(" * 10_000 + " }}": "cannot be read as Jinja",
    "{% if a %}" * 5000: "cannot be read as Jinja",
    "a" * ((1 << 20) + 1): "no template needs over",
    "{{ 'a'|center(10000000000) }}": TOO_MUCH,
}

_RENDER_ALL = """
import json, resource, sys
from engine.data.tokens import time_limit
from engine.data.contents import Unusable
from engine.data.tokens.sandbox import compile_template, render_limited
from profiles.problem import Problem
usual = time_limit.LIMIT_SECONDS
resource.setrlimit(resource.RLIMIT_AS, ({0}, {0}))
for source, may_be_endless in json.load(sys.stdin):
    used = resource.getrusage(resource.RUSAGE_SELF)
    resource.setrlimit(resource.RLIMIT_CPU, (int(used.ru_utime + used.ru_stime) + {1}, -1))
    time_limit.LIMIT_SECONDS = usual
    try:
        template = compile_template(source, "the template")
        context = dict(messages=[dict(role="user", content="x")], m=dict(a=1))
        time_limit.LIMIT_SECONDS = 0.3 if may_be_endless else usual
        told = "wrote " + render_limited(template, context, "the template")
    except (Unusable, Problem) as reason:
        told = str(reason)
    print(json.dumps(told[:400]), flush=True)
"""


def test_each_is_told_within_bounds():
    done = subprocess.run(
        [sys.executable, "-c", _RENDER_ALL.format(ADDRESS_SPACE_BYTES, PROCESSOR_SECONDS)],
        cwd=REPOSITORY,
        input=json.dumps([(source, ENDLESS in expected) for source, expected in TEMPLATES.items()]),
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    told = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.returncode == 0, (list(TEMPLATES)[len(told)][:200], describe_exit(done.returncode), done.stderr[-1000:])
    wrong = {
        source[:200]: said
        for (source, expected), said in zip(TEMPLATES.items(), told, strict=True)
        if not _is_told(said, expected)
    }
    assert wrong == {}


def _is_told(said: str, expected: str | tuple[str, ...]) -> bool:
    if expected is NOTHING:
        return said in NOTHING
    return any(each in said for each in ((expected,) if isinstance(expected, str) else expected))


@pytest.mark.parametrize(
    ("source", "written"),
    [
        ("{{ 'a' ~ 1 ~ none ~ ['b'] }}", "a1None['b']"),
        ("{{ '%-4s|%03d' % ('a', 7) }}", "a   |007"),
        ("{{ '{:>4}|{!r}'.format('a', 'b') }}", "   a|'b'"),
        ("{{ 'a b'.replace(' ', '-').center(7) }}", "  a-b  "),
        ("{{ ', '.join(['a', 'b']) ~ (['a', 'b']|join(', ')) }}", "a, ba, b"),
        ("{{ [{'a': 1}, {'a': 2}]|join('-', attribute='a') }}", "1-2"),
        ("{{ {'a': ['é']}|tojson(indent=1) }}", '{\n "a": [\n  "é"\n ]\n}'),
        ("{{ 'a\nb'|indent(2) }}{{ 1.25|round(1) }}{{ 2 ** 10 }}", "a\n  b1.21024"),
        ("{{ undefined_name ~ '' }}|{{ undefined_name }}", "|"),
    ],
)
def test_what_a_template_is_for_still_works(source: str, written: str):
    assert render_limited(compile_template(source, "t"), {}, "t") == written


def test_a_comparison_without_end_ends_its_process_alone():
    """What no limit within a process sees: Python compares lists that hold each other in one go. The kernel counts."""
    code = (
        "from engine.child_process import limit_processor_time\n"
        "from engine.data.tokens.sandbox import compile_template, render_limited\n"
        "limit_processor_time(1)\n"
        "render_limited(compile_template(input(), 't'), {}, 't')\n"
    )
    source = NESTED + NESTED.replace("n.x", "o.x").replace("n =", "o =") + "{{ n.x == o.x }}"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=REPOSITORY, input=source + "\n", text=True, check=False, timeout=300
    )
    assert done.returncode == -signal.SIGXCPU
    assert not list(Path(REPOSITORY).glob("core*"))
