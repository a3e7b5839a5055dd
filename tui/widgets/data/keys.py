"""The keys of the Data screen, and the views that they open."""

from __future__ import annotations

from tui.keys import Key
from tui.widgets.data.findings import ViewName

VIEWS: dict[ViewName, tuple[str, str]] = {
    "sample": ("s", "sample"),
    "xray": ("x", "x-ray"),
    "lengths": ("t", "lengths"),
    "columns": ("c", "columns"),
    "report": ("r", "report"),
    "mix": ("m", "mix"),
}
EVERYWHERE = ("take", "back", "fix", "warning", "model", "add", "next_view", *VIEWS)
CHOOSING = {"choose": ("take", "back", "find", "add_file", "hold_out"), "model": ("take", "back", "find")}

TITLES = {"choose": "choose what to learn from", "model": "whose tokens?"}

KEYS = (
    Key("enter", "take", "go on", "Go on with these files, read as they are here."),
    Key("escape", "back", "back", "Go back one step; from the first one, leave."),
    Key("slash", "find", "find", "Search the rows; in the choice of files, type a path or a few letters."),
    Key("space", "add_file", "add", "Learn from several files: add this one, or take it out."),
    Key("o", "hold_out", "hold out", "Never train on the highlighted file: measure by it."),
    Key("s", "sample", "sample", "See the rows as they are understood.", footer=False),
    Key("x", "xray", "x-ray", "See the row's tokens: what is learnt, masked, special and cut.", footer=False),
    Key("t", "lengths", "lengths", "See how long the rows are, and what a length cuts.", footer=False),
    Key("c", "columns", "columns", "Say how the file is read and which column is what.", footer=False),
    Key("r", "report", "report", "See copies, leaks, languages, classes and personal data.", footer=False),
    Key("m", "mix", "mix", "Share an epoch out between files; hold out, leave out, mask.", footer=False),
    Key("tab", "next_view", "next view", "The next of these views.", footer=False),
    Key("f", "fix", "fix", "Do what is proposed beside the warning."),
    Key("w", "warning", "next warning", "The next warning.", footer=False),
    Key("v", "filter", "show", "Show all rows, those set aside, long ones, those with personal data, or one class."),
    Key("b", "borders", "borders", "Show or hide where tokens end."),
    Key("less_than_sign,left,h", "less", "less", "The previous or smaller value; in the X-ray the previous row.",
        footer=False),
    Key("greater_than_sign,right,l", "more", "change", "The next or larger value; in the X-ray the next row.",
        sign="< >"),
    Key("e", "type", "type", "Type the value under the cursor."),
    Key("u", "reset", "undo", "Take back what was changed there.", footer=False),
    Key("W", "whole", "every row", "Make the report of every row, in the background."),
    Key("a", "add", "add", "Learn from another file as well, or hold one out."),
    Key("d", "remove", "remove", "Take the file under the cursor out."),
    Key("M", "model", "model", "Choose the model whose tokens are counted.", footer=False),
    Key("j,down", "down", "down", "Down.", footer=False, palette=False),
    Key("k,up", "up", "up", "Up.", footer=False, palette=False),
    Key("g,home", "first", "first", "To the first.", footer=False, palette=False),
    Key("G,end", "last", "last", "To the last.", footer=False, palette=False),
    Key("pagedown,ctrl+d", "page_down", "page down", "Scroll down.", footer=False, palette=False),
    Key("pageup,ctrl+u", "page_up", "page up", "Scroll up.", footer=False, palette=False),
)  # fmt: skip
