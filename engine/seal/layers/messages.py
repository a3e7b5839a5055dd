"""The launcher's two messages, as JSON. Read and written with the C half of the json module alone: its Python half
needs regular expressions and enumerations, whose import takes as long as the seal (7 ms, measured)."""

from __future__ import annotations

from _json import encode_basestring_ascii, make_scanner
from types import SimpleNamespace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from engine.seal.request import SealRequest


class _Reading:
    """What the C scanner asks of its decoder."""

    strict = True
    object_hook = object_pairs_hook = None
    parse_float = float
    parse_int = int
    parse_constant = float
    memo: dict[str, str] = {}  # noqa: RUF012


def request_from(text: str) -> SealRequest:
    """A SealRequest as its to_json writes it. `text` is our own process's: what is none is a bug."""
    values, _ = make_scanner(_Reading())(text, 0)  # type: ignore[arg-type]
    request = SimpleNamespace(**values)
    return request  # type: ignore[return-value]


def as_json(value: object) -> str:
    """Of None, bool, int, float, str, and lists, tuples and dicts of them."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, str):
        return encode_basestring_ascii(value)
    if isinstance(value, dict):
        return "{" + ",".join(f"{as_json(str(key))}:{as_json(each)}" for key, each in value.items()) + "}"
    assert isinstance(value, list | tuple), value
    return "[" + ",".join(map(as_json, value)) + "]"
