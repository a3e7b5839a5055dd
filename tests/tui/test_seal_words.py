"""What is claimed of a seal, from what the journal holds: every standing, never more than was measured."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from fake_run import make_run
from fake_seal import (
    EVIDENCE,
    IN_PART,
    LAYERS,
    NO_NAMESPACE,
    OPENED,
    PROBES,
    SEAL,
    SEAL_CHANGED,
    SEAL_CHECK,
    UNSEALED,
    WAY_OUT,
    WHOLE,
    WITHOUT_NAMESPACE,
)

from engine.run.directory import RunDirectory
from engine.run.summary import summarise
from engine.run.telemetry.events import RunState
from engine.run.telemetry.reading import read_state
from engine.seal.request import LEVELS
from tui.commands.show import _seal_lines, as_dict
from tui.commands.wording import event_text, state_words
from tui.monitor_seal import seal_line, seal_page
from tui.seal_evidence import evidence_rows
from tui.seal_words import GLYPHS, WORDS, ability_words, level_words, seal_words, style
from tui.theme import make_look

LOOK, PLAIN = make_look(), make_look(ascii=True, no_color=True)
NO_LAYER = [{**layer, "held": False, "why": "the kernel has none"} for layer in LAYERS]


def state_with(root: Path, seal: dict[str, Any] | None, *then: dict[str, Any], **options: Any) -> RunState:
    return read_state(RunDirectory(make_run(root, "notes", planned=20, until=12, seal=seal, then=then, **options)))


@pytest.mark.parametrize(
    ("seal", "then", "name", "told"),
    [
        (SEAL, [], "sealed", "sealed: namespace, landlock, seccomp; 0 attempts, 27 of 27 probes refused"),
        (SEAL, [SEAL_CHECK, WAY_OUT], "sealed", "sealed: namespace, landlock, seccomp; 3 attempts, 27 of 27 probes"),
        (IN_PART, [], "in part", "sealed in part: landlock, seccomp; no namespace (AppArmor lets no ordinary user"),
        (UNSEALED, [], "off", 'not sealed: privacy.seal = "off"'),
        ({**SEAL, "layers": NO_LAYER}, [], "none", "not sealed: no namespace (the kernel has none), no landlock"),
        (
            {**IN_PART, "level": "required", "probes": None},
            [],
            "refused",
            "not trained: the seal is required, and there",
        ),
        ({**SEAL, "layers": [], "evidence": {}}, [], "within", "seal not known: finetui was started within a seal"),
        (
            {**SEAL, "layers": [*LAYERS[:1], {**LAYERS[1], "why": "ABI 3 knows no TCP"}, *LAYERS[2:]]},
            [],
            "sealed",
            "sealed: namespace, landlock, seccomp; landlock in part (ABI 3 knows no TCP); 0 attempts",
        ),
        (
            OPENED,
            [],
            "open",
            "seal open: the listener outside was reached once; 1 way out is open: UDP to the listener",
        ),
        # A hit is a hit, whichever layer is missing.
        ({**IN_PART, "probes": {**PROBES, "hits": 2}}, [], "open", "seal open: the listener outside was reached twice"),
        (SEAL, [SEAL_CHANGED], "changed", "seal changed: a route leads out: default by eth0; 12 packets left"),
        ({**SEAL, "changed": list("abcde")}, [], "changed", "seal changed: a; b; c; and 2 more; 0 attempts"),
        ({**SEAL, "changed": ["Seccomp is 0"]}, [], "changed", "seal changed: Seccomp is 0; 0 attempts"),
        # Nothing is claimed of layers that nobody tried, or whose trial says nothing.
        (
            {**SEAL, "probes": None},
            [],
            "unproven",
            "namespace, landlock, seccomp said to hold, but no way out was tried",
        ),
        ({**SEAL, "probes": {**PROBES, "control": False}}, [], "unproven", "the listener was not reached from outside"),
        ({**SEAL, "evidence": {}}, [], "unproven", "the kernel was not asked about the trainer"),
        ({**SEAL, "probes": {**PROBES, "refused": 26}}, [], "open", "seal open: 1 way out is open; 0 attempts"),
        (None, [], "", "seal not known: its journal does not tell of one"),
    ],
)
def test_every_standing_is_told_as_what_was_measured(tmp_path: Path, seal, then, name: str, told: str) -> None:
    said = seal_words(state_with(tmp_path, seal, *then))
    assert said is not None and said.name == name and told in said.text and said.text.startswith(WORDS[name])
    for word in ("secure", "safe", "100 %", "guarantee"):
        assert word not in said.text
    # Only what was proven has the colour of what is good, and no colour tells it alone.
    assert (style(name, LOOK) == LOOK.good) == (name == "sealed")
    for look in (LOOK, PLAIN):
        for width in (40, 60, 78, 120, 198):
            line = seal_line(state_with(tmp_path / f"{look.ascii}-{width}", seal, *then), width, look)
            assert line.cell_len <= width and line.plain.startswith(GLYPHS[name][look.ascii])
            assert WORDS[name] in line.plain and (line.plain.isascii() or not look.ascii)


def test_a_seal_of_an_attempt_before_says_nothing_of_this_one(tmp_path: Path) -> None:
    again = {"kind": "attempt", "number": 2, "resumed_from": 12, "worker_pid": 5}
    assert seal_words(state_with(tmp_path / "a", SEAL, again)) is None
    said = seal_words(state_with(tmp_path / "b", SEAL, again, {"kind": "phase", "phase": "training"}))
    assert said is not None and said.word == "seal not known"
    said = seal_words(state_with(tmp_path / "c", SEAL, {**SEAL, "number": 2}, again))
    assert said is not None and said.word == "sealed"


def test_the_page_has_all_that_the_line_rests_on(tmp_path: Path) -> None:
    for width, look in ((78, LOOK), (198, LOOK), (78, PLAIN)):
        page = seal_page(state_with(tmp_path / f"{width}-{look.ascii}", IN_PART, SEAL_CHECK, WAY_OUT), width, look)
        text = "\n".join(line.plain for line in page.lines)
        assert all(line.cell_len <= width for line in page.lines) and (text.isascii() or not look.ascii)
        for told in (
            NO_NAMESPACE["why"],
            NO_NAMESPACE["fix"],
            "open  signal to a process outside: delivered",
            "27 tried, 26 refused, 1 open",
        ):
            assert str(told) in text
        for told in (
            "killed by SIGSYS",
            "shared with the machine: net, mnt, user, ipc",
            "file_utils.py:318",
            "3 times",
            "once since",
        ):
            assert told in text
        assert [page.lines[at].plain[3:7] for at in page.sections] == ["seal", "laye", "prob", "read", "ways"]


def test_none_is_claimed_to_have_tried_only_where_the_kernel_would_tell(tmp_path: Path) -> None:
    layers = [*LAYERS[:2], {**LAYERS[2], "held": False, "why": "the kernel has none"}]
    off = {**SEAL, "level": "off", "layers": [], "probes": None}
    for name, seal, told in (
        ("all", SEAL, "none"),
        ("some", {**SEAL, "layers": layers}, "none in Python; without seccomp the kernel tells of no other"),
        ("off", off, "nobody listened for any"),
    ):
        assert seal_page(state_with(tmp_path / name, seal), 78, LOOK).lines[-1].plain == told


def test_what_the_kernel_says_is_told_in_words_whatever_comes() -> None:
    rows = dict(evidence_rows({**EVIDENCE, "capabilities": {"effective": "000000000000000e"}, "cpu_time": {"user": 3}}))
    assert rows["capabilities"] == "dac_override, dac_read_search, fowner (effective)"
    assert (rows["routes out"], rows["packets out"], rows["calls"]) == ("none", "0", "filtered by seccomp, 1 filter")
    assert rows["cpu time"] == "user 3"
    unread = dict(
        evidence_rows({"no_new_privs": None, "seccomp": 0, "packets_out": None, "unread": ["net/dev: EPERM"]})
    )
    assert list(unread.values()) == ["not read", "not filtered", "not told apart", "net/dev: EPERM"]
    assert dict(evidence_rows({"capabilities": "?", "namespaces": 7})) == {"capabilities": "?", "namespaces": "7"}


def test_show_and_watch_tell_the_same(tmp_path: Path) -> None:
    run = RunDirectory(make_run(tmp_path, "notes", seal=OPENED, then=[SEAL_CHECK, SEAL_CHANGED, WAY_OUT]))
    state, summary = read_state(run), summarise(run)
    shown = as_dict(run, summary, state)
    assert shown["seal"]["probes"]["hits"] == 1 and shown["seal_checks"] == 2
    assert shown["seal_changed"] == SEAL_CHANGED["changed"] and shown["ways_out"][0]["count"] == 3
    assert state_words(summary).endswith("▲ seal changed")
    lines = _seal_lines(state)
    assert lines[0].startswith("seal     ▲ seal changed: a route leads out") and all(map(str.isprintable, lines))
    assert any("file_utils.py:318" in line for line in lines) and any("UDP to the listener" in line for line in lines)
    told = [event_text({"seq": 1, **event}) for event in (SEAL, SEAL_CHECK, SEAL_CHANGED, WAY_OUT)]
    assert told[:2] == [SEAL["text"], None]
    assert "a route leads out" in str(told[2]) and "file_utils.py:318" in str(told[3])


def test_a_level_is_told_as_what_it_means_here() -> None:
    assert [level_words(level, WHOLE) for level in LEVELS[:2]] == [
        "required: all three layers hold here",
        "best: all three layers hold here",
    ]
    required, best = (level_words(level, WITHOUT_NAMESPACE) for level in LEVELS[:2])
    assert required == f"required: cannot train here: no namespace ({NO_NAMESPACE['why']})"
    assert best.startswith("best: landlock and seccomp hold here; no namespace")
    assert "nothing keeps the trainer from the network" in level_words("off", WHOLE)
    assert [level_words(level, None).split(":")[0] for level in LEVELS] == list(LEVELS)
    assert (ability_words(WHOLE), ability_words(WITHOUT_NAMESPACE)) == ("seal 3 of 3 layers", "seal 2 of 3 layers")


def test_a_run_that_was_refused_another_trainer_has_no_seal_though_the_one_before_held(tmp_path: Path) -> None:
    why = "the seal is required, and does not hold on this machine: the layer landlock is missing"
    refused = {"kind": "end", "outcome": "failed", "cause": "unsealed", "why": why, "remedy": "", "step": 12}
    state = state_with(tmp_path, SEAL, refused)
    said = seal_words(state)
    assert said is not None and (said.name, said.text) == ("refused", f"not trained further: {why}")
    assert seal_line(state, 78, LOOK).plain == "□ not trained further: the seal is required, and did not hold"
    page = "\n".join(line.plain for line in seal_page(state, 78, LOOK).lines)
    assert "attempt 1 trained; what follows is of its seal" in page
    assert summarise(RunDirectory(next((tmp_path / "runs").iterdir()))).seal == "refused"
    opened = seal_words(state_with(tmp_path / "opened", OPENED, refused))
    assert opened is not None and opened.name == "open"  # it was this trainer's own seal that did not hold
