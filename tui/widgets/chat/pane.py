"""One side of a chat: its name and speed above, its conversation below, drawn line by line.

Text streams in a few characters at a time. Only the last paragraph of the running answer is wrapped anew, and
only the lines that came out different are drawn: over SSH every repainted line is paid for.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from rich.text import Text
from textual.geometry import Region, Size
from textual.scroll_view import ScrollView
from textual.strip import Strip

from profiles.problem import printable
from tui.theme import Look, look_of
from tui.widgets.new_run.text import drawable

# A scroll redraws the whole pane, a line added at its end only that one: so it scrolls by this share of its height.
# At 80x24 and 40 tokens/s a side that is half the bytes of scrolling by three lines, and calmer to read.
SHARE_PER_SCROLL = 1 / 3
NO_LIMIT = 1 << 40


@dataclass
class Block:
    """A piece of a conversation: the question, the answer, or a remark of ours. `lines` fit one width."""

    style: str
    indent: str
    text: str = ""
    lines: list[str] = field(default_factory=list)
    wrapped_characters: int = 0
    """So many characters of `text` are in finished paragraphs, which `frozen_lines` lines hold."""
    frozen_lines: int = 0


class ChatPane(ScrollView, can_focus=False):
    """Add what is said with `ask`, `extend` and `remark`."""

    DEFAULT_CSS = """
    ChatPane { height: 1fr; width: 1fr; scrollbar-size: 0 0; background: transparent; }
    """

    def __init__(self, id: str | None = None):
        super().__init__(id=id)
        self._blocks: list[Block] = []
        self._rows: list[tuple[Block, int]] = []
        self._wrapped_width = 0
        self._following = True

    @property
    def look(self) -> Look:
        return look_of(self)

    @property
    def text(self) -> str:
        """All that stands in the pane, unwrapped."""
        return "\n".join(block.text for block in self._blocks)

    @property
    def rows(self) -> list[str]:
        """All that stands in the pane, wrapped."""
        return [block.lines[row] for block, row in self._rows]

    def clear(self) -> None:
        self._blocks.clear()
        self.scroll_to(y=0, animate=False, force=True)
        self._lay_out()

    def ask(self, question: str) -> None:
        """Begin a turn: the question, and room for the answer."""
        if self._blocks:
            self._blocks.append(Block("", ""))
        mark = self.look.glyph("› ", "> ")
        self._blocks.append(Block(self.look.dim, mark, self._safe(question)))
        self._blocks.append(Block("", ""))
        self._following = True
        self._lay_out()
        self._follow(at_once=True)

    def extend(self, text: str) -> None:
        """More of the running answer."""
        if not text:
            return
        block = self._blocks[-1]
        block.text += self._safe(text)
        if not self._wrapped_width:
            return
        before = list(block.lines)
        self._wrap(block)
        same = next((row for row, line in enumerate(before) if line != block.lines[row]), len(before))
        first = len(self._rows) - len(before)
        self._rows[first:] = [(block, row) for row in range(len(block.lines))]
        self._resize_content()
        self._draw(first + same, len(self._rows))
        self._follow()

    def remark(self, text: str, style: str) -> None:
        """A line of ours below the answer."""
        self._blocks.append(Block(style, "", drawable(text, self.look)))
        self._lay_out()
        self._follow(at_once=True)

    def page(self, direction: int) -> None:
        """Scroll by nearly a height, up (-1) or down (1). Scrolled away from, the end is not followed any more."""
        last = max(0, len(self._rows) - self.size.height)
        to = min(max(0, self.scroll_offset.y + direction * max(1, self.size.height - 2)), last)
        self._following = to == last
        self.scroll_to(y=to, animate=False, force=True)

    def on_resize(self) -> None:
        if self.size.width != self._wrapped_width:
            self._lay_out()
        self._follow(at_once=True)

    def render_line(self, y: int) -> Strip:
        row = y + self.scroll_offset.y
        width, style = self.size.width, self.rich_style
        if row >= len(self._rows):
            return Strip.blank(width, style)
        block, number = self._rows[row]
        indent = block.indent if number == 0 else " " * len(block.indent)
        text = Text.assemble((indent, self.look.accent), (block.lines[number], block.style), end="")
        return Strip(text.render(self.app.console)).adjust_cell_length(width).apply_style(style)

    def _safe(self, text: str) -> str:
        lines = text.replace("\r\n", "\n").replace("\t", "    ").split("\n")
        return "\n".join(drawable(printable(line, NO_LIMIT), self.look) for line in lines)

    def _lay_out(self) -> None:
        """Wrap everything anew, for a new width or a new block."""
        self._wrapped_width = self.size.width
        if not self._wrapped_width:
            return
        self._rows = []
        for block in self._blocks:
            block.lines, block.wrapped_characters, block.frozen_lines = [], 0, 0
            self._wrap(block)
            self._rows += [(block, row) for row in range(len(block.lines))]
        self._resize_content()
        self.refresh()

    def _wrap(self, block: Block) -> None:
        """Bring `lines` up to `text`; finished paragraphs are left as they are."""
        width = max(1, self._wrapped_width - len(block.indent))
        del block.lines[block.frozen_lines :]
        *finished, last = block.text[block.wrapped_characters :].split("\n")
        for paragraph in finished:
            block.lines += self._wrap_paragraph(paragraph, width)
            block.wrapped_characters += len(paragraph) + 1
        block.frozen_lines = len(block.lines)
        block.lines += self._wrap_paragraph(last, width)

    def _wrap_paragraph(self, paragraph: str, width: int) -> list[str]:
        wrapped = Text(paragraph).wrap(self.app.console, width, overflow="fold")
        return [line.plain.rstrip() for line in wrapped] or [""]

    def _resize_content(self) -> None:
        # The blank lines that the last scroll made room with count as content, or Textual would scroll back.
        in_view = self.scroll_offset.y + self.size.height if self.scroll_offset.y else 0
        self.virtual_size = Size(self.size.width, max(len(self._rows), in_view))

    def _draw(self, first: int, end: int) -> None:
        top = first - self.scroll_offset.y
        if end > first:
            self.refresh(Region(0, max(0, top), self.size.width, end - first))

    def _follow(self, at_once: bool = False) -> None:
        """Keep the end in view, unless it was scrolled away from."""
        hidden = len(self._rows) - self.size.height - self.scroll_offset.y
        if hidden <= 0 or not self._following:
            return
        room = 0 if at_once else int(self.size.height * SHARE_PER_SCROLL)
        # Room below the last line for the next few, which is what makes a scroll rare.
        self.virtual_size = Size(self.size.width, len(self._rows) + room)
        self.scroll_to(y=self.scroll_offset.y + hidden + room, animate=False, force=True)
