"""Values between our own processes, as bytes that are nothing but values: JSON, with arrays and byte strings behind it.

A process that reads what came from elsewhere may have been taken over by it, which its seal is there for. So what it
answers is never a pickle: reading one runs whatever its writer wants. What may come through are plain values,
collections, paths, arrays of numbers, and classes of ours that say how: dataclasses, a Problem, and what has a
`to_wire` and a `from_wire`.
"""

from __future__ import annotations

import json
import struct
from collections import Counter
from collections.abc import Callable
from dataclasses import fields, is_dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from profiles.problem import Problem

_LENGTH = struct.Struct("<Q")
# Where our classes are; nothing else is looked up by the name that came.
_PACKAGES = ("engine.data.", "engine.evaluate.", "profiles.")
_TAG = "$"
_ARRAY_KINDS = "biufSV"
"""numpy's kinds of numbers and bytes; of objects an array would be a pickle again."""


_NOT_PLAIN = (
    *(struct.error, ValueError, TypeError, KeyError, IndexError, AttributeError, RecursionError),
    *(ImportError, ArithmeticError),
)


class NotPlain(ValueError):
    """Bytes that are no such values, or name a class that may not come through."""


def to_bytes(value: Any) -> bytes:
    """Raises TypeError for what may not come through."""
    blobs: list[bytes | memoryview] = []
    text = json.dumps(_plain(value, blobs), separators=(",", ":")).encode("ascii")
    parts: list[bytes | memoryview] = [_LENGTH.pack(len(text)), text]
    for blob in blobs:
        parts += [_LENGTH.pack(len(blob)), blob]
    return b"".join(parts)


def from_bytes(data: bytes) -> Any:
    """What `to_bytes` was given. Raises NotPlain."""
    try:
        text, at = _piece(data, 0)
        blobs: list[memoryview] = []
        while at < len(data):
            blob, at = _piece(data, at)
            blobs.append(blob)
        return _value(json.loads(bytes(text)), blobs)
    except NotPlain:
        raise
    except _NOT_PLAIN as error:
        raise NotPlain(f"no plain values: {type(error).__name__}") from None


def _piece(data: bytes, at: int) -> tuple[memoryview, int]:
    (length,) = _LENGTH.unpack_from(data, at)
    begins = at + _LENGTH.size
    if begins + length > len(data):
        raise NotPlain("cut off")
    return memoryview(data)[begins : begins + length], begins + length


def _plain(value: Any, blobs: list[bytes | memoryview]) -> Any:
    kind = type(value)
    if value is None or kind in (bool, int, float, str):
        return value
    if kind is list:
        return [_plain(each, blobs) for each in value]
    if kind is tuple:
        return {_TAG: "tuple", "of": [_plain(each, blobs) for each in value]}
    if kind in (dict, Counter):
        pairs = [[_plain(name, blobs), _plain(each, blobs)] for name, each in value.items()]
        return {_TAG: "dict" if kind is dict else "counter", "of": pairs}
    if kind in (set, frozenset):
        return {_TAG: kind.__name__, "of": [_plain(each, blobs) for each in value]}
    if isinstance(value, Path):
        return {_TAG: "path", "of": str(value)}
    if kind is bytes:
        blobs.append(value)
        return {_TAG: "bytes", "of": len(blobs) - 1}
    if kind.__module__ == "numpy":
        if kind.__name__ != "ndarray":  # a single number
            return _plain(value.item(), blobs)
        if value.dtype.kind not in _ARRAY_KINDS or value.dtype.names is not None:
            raise TypeError(f"an array of {value.dtype} does not go through between processes")
        blobs.append(value.tobytes())
        return {_TAG: "array", "of": len(blobs) - 1, "dtype": value.dtype.str, "shape": list(value.shape)}
    if isinstance(value, Problem):
        return {_TAG: _name_of(kind), "of": [_plain(each, blobs) for each in (value.where, value.what, value.fix)]}
    if hasattr(kind, "to_wire"):
        return {_TAG: _name_of(kind), "of": _plain(value.to_wire(), blobs)}
    if is_dataclass(kind):
        named = {each.name: _plain(getattr(value, each.name), blobs) for each in fields(value) if each.init}
        return {_TAG: _name_of(kind), "of": named}
    raise TypeError(f"{kind.__module__}.{kind.__qualname__} does not go through between processes")


def _value(plain: Any, blobs: list[memoryview]) -> Any:
    if isinstance(plain, list):
        return [_value(each, blobs) for each in plain]
    if not isinstance(plain, dict):
        return plain
    kind, of = plain[_TAG], plain["of"]
    if kind in _COLLECTIONS:
        return _COLLECTIONS[kind](_value(each, blobs) for each in of)
    if kind in ("dict", "counter"):
        pairs = {_value(name, blobs): _value(each, blobs) for name, each in of}
        return Counter(pairs) if kind == "counter" else pairs
    if kind == "path":
        return Path(of)
    if kind == "bytes":
        return bytes(blobs[of])
    if kind == "array":
        import numpy as np  # here, since most of what is sent has none

        dtype = np.dtype(plain["dtype"])
        if dtype.kind not in _ARRAY_KINDS:
            raise NotPlain("an array of objects")
        # A copy, so that it can be written to as the one that was sent.
        return np.frombuffer(blobs[of], dtype).reshape(plain["shape"]).copy()
    known = _class(kind)
    if issubclass(known, Problem):
        return known(*(_value(each, blobs) for each in of))
    if hasattr(known, "from_wire"):
        return known.from_wire(_value(of, blobs))
    return known(**{name: _value(each, blobs) for name, each in of.items()})


_COLLECTIONS: dict[str, Callable[..., Any]] = {"tuple": tuple, "set": set, "frozenset": frozenset}


def _name_of(kind: type) -> str:
    name = f"{kind.__module__}:{kind.__qualname__}"
    assert kind.__module__.startswith(_PACKAGES), name
    return name


def _class(name: str) -> Any:
    """The class of ours that is called so. Raises NotPlain for any other thing."""
    module, _, kind = name.partition(":")
    if not module.startswith(_PACKAGES):
        raise NotPlain(f"{module!r} is none of our modules")
    found = getattr(import_module(module), kind)
    may_come = isinstance(found, type) and found.__module__ == module
    if not may_come or not (is_dataclass(found) or issubclass(found, Problem) or hasattr(found, "from_wire")):
        raise NotPlain(f"{name!r} may not come through")
    return found
