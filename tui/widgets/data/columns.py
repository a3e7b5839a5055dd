"""The columns view: how the source is read, what its rows are, and which column plays which part."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, get_args

from rich.text import Text

from engine.data.shapes.parts import roles_of
from engine.data.source import Format, Shape
from profiles.problem import Problem, printable
from tui.format import share_text
from tui.theme import Look
from tui.widgets.data.board import DataBoard
from tui.widgets.data.content import Part as RowPart
from tui.widgets.data.content import parts_of
from tui.widgets.data.view import DataView
from tui.widgets.new_run.text import drawable, problem_line
from tui.widgets.painted import cut, fit, right

if TYPE_CHECKING:
    from engine.data.preview import Column, DataPreview
    from engine.data.shapes.parts import Part

FORMATS = get_args(Format)
SHAPES = get_args(Shape)
SHAPE_WORDS: dict[str, str] = {
    "auto": "told from the columns",
    "messages": "conversations, as lists of messages",
    "pair": "a question and an answer",
    "text": "plain text, all of it learnt",
    "preference": "a better and a worse answer",
    "feedback": "an answer with a thumb up or down",
    "labelled": "a text and its label",
    "similar": "two texts that belong together",
    "template": "a template of your own",
}
DELIMITERS = ("auto", ",", ";", "\t", "|", ":")
ENCODINGS = ("auto", "utf-8", "cp1252", "latin-1", "utf-16", "cp1251", "mac-roman", "shift_jis", "gb18030", "euc-kr")
LABEL, PART = 18, 12
NAME_WIDTHS = (12, 28)


@dataclass(frozen=True, slots=True)
class Setting:
    """A line above the columns: a field of the source, the values it can have (none: it is typed)."""

    field: str
    label: str
    values: tuple[str, ...] = ()


class ColumnsView(DataView):
    keys = ("less", "more", "type", "reset", "down", "up", "first", "last")

    def __init__(self, board: DataBoard, id: str):
        super().__init__(board, id)
        self.cursor = 0
        self._stands_on: tuple[str, str] | None = None
        self._top = 0

    def repaint(self) -> None:
        if self.board.sources:
            self._keep_cursor()
        super().repaint()

    def _keep_cursor(self) -> None:
        """What was found out meanwhile may have put lines above the cursor, or have taken some away."""
        lines = self._lines_told()
        self.cursor = min(self.cursor, len(lines) - 1)
        if self._stands_on in lines and lines[self.cursor] != self._stands_on:
            self.cursor = lines.index(self._stands_on)

    def _lines_told(self) -> list[tuple[str, str]]:
        """What the cursor can stand on: the settings, then the columns."""
        settings = [("setting", each.field) for each in self._settings()]
        return [*settings, *(("column", column.name) for column in self._columns())]

    @property
    def setting(self) -> Setting | None:
        """The setting under the cursor, if it stands on none of the columns."""
        settings = self._settings()
        return settings[self.cursor] if self.cursor < len(settings) else None

    def why_not(self, name: str) -> str | None:
        setting = self.setting
        if name == "type" and (setting is None or setting.values):
            return "left and right change it"
        if name in ("less", "more") and setting is not None and not setting.values:
            return "e types it"
        if name in ("less", "more") and setting is None and not self._roles():
            return "choose a shape first" if self._shape() != "template" else "the template names its columns"
        return "nothing is changed" if name == "reset" and self.board.source.section.source().is_plain else None

    def move(self, rows: int) -> None:
        lines = self._lines_told()
        self.cursor = max(0, min(self.cursor + rows, len(lines) - 1))
        self._stands_on = lines[self.cursor]
        self.repaint()

    def change(self, direction: int) -> None:
        setting = self.setting
        if setting is None:
            self._change_part(direction)
        elif setting.values:
            now = getattr(self.board.source.section, setting.field)
            at = setting.values.index(now) if now in setting.values else 0
            self._replace(**{setting.field: setting.values[(at + direction) % len(setting.values)]})

    def type(self, text: str) -> None:
        """Take what was typed for the setting under the cursor."""
        setting = self.setting
        if setting is not None and not setting.values:
            self._replace(**{setting.field: text})

    def reset(self) -> None:
        """Read the source as finetui proposed."""
        fresh = type(self.board.source.section)(path=self.board.source.section.path)
        names = ("format", "encoding", "delimiter", "records", "shape", "columns", "prompt_template", "answer_template")
        self._replace(**{name: getattr(fresh, name) for name in names})

    def _replace(self, **changes: object) -> None:
        if "shape" in changes and changes["shape"] != self.board.source.section.shape:
            changes.setdefault("columns", {})  # parts of another shape have other names
        self.board.replace_section(self.board.shown, **changes)
        self.post_message(self.Reread())
        self.repaint()

    def _change_part(self, direction: int) -> None:
        column = self._columns()[self.cursor - len(self._settings())]
        mapping, roles = dict(self._mapping()), self._roles()
        now = next((part for part, names in mapping.items() if column.name in _names(names)), "")
        # A part that another column plays is passed over, or walking past would take it away.
        free = [role.name for role in roles if role.many or not mapping.get(role.name) or role.name == now]
        ladder = ["", *free]
        part = ladder[(ladder.index(now) + direction) % len(ladder)] if now in ladder else ladder[1]
        for name, names in list(mapping.items()):
            left = [each for each in _names(names) if each != column.name]
            mapping[name] = ",".join(left)
        if part:
            many = next(role for role in roles if role.name == part).many
            mapping[part] = ",".join([*_names(mapping.get(part, "")), column.name]) if many else column.name
        shape = self._shape()
        self._replace(shape=shape, columns={name: names for name, names in mapping.items() if names})

    # What is known

    def _settings(self) -> list[Setting]:
        found, section = self._known, self.board.source.section
        settings = [Setting("format", "read as", FORMATS)]
        kind = section.format if section.format != "auto" else found.format if found else ""
        if kind == "csv":
            settings.append(Setting("delimiter", "between fields", DELIMITERS))
        if kind == "json":
            settings.append(Setting("records", "rows stand in"))
        if kind not in ("parquet", "arrow"):
            settings.append(Setting("encoding", "encoding", ENCODINGS))
        settings.append(Setting("shape", "rows are", SHAPES))
        if section.shape == "template":
            settings += [Setting("prompt_template", "prompt template"), Setting("answer_template", "answer template")]
        return settings

    @property
    def _known(self) -> DataPreview | None:
        """The latest look that succeeded, so that columns stay while the source is read anew."""
        return self.board.source.found or self.board.source.before

    def _columns(self) -> Sequence[Column]:
        return self._known.columns if self._known else ()

    def _shape(self) -> Shape:
        section = self.board.source.section
        if section.shape != "auto":
            return section.shape
        reading = self._known.reading if self._known else None
        return reading.shape if reading is not None and reading.shape in SHAPES else "pair"

    def _roles(self) -> tuple[Part, ...]:
        return roles_of(self._shape()) if self._shape() != "auto" else ()

    def _mapping(self) -> Mapping[str, str]:
        section = self.board.source.section
        if section.columns or section.shape != "auto":
            return section.columns
        reading = self._known.reading if self._known else None
        return reading.columns if reading is not None else {}

    # Drawing

    def paint(self, width: int, height: int) -> list[Text]:
        look = self.look
        settings, columns = self._settings(), self._columns()
        lines = [self._setting_line(each, index, width, look) for index, each in enumerate(settings)]
        names = max([len(column.name) for column in columns], default=0)
        names = max(NAME_WIDTHS[0], min(NAME_WIDTHS[1], names))
        lines.append(Text())
        head = f"  {'column':<{names}}  {'part':<{PART}}  {'filled':>6}  example"
        lines.append(Text(head if columns else "  no columns", style=look.dim))
        under = len(lines)
        lines += [self._column_line(column, index, names, width, look) for index, column in enumerate(columns)]
        below = self._understood(width, max(3, height // 3), look)
        room = height - len(below) - 1
        place = self.cursor if self.cursor < len(settings) else under + self.cursor - len(settings)
        self._top = max(0, min(self._top, place, len(lines) - room), place - room + 1)
        shown = [cut(line, width, look) for line in lines[self._top : self._top + room]]
        return [*shown, *[Text()] * (room - len(shown)), Text(), *below]

    def _setting_line(self, setting: Setting, index: int, width: int, look: Look) -> Text:
        value = getattr(self.board.source.section, setting.field)
        chosen = index == self.cursor
        line = Text(no_wrap=True).append(f"  {setting.label:<{LABEL - 2}}", style=look.dim)
        words = SHAPE_WORDS[value] if setting.field == "shape" else {"\t": "tab"}.get(value, value)
        if value == "auto":
            found = self._found(setting.field)
            words = f"{found}, as found" if found else "found out from the file"
        if not setting.values and not value:
            words = {"records": "found out from the file"}.get(setting.field, "e types one, such as {{ column }}")
        words = drawable(printable(words, 400), look)
        marks = ("< ", " >") if chosen and setting.values else ("  ", "  ") if chosen else ("", "")
        line.append(marks[0], style=look.accent).append(words, style="" if value in ("auto", "") else look.strong)
        line.append(marks[1], style=look.accent)
        return self._selected(line, chosen, width, look)

    def _found(self, field: str) -> str:
        found = self._known
        if found is None:
            return ""
        if field == "format":
            return found.format
        if field == "shape" and found.reading is not None:
            return SHAPE_WORDS.get(found.reading.shape, found.shape)
        return ""

    def _column_line(self, column: Column, index: int, names: int, width: int, look: Look) -> Text:
        chosen = index + len(self._settings()) == self.cursor
        part = next((name for name, each in self._mapping().items() if column.name in _names(each)), "")
        line = Text(no_wrap=True).append("  " + fit(drawable(printable(column.name, 60), look), names, look))
        words = f"< {part or 'not used'} >" if chosen and self._roles() else part or look.glyph("·", "-")
        line.append("  ").append(fit(words, PART, look), style=look.accent if part else look.dim)
        line.append(f"  {right(share_text(round(column.filled_share, 3)), 6, look)}  ", style=look.dim)
        line.append(drawable(printable(str(column.example), 200), look), style="" if part else look.dim)
        return self._selected(line, chosen, width, look)

    def _selected(self, line: Text, chosen: bool, width: int, look: Look) -> Text:
        if chosen:
            line.truncate(width, pad=True)
            line.stylize_before(look.selected)
        return line

    def _understood(self, width: int, height: int, look: Look) -> list[Text]:
        """The cursor's part in a sentence, and how the first row is understood now, in at most so many lines."""
        state = self.board.source
        lines = [Text(drawable(self._sentence(), look), style=look.dim)]
        if state.preview is None:
            return [*lines, Text(f"reading it so {look.ellipsis}", style=look.dim), Text()]
        if isinstance(state.preview, Problem):
            return [*lines, *list(problem_line(state.preview, look).wrap(self.app.console, width))[:3]]
        if not state.preview.samples:
            why = str(state.preview.rejected[0]) if state.preview.rejected else "there are no rows"
            return [*lines, Text(drawable(f"{look.glyph('✗', 'x')} {why}", look), style=look.bad), Text()]
        for part in _most_telling(parts_of(state.preview.samples[0].content), height - 1):
            text = printable(" ".join(part.text[:400].split()), 300)
            mark = look.glyph("●", "*") if part.learnt else look.glyph("○", "o")
            line = Text(f"{mark} {part.word:<10} ", style=look.accent if part.learnt else look.dim)
            lines.append(cut(line.append(drawable(text, look)), width, look))
        return lines + [Text()] * (3 - len(lines))

    def _sentence(self) -> str:
        if self.setting is not None or not self._columns():
            return "The first row, as it is understood:"
        column = self._columns()[self.cursor - len(self._settings())]
        part = next((name for name, each in self._mapping().items() if column.name in _names(each)), "")
        role = next((role for role in self._roles() if role.name == part), None)
        missing = [role.name for role in self._roles() if role.required and not self._mapping().get(role.name)]
        if role is not None:
            return f"{part}: {role.sentence}"
        return f"This column is not used. Still to point at: {', '.join(missing)}." if missing else "It is not used."


def _most_telling(parts: Sequence[RowPart], count: int) -> list[RowPart]:
    """So many parts of a row around the first that is learnt: what stands before it, and what comes after."""
    learnt = next((index for index, part in enumerate(parts) if part.learnt), 0)
    first = max(0, min(learnt - 1, len(parts) - count))
    return list(parts[first if learnt >= count else 0 :][:count])


def _names(columns: str) -> list[str]:
    return [each.strip() for each in columns.split(",") if each.strip()]
