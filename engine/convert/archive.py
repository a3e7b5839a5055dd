"""A file of torch.save, looked at from outside: how it is packed, and what its pickle would ask for. Runs none of it.

Since 1.6 it is a zip whose members are stored as they are: `NAME/data.pkl` says which tensors there are, `NAME/data/0`
and so on are their numbers. Before that it was one pickle after another, and then the numbers.
"""

from __future__ import annotations

import io
import pickletools
import zipfile
from pathlib import Path

from profiles.bounded_files import read_bytes
from profiles.problem import Problem, printable

# A thousand tensors take some 100 KB; the most that a model has is some 20,000.
_PICKLE_LIMIT_BYTES = 64 << 20
_OLD_PICKLE_BYTES = 16 << 20
_NAMED = 3
_SAFE_MODULES = ("torch", "collections", "numpy", "_codecs")

SAVE_AGAIN = "Have whoever made the file save it as safetensors."


def is_zip(path: Path) -> bool:
    """Whether it is of torch's present format. Raises Problem."""
    return read_bytes(path, 4) == b"PK\x03\x04"


def require_plain_zip(path: Path) -> None:
    """Raise Problem for a zip that torch.save did not write: torn, packed, without its pickle, or with a huge one."""
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        raise Problem(
            str(path), f"is cut off or damaged: {printable(error, 200)}", "Copy the file again; compare its size."
        ) from None
    if any(each.filename.endswith("/constants.pkl") for each in members):
        raise Problem(str(path), "is a TorchScript program, not weights", SAVE_AGAIN)
    # Mapped into memory, a packed member would be taken for its numbers.
    if packed := next((each for each in members if each.compress_type != zipfile.ZIP_STORED), None):
        raise Problem(
            f"{path}, member {printable(packed.filename)}", "is packed, which torch.save never does", SAVE_AGAIN
        )
    pickles = [each for each in members if each.filename.endswith("/data.pkl")]
    if len(pickles) != 1:
        raise Problem(str(path), "is a zip, and none that torch.save wrote (no data.pkl)", SAVE_AGAIN)
    if pickles[0].file_size > _PICKLE_LIMIT_BYTES:
        raise Problem(
            f"{path}, member {printable(pickles[0].filename)}",
            f"has {pickles[0].file_size:,} bytes; a model's needs no more than {_PICKLE_LIMIT_BYTES:,}",
            SAVE_AGAIN,
        )


def foreign_globals(path: Path) -> list[str]:
    """What the file's first pickle would import besides torch's own, such as "os.system", at most a few; read from its
    instructions without following one of them."""
    strings: list[str] = []
    found: dict[str, None] = {}
    try:
        for code, argument, _ in pickletools.genops(io.BytesIO(_first_pickle(path))):
            if code.name == "GLOBAL":
                # Protocol 2, which torch writes, names modules as Python 2 did.
                found[str(argument).replace(" ", ".").replace("__builtin__.", "builtins.")] = None
            elif code.name == "STACK_GLOBAL" and len(strings) > 1:
                found[".".join(strings[-2:])] = None
            elif isinstance(argument, str):
                strings = [*strings[-1:], argument]
    except (ValueError, OSError, KeyError, IndexError, zipfile.BadZipFile):
        pass  # damaged further on; what came before it stands
    return [printable(name) for name in found if name.partition(".")[0] not in _SAFE_MODULES][:_NAMED]


def _first_pickle(path: Path) -> bytes:
    if not is_zip(path):
        return read_bytes(path, _OLD_PICKLE_BYTES)
    with zipfile.ZipFile(path) as archive:
        name = next(each.filename for each in archive.infolist() if each.filename.endswith("/data.pkl"))
        return archive.read(name)
