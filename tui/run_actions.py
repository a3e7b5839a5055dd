"""What the keys of Home and Monitor do to a run: stop, restart, resume, chat, export, copy its path, purge. Off the
event loop."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from profiles.problem import Problem, printable
from tui.telling import tell

if TYPE_CHECKING:
    from textual.screen import Screen

    from engine.run.circumstances import Change
    from engine.run.directory import RunDirectory
    from engine.run.evidence.purging import PurgePlan
    from engine.run.processes.orphans import Orphan
    from engine.run.waiting.line import To
    from engine.seal.request import Level
    from tui.keys import KeyedScreen
    from tui.snapshots import RunSnapshot
    from tui.widgets.dialog import ChoiceDialog

LIVE = ("running", "preparing", "queued")
RUN_KEYS = ("open", "stop", "restart", "resume", "chat", "export", "copy", "save", "answer", "purge")
TMUX_SECONDS = 5
MOST_CHANGES = 8
"""Lines of a dialog on the smallest screen designed for, with room for a value that wraps."""


def why_not(name: str, state: str | None, has_output: bool) -> str | None:
    """Why the run key called `name` cannot be used on a run in `state` (None: no run at all); None when it can."""
    if name in RUN_KEYS and state is None:
        return "there is no run"
    live = state in LIVE
    if name in ("sooner", "later") and state != "queued":
        return "it does not wait" if state is not None else "there is no run"
    if name == "restart" and state == "queued":
        return "it waits, and has no trainer yet"
    if name in ("stop", "restart", "save", "answer") and not live:
        return f"it is {state}" if state != "failed" else "it has failed"
    if name == "purge" and live:
        return "it waits in the queue: s takes it out" if state == "queued" else f"it is {state}: s stops it first"
    if name == "resume" and live:
        return f"it is {state}"
    if name == "resume" and state == "finished":
        return "it is finished"
    if name in ("chat", "export") and not has_output:
        return "not yet finished" if live else "it has no model"
    return None


def stop(screen: KeyedScreen, run: RunDirectory, name: str, queued: bool = False) -> None:
    """Ask, then end the run after its present step with everything saved; one that waits leaves the queue."""
    from tui.widgets.dialog import ConfirmDialog

    def answered(yes: bool | None) -> None:
        if yes:
            done = f"{name} leaves the queue." if queued else f"{name} stops after this step and saves."
            _in_thread(screen, lambda: _launch().stop(run), done)

    detail = "It finishes the step it is at, saves a checkpoint and ends. r resumes it later."
    if queued:
        detail = "It leaves the queue, and nothing was started. r starts it later."
    screen.app.push_screen(ConfirmDialog(f"Stop {name}?", detail, yes="stop it", no="let it run"), answered)


def restart(screen: KeyedScreen, run: RunDirectory, name: str) -> None:
    """Ask, then end the run's trainer and go on from the newest checkpoint with another."""
    from tui.widgets.dialog import ConfirmDialog

    def answered(yes: bool | None) -> None:
        if yes:
            restart_now(screen, run, name)

    question = f"Restart the trainer of {name}?"
    detail = "It is ended at once, and another goes on from the last checkpoint. The steps since then are done again."
    screen.app.push_screen(ConfirmDialog(question, detail, yes="restart it", no="let it be"), answered)


def restart_now(screen: KeyedScreen, run: RunDirectory, name: str) -> None:
    """End the run's trainer and go on from the newest checkpoint with another."""
    _request(screen, run, "restart", f"{name} goes on with another trainer.")


def stall_dialog(snapshot: RunSnapshot) -> ChoiceDialog:
    """Asks what to do about a run that stalls; answers "wait", "restart", "stop", "stack" or, for Esc, nothing."""
    from tui.format import moment_text
    from tui.widgets.dialog import Choice, ChoiceDialog

    state, stall = snapshot.state, snapshot.state.stall
    innermost = f"\nIt is at: {printable(stall['stack'][-1], 120)}" if stall["stack"] else ""
    saved = f"step {state.checkpoint_step:,}" if state.checkpoint_step else "the start"
    return ChoiceDialog(
        f"{snapshot.run.spec_name} stalls",
        f"{stall['text'][:1].upper()}{stall['text'][1:]}.\nNoticed {moment_text(stall['at'])}.{innermost}",
        (
            Choice("w", "wait", "wait"),
            Choice("x", f"restart from {saved}", "restart"),
            Choice("s", "stop", "stop"),
            Choice("v", "the stack", "stack"),
        ),
        leave="",
    )


