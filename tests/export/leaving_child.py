"""python leaving_child.py WHAT RUN --to FORM --into FOLDER: leaves, in an export's place, one with WHAT planted in it.

It says besides that it left another file, of which there is none.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import sys
import time
from pathlib import Path

run, into = Path(sys.argv[2]), Path(sys.argv[sys.argv.index("--into") + 1])
made = into


def said(**fields: object) -> None:
    print(json.dumps(fields), flush=True)


def still_writing() -> None:
    """A process that nobody waits for, and that holds the weights open."""
    ready, told = os.pipe()
    if os.fork() == 0:
        os.setsid()
        with (into / "adapter_model.safetensors").open("r+b"):
            os.write(told, b"x")
            os.dup2(os.open(os.devnull, os.O_RDWR), 1)
            time.sleep(120)
        os._exit(0)
    os.read(ready, 1)


def planted(name: str, text: str = "x") -> None:
    (into / name).parent.mkdir(exist_ok=True)
    (into / name).write_text(text)


def instead(make: object) -> None:
    into.rename(into.with_name("aside"))
    make()  # type: ignore[operator]


def socket_file() -> None:
    os.chdir(into)  # its whole name may be too long
    socket.socket(socket.AF_UNIX).bind("socket.txt")


def too_large() -> None:
    planted("more.txt")
    os.truncate(into / "more.txt", 1 << 40)


WAYS = {
    "nothing": lambda: None,
    "a link": lambda: (into / "notes.txt").symlink_to("/etc/passwd"),
    "a link to a folder": lambda: (into / "1_Pooling").symlink_to("/etc"),
    "a hard link": lambda: os.link(into / "README.md", into.parent / "kept"),
    "a pipe": lambda: os.mkfifo(into / "pipe.txt"),
    "a socket": socket_file,
    "set-id": lambda: (into / "README.md").chmod(0o4755),
    "code": lambda: planted("modeling_llama.py"),
    "a path of Python's": lambda: planted("site.pth"),
    "a pickle": lambda: planted("pytorch_model.bin"),
    "a hidden file": lambda: planted(".gitattributes"),
    "a hidden text": lambda: planted(".a.txt"),
    "a control character": lambda: planted("a\x1b[2J.txt"),
    "a folder": (into / "code").mkdir,
    "a file in a folder": lambda: planted("1_Pooling/evil.py"),
    "named code": lambda: planted("config.json", json.dumps({"nested": 1, "auto_map": {"AutoModel": "evil.Model"}})),
    "a module": lambda: planted("modules.json", json.dumps([{"type": "subprocess.Popen", "path": ""}])),
    "no JSON": lambda: planted("config.json", "{"),
    "no weights": lambda: planted("model.safetensors", "\x80\x02a pickle of a longer kind than a header's length"),
    "too large": too_large,
    "very many": lambda: [planted(f"{number}.txt") for number in range(2_001)],
    "a link in its place": lambda: instead(lambda: into.symlink_to(run / "outputs" / "adapter")),
    "a file in its place": lambda: instead(lambda: into.write_text("x")),
    "no folder": lambda: instead(lambda: None),
    "still writing": still_writing,
    "no words": lambda: os.write(1, b"\xff" * 100_000),
    "odd words": lambda: said(kind="progress", detail=[], done="x", total=None),
}

shutil.copytree(run / "outputs" / "adapter", into)
(into / "README.md").write_text("# A card\n")
(into / "README.md").chmod(0o600)
WAYS[sys.argv[1]]()
said(kind="finished", path=str(into), files={"lies.txt": {"bytes": 1, "sha256": "0" * 64}})
