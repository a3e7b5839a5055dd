"""The footer: the screen's keys in one row, those that cannot be used now dimmed, with the reason where it fits."""

from __future__ import annotations

from rich.text import Text

from tui.keys import Key, KeyedScreen
from tui.widgets.painted import Painted

GAP = "  "


class KeyBar(Painted):
    """Draws the keys of the KeyedScreen it is on. Call `repaint()` when what can be done changed."""

    DEFAULT_CSS = "KeyBar { dock: bottom; height: 1; width: 100%; padding: 0 1; }"

    def paint(self, width: int, height: int) -> list[Text]:
        screen = self.screen
        assert isinstance(screen, KeyedScreen)
        keys = self._that_fit([key for key in screen.all_keys if key.footer], width)
        reasons = {key.name: screen.why_not(key.name) for key in keys}
        room = width - _width(keys)
        bar = Text(no_wrap=True)
        for key in keys:
            reason = reasons[key.name]
            entry = Text()
            if reason is None:
                entry.append(key.shown, style=self.look.accent).append(f" {key.label}", style=self.look.dim)
            else:
                entry.append(f"{key.shown} {key.label}", style=self.look.faint)
                if room >= len(reason) + 3:
                    entry.append(f" ({reason})", style=self.look.faint)
                    room -= len(reason) + 3
            if bar.cell_len:
                bar.append(GAP)
            bar.append_text(entry)
        return [bar]

    def _that_fit(self, keys: list[Key], width: int) -> list[Key]:
        """As many of the keys as have room. The spare ones go first; help goes last, since it tells of those that are
        left out."""
        kept = list(keys)
        while len(kept) > 1 and _width(kept) > width:
            spare = [key for key in kept if key.spare]
            last = next((key for key in reversed(spare or kept) if key.name != "help"), kept[-1])
            kept.remove(last)
        return kept


def _width(keys: list[Key]) -> int:
    return sum(len(key.shown) + 1 + len(key.label) for key in keys) + len(GAP) * (len(keys) - 1)
