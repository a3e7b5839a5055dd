"""Make the malformed inputs, or show what a person sees for each.

python tests/data/bad/make_bad.py FOLDER     write them all into FOLDER
python tests/data/bad/make_bad.py --table    name and what is seen, measured now
python tests/data/bad/make_bad.py --update   keep that as table.tsv, which the tests compare with
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
TABLE = HERE / "table.tsv"
if __name__ == "__main__":
    sys.path[:0] = [str(HERE), str(HERE.parents[2])]

import cases  # noqa: E402

from engine.data.files import open_rows  # noqa: E402
from engine.data.preview import preview  # noqa: E402
from engine.data.rows import RejectedRow  # noqa: E402
from engine.data.source import Source  # noqa: E402
from profiles.problem import Problem, printable  # noqa: E402

_REASONS_TOLD = 3


def seen(path: Path) -> str:
    """What a person is told of the input at `path`, in one line."""
    if path.name in cases.MEANINGS:
        return _seen_of_meaning(path)
    rows, rejected = 0, []
    try:
        with open_rows(Source(path)) as reader:
            for row in reader:
                rows += 1
                if isinstance(row, RejectedRow):
                    rejected.append(row)
            notes = reader.notes()
    except Problem as problem:
        after = f" (after {rows:,} rows)" if rows else ""
        return printable(f"refused: {problem.what}{after}. {problem.fix}", 400)
    told = "; ".join(str(row) for row in rejected[:_REASONS_TOLD])
    read = f"{rows - len(rejected):,} rows read" + (f", {len(rejected):,} set aside: {told}" if rejected else "")
    return printable(f"{read}." + "".join(f" Note: {note}." for note in notes), 400)


def _seen_of_meaning(path: Path) -> str:
    try:
        found = preview(Source(path, **cases.MEANINGS[path.name][1]))
        if (problem := found.unclear or found.refusal(0.5)) is not None:
            raise problem
    except Problem as problem:
        return printable(f"refused: {problem.what}. {problem.fix}", 400)
    told = "; ".join(str(row) for row in found.rejected[:_REASONS_TOLD])
    notes = "".join(f" Note: {note}." for note in found.notes)
    aside = f", {found.reject_count:,} set aside: {told}" if told else ""
    return printable(f"{found.usable_rows:,} rows read{aside}.{notes}", 400)


def table() -> list[tuple[str, str]]:
    """Each input's name and what is seen of it."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ["FINETUI_HOME"] = str(folder / "home")
        return [(printable(each), line_of(folder, each)) for each in cases.NAMES]


def line_of(folder: Path, name: str) -> str:
    path = cases.make(folder, name)
    line = seen(path).replace(str(folder), "FOLDER")
    if path.is_file() and not path.is_symlink():
        path.unlink()  # so that the large ones do not lie about together
    return line


def kept() -> dict[str, str]:
    return dict(line.split("\t") for line in TABLE.read_text(encoding="utf-8").splitlines())


def main(arguments: list[str]) -> None:
    match arguments:
        case ["--table"]:
            for name, line in table():
                print(f"{name:32} {line}")
        case ["--seen", path]:
            print(seen(Path(path)))
        case ["--update"]:
            known = kept() if TABLE.exists() else {}
            root = os.geteuid() == 0
            lines = {
                name: known.get(name, line) if root and name in cases.NEEDS_A_USER else line for name, line in table()
            }
            TABLE.write_text("".join(f"{name}\t{line}\n" for name, line in lines.items()), encoding="utf-8")
        case [folder] if not folder.startswith("-"):
            Path(folder).mkdir(parents=True, exist_ok=True)
            for name in cases.NAMES:
                cases.make(Path(folder), name)
        case _:
            sys.exit(__doc__)


if __name__ == "__main__":
    main(sys.argv[1:])