@dataclass(frozen=True, slots=True)
class _BeforeResume:
    """What a person is asked about before a run goes on."""

    lower_rate: float | None
    rate: float | None
    changes: Sequence[Change]
    unsealed: bool
    """Whether it ended since its seal is required and did not hold."""


def resume(screen: KeyedScreen, run: RunDirectory, name: str) -> None:
    """Continue a stopped or failed run from its last checkpoint; first ask where numbers stopped being finite, where
    its seal did not hold, and where something changed since."""

    def look() -> None:
        before = _before_resume(run)
        tell(_ask_for_rate, screen, run, name, before)

    _in_thread(screen, look)


def _before_resume(run: RunDirectory) -> _BeforeResume:
    """In a thread. Raises Problem."""
    from engine.run.circumstances import changes_before_resume
    from engine.run.telemetry.reading import read_state

    state = read_state(run)
    not_finite = state.not_finite if state.cause == "not_finite" else {}
    lower_rate, rate = not_finite.get("lower_rate"), not_finite.get("learning_rate")
    return _BeforeResume(lower_rate, rate, changes_before_resume(run), state.cause == "unsealed")


def _ask_for_rate(screen: KeyedScreen, run: RunDirectory, name: str, before: _BeforeResume) -> None:
    from tui.format import learning_rate_text
    from tui.widgets.dialog import Choice, ChoiceDialog

    if before.unsealed:
        _ask_for_seal(screen, run, name, before)
        return
    if before.lower_rate is None:
        _ask_about_changes(screen, run, name, before, None)
        return

    def answered(answer: str | None) -> None:
        if answer is not None:
            _ask_about_changes(screen, run, name, before, before.lower_rate if answer == "lower" else None)

    as_it_was = f" ({learning_rate_text(before.rate)})" if before.rate is not None else ""
    dialog = ChoiceDialog(
        f"{name} met a number that is not finite",
        "From the same checkpoint at the same rate it most likely meets it again.",
        (
            Choice("l", f"go on at a lower rate ({learning_rate_text(before.lower_rate)})", "lower"),
            Choice("a", f"go on as it was{as_it_was}", "as it was"),
        ),
    )
    screen.app.push_screen(dialog, answered)


def _ask_for_seal(screen: KeyedScreen, run: RunDirectory, name: str, before: _BeforeResume) -> None:
    from tui.widgets.dialog import Choice, ChoiceDialog

    def answered(answer: str | None) -> None:
        if answer is not None:
            _ask_about_changes(screen, run, name, before, None, "best" if answer == "best" else None)

    dialog = ChoiceDialog(
        f"The seal of {name} is required and did not hold",
        "With best it trains with the layers that hold here, though one is missing or a way out is open. That is "
        "recorded.",
        (
            Choice("b", "go on with the layers that hold here (best)", "best"),
            Choice("a", "try again as it was (required)", "as it was"),
        ),
    )
    screen.app.push_screen(dialog, answered)


def _ask_about_changes(
    screen: KeyedScreen,
    run: RunDirectory,
    name: str,
    before: _BeforeResume,
    rate: float | None,
    seal: Level | None = None,
) -> None:
    from tui.widgets.dialog import Choice, ChoiceDialog

    def go_on(anyway: bool) -> None:
        def act() -> None:
            _launch().resume(run, anyway=anyway, learning_rate=rate, seal=seal)

        _in_thread(screen, act, f"{name} continues from its last checkpoint.")

    if not before.changes:
        go_on(False)
        return

    def answered(answer: str | None) -> None:
        if answer is not None:
            go_on(True)

    dialog = ChoiceDialog(
        f"Changed since the checkpoint of {name}",
        "\n".join(each.text for each in before.changes[:MOST_CHANGES])
        + (f"\nand {len(before.changes) - MOST_CHANGES} more" if len(before.changes) > MOST_CHANGES else "")
        + "\nIt can go on, though not exactly as it would have; that is recorded.",
        (Choice("c", "continue anyway", "anyway"),),
    )
    screen.app.push_screen(dialog, answered)


def resume_all(screen: KeyedScreen, runs: Sequence[RunDirectory]) -> None:
    """Let all these go on, given newest first: those that trained, as far as the memory goes; then those that waited,
    in their places in the line."""

    def act() -> None:
        from engine.run.waiting.returning import in_order_of_return
        from tui.format import counted

        begun = 0
        for run, waited in in_order_of_return(runs[::-1]):
            try:
                _launch().resume(run, wait=True, beside=not waited)
                begun += 1
            except Problem as problem:
                tell(_tell, screen, problem)
        if begun:
            done = f"{counted(begun, 'run')} {'goes' if begun == 1 else 'go'} on."
            tell(screen.notify, done, markup=False, timeout=4)

    _in_thread(screen, act)


