"""Keys that come at once, as over a slow connection: they go where they would have gone one by one."""

from __future__ import annotations

from textual import events
from textual.app import App
from textual.widgets import Input


class TypedAheadApp(App[None]):
    """An app of which a line takes what is typed with the key that opens it.

    A key is sent to what has the focus when it is read, and the keys that are read before it has done anything go there
    as well. Who opens a line gives it the focus at once (`Screen.set_focus`; `Widget.focus` comes after further keys).
    """

    def on_key(self, event: events.Key) -> None:
        """A character that comes here, taken by nobody, while there is a line: it is typed there."""
        line = self.focused
        if isinstance(line, Input) and event.is_printable and event.character is not None:
            event.prevent_default()
            if line.selection.is_empty:
                line.insert_text_at_cursor(event.character)
            else:
                line.replace(event.character, *line.selection)
