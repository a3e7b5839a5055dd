"""What the keys of Home and Monitor do to a run: stop, resume, chat, export, copy its path. Off the event loop."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from typing import TYPE_CHECKING

from profiles.problem import Problem

if TYPE_CHECKING:
    from engine.run.directory import RunDirectory
    from tui.keys import KeyedScreen

LIVE = ("running", "preparing", "queued")
TMUX_SECONDS = 5


def why_not(name: str, state: str | None, has_output: bool) -> str | None:
    """Why the run key called `name` cannot be used on a run in `state` (None: no run at all); None when it can."""
    if name in ("open", "stop", "resume", "chat", "export", "copy", "save", "answer") and state is None:
        return "there is no run"
    live = state in LIVE
    if name in ("stop", "save", "answer") and not live:
        return f"it is {state}" if state != "failed" else "it has failed"
    if name == "resume" and live:
        return f"it is {state}"
    if name == "resume" and state == "finished":
        return "it is finished"
    if name in ("chat", "export") and not has_output:
        return "not yet finished" if live else "it has no model"
    return None


def stop(screen: KeyedScreen, run: RunDirectory, name: str) -> None:
    """Ask, then end the run after its present step with everything saved."""
    from tui.widgets.dialog import ConfirmDialog

    def answered(yes: bool | None) -> None:
        if yes:
            _in_thread(screen, lambda: _launch().stop(run), f"{name} stops after this step and saves.")

    question = f"Stop {name}?"
    detail = "It finishes the step it is at, saves a checkpoint and ends. r resumes it later."
    screen.app.push_screen(ConfirmDialog(question, detail, yes="stop it", no="let it run"), answered)


def resume(screen: KeyedScreen, run: RunDirectory, name: str) -> None:
    """Continue a stopped or failed run from its last checkpoint."""
    _in_thread(screen, lambda: _launch().resume(run), f"{name} continues from its last checkpoint.")


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


def _in_thread(screen: KeyedScreen, act: Callable[[], object], done: str) -> None:
    app = screen.app

    def work() -> None:
        try:
            act()
        except Problem as problem:
            app.call_from_thread(
                app.notify, f"{problem.what}\n{problem.fix}", title=problem.where, severity="error", markup=False
            )
        else:
            app.call_from_thread(app.notify, done, markup=False)

    app.run_worker(work, thread=True)