def orphan_dialog(screen: Screen, orphan: Orphan) -> None:
    """Ask whether to end a process that no engine looks after, and end it."""
    from tui.widgets.dialog import ConfirmDialog

    def answered(yes: bool | None) -> None:
        if yes:
            screen.app.run_worker(end, thread=True)

    def end() -> None:
        tell(screen.notify, orphan.end(), markup=False)

    sentence = orphan.sentence()
    detail = f"{sentence[:1].upper()}{sentence[1:]}, though its engine is gone. If it saves, it may finish that."
    screen.app.push_screen(ConfirmDialog("End what a run left behind?", detail, yes="end it", no="leave it"), answered)


def move_in_line(screen: KeyedScreen, run: RunDirectory, name: str, to: To) -> None:
    """Move a run that waits in its device's line, and say where it stands now."""

    def act() -> None:
        from engine.run.waiting.line import move
        from tui.format import ordinal_text

        place = move(run, to)
        tell(screen.notify, f"{name} is {ordinal_text(place)} in line.", markup=False, timeout=4)

    _in_thread(screen, act)


def save(screen: KeyedScreen, run: RunDirectory) -> None:
    """Ask a live run for a checkpoint now."""
    _request(screen, run, "save", "A checkpoint is written after this step.")


def answer(screen: KeyedScreen, run: RunDirectory) -> None:
    """Ask a live run to answer its held-out rows with the weights as they are now."""
    _request(screen, run, "sample", "Held-out rows are answered after this step.")


def _request(screen: KeyedScreen, run: RunDirectory, command: str, done: str) -> None:
    def ask() -> None:
        from engine.run.control import ask

        ask(run, command)

    _in_thread(screen, ask, done)


def chat(screen: KeyedScreen, run: RunDirectory) -> None:
    """Open the chat of base and tuned model side by side."""
    from tui.screens.chat import ChatScreen

    screen.app.push_screen(ChatScreen(run))


def export(screen: KeyedScreen, run: RunDirectory, name: str) -> None:
    """Ask what to write where, then write it in a child process."""
    from tui.screens.export import ExportDialog

    screen.app.push_screen(ExportDialog(run, name))


def purge(screen: KeyedScreen, run: RunDirectory, name: str) -> None:
    """Show what would go and what remains, and remove the run once that was agreed to."""
    from tui.screens.purge import PurgeDialog

    def answered(plan: PurgePlan | None) -> None:
        if plan is not None:
            _in_thread(screen, lambda: _remove(screen, plan, name))

    screen.app.push_screen(PurgeDialog(run, name), answered)


def _remove(screen: KeyedScreen, plan: PurgePlan, name: str) -> None:
    """In a thread. Raises Problem."""
    from engine.run.evidence.purging import purge
    from tui.format import bytes_text
    from tui.purge_words import remained_words

    def removed() -> None:
        title = f"{name} is removed"
        screen.app.notify(f"{bytes_text(plan.bytes)} went. {remained_words(plan)}", title=title, markup=False)

    def read_again() -> None:
        screen.finetui.screen_shown()

    try:
        purge(plan)
        tell(removed)
    finally:
        tell(read_again)


def copy(screen: KeyedScreen, text: str) -> None:
    """Put `text` on the clipboard of the terminal in front of the person."""
    screen.app.copy_to_clipboard(text)
    screen.notify(text, title="Copied", markup=False, timeout=4)


def copy_with_tmux(text: str) -> None:
    """Hand `text` to tmux, which passes it on to the terminal's clipboard; where tmux is too old OSC 52 went too."""
    subprocess.run(["tmux", "load-buffer", "-w", "-"], input=text.encode(), timeout=TMUX_SECONDS, check=False)


def _launch():
    import engine.run.launch

    return engine.run.launch


def _in_thread(screen: KeyedScreen, act: Callable[[], object], done: str = "") -> None:
    """Do `act` in a thread, and say `done`, or the Problem that came of it."""

    def work() -> None:
        try:
            act()
        except Problem as problem:
            tell(_tell, screen, problem)
        else:
            if done:
                tell(screen.notify, done, markup=False)

    screen.app.run_worker(work, thread=True)


def _tell(screen: KeyedScreen, problem: Problem) -> None:
    screen.notify(f"{problem.what}\n{problem.fix}", title=problem.where, severity="error", markup=False)
