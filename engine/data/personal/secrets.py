"""Keys, tokens and passwords: by the forms that services give theirs, and by what they are assigned to."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator

from engine.data.personal.found import Personal

_PRIVATE_KEY = re.compile(
    r"-----BEGIN (?P<what>(?:[A-Z0-9]{1,12} ){0,3}PRIVATE KEY(?: BLOCK)?)-----"
    r"(?:[^-]|-(?!----)){16,20000}-----END (?P=what)-----"
)
_KNOWN = re.compile(
    r"(?<![A-Za-z0-9_-])(?:"
    r"(?:AKIA|ASIA|ABIA|ACCA)[A-Z2-7]{16}"  # Amazon
    r"|gh[pousr]_[A-Za-z0-9]{36,255}|github_pat_[A-Za-z0-9_]{50,255}|glpat-[\w-]{20,64}"
    r"|xox[abeoprs]-[A-Za-z0-9-]{20,255}|xapp-\d-[A-Za-z0-9-]{20,255}"  # Slack
    r"|sk-(?:ant-|proj-|svcacct-|or-v1-)?[A-Za-z0-9_-]{20,255}"  # OpenAI, Anthropic
    r"|(?:sk|rk|pk)_(?:live|test)_[A-Za-z0-9]{16,255}|whsec_[A-Za-z0-9]{20,255}"  # Stripe
    r"|AIza[\w-]{35}|ya29\.[\w-]{20,255}|GOCSPX-[\w-]{20,64}"  # Google
    r"|hf_[A-Za-z0-9]{30,64}|npm_[A-Za-z0-9]{36}|pypi-[\w-]{50,255}|dop_v1_[a-f0-9]{64}"
    r"|SG\.[\w-]{16,64}\.[\w-]{16,64}|key-[0-9a-f]{32}|SK[0-9a-f]{32}|shp(?:at|ca|pa|ss)_[a-fA-F0-9]{32}"
    r"|\d{8,10}:AA[\w-]{33}"  # Telegram
    r"|eyJ[\w-]{10,2000}\.eyJ[\w-]{10,4000}\.[\w-]{16,1000}"  # a JSON web token
    r")(?![A-Za-z0-9_])"
)
# One of these is in every token of a known form: looking for them takes a hundredth of the time.
_KNOWN_STARTS = (
    "AKIA",
    "ASIA",
    "ABIA",
    "ACCA",
    "gh",
    "github_pat_",
    "glpat-",
    "xox",
    "xapp-",
    "sk-",
    "_live_",
    "_test_",
    "whsec_",
    "AIza",
    "ya29.",
    "GOCSPX-",
    "hf_",
    "npm_",
    "pypi-",
    "dop_v1_",
    "SG.",
    "key-",
    "SK",
    "shp",
    ":AA",
    "eyJ",
)
_ASSIGNED_NAMES = ("pass", "pwd", "secret", "key", "token", "contrase", "kennwort")
_IN_URL = re.compile(r"\b[a-z][a-z0-9+.-]{1,20}://([^\s/:@\"'<>]{1,64}):([^\s/@\"'<>]{3,128})@[\w.-]+")
_BEARER = re.compile(r"(?i)\b(?:bearer|authorization:\s*basic)\s+([A-Za-z0-9+/._~-]{20,2000}=*)")
_ASSIGNED = re.compile(
    r"(?i)(?P<name>(?:passw(?:or)?d|passwort|passphrase|pwd|secret|api[_-]?key|apikey|access[_-]?key"
    r"|auth[_-]?token|access[_-]?token|refresh[_-]?token|token|account[_-]?key|client[_-]?secret|private[_-]?key"
    r"|encryption[_-]?key|contrase[ñn]a|mot de passe|kennwort))(?P<more>[\w.-]{0,24})[\"']?\s{0,3}"
    r"(?:=>?|:=?|\bis\b|\bist\b|\best\b|\bes\b)\s{0,3}(?P<quote>[\"'`]?)(?P<value>[^\s\"'`,;<>]{6,256})(?P<end>.?)"
)
_NAMES_OF_OTHERS = re.compile(
    r"(?i)hash|digest|checksum|sha\d|md5|length|count|limit|_?ids?$|type|name|file|path|url|field|policy|max|min|usage|"
    r"expir|budget|_?size|num|per|index|class|model|valid|reset|len"
)
_PLACEHOLDER = re.compile(
    r"(?i)^(?:your|my|the|some|example|change|replace|insert|enter|todo|none|null|true|false|xxx|test|dummy|sample|fake)"
    r"[\w-]*$|^(.)\1+$|\.\.\.|xxxx|\*\*\*|^\$|^%|^env|^os\.|^process\.|^config|^settings|^self\.|^args\.|^request"
    r"|^\[|^\{|password$|^[A-Z]+(?:_[A-Z]+)+$"
)
_CODE = re.compile(r"[()\[\]{}|\\]|->|::|^[a-z_]+\.[a-z_.]+$")
_TOKEN_LIKE = re.compile(r"(?i)token|key|secret")
# Bits a character: words and repeated signs lie below, drawn ones above. "hunter2!" has 3.0, "aaaa1111" has 1.
_PASSWORD_ENTROPY, _TOKEN_ENTROPY = 2.5, 3.0
_TOKEN_CHARACTERS = 12


def find_secrets(text: str) -> Iterator[Personal]:
    if "PRIVATE KEY" in text:
        for match in _PRIVATE_KEY.finditer(text):
            yield Personal(match.start(), match.end(), "private_key")
    for match in _KNOWN.finditer(text) if any(map(text.__contains__, _KNOWN_STARTS)) else ():
        if _entropy(match.group()) >= _TOKEN_ENTROPY and "xxxx" not in match.group().lower():
            yield Personal(match.start(), match.end(), "secret")
    if "://" in text and "@" in text:
        for match in _IN_URL.finditer(text):
            if _classes(match[2]) > 1 and not _PLACEHOLDER.search(match[2]):
                yield Personal(match.start(2), match.end(2), "secret")
    small = text.lower()
    for match in _BEARER.finditer(text) if "bearer" in small or "basic" in small else ():
        if _classes(match[1]) >= 2 and _entropy(match[1]) >= _TOKEN_ENTROPY:
            yield Personal(match.start(1), match.end(1), "secret")
    for match in _ASSIGNED.finditer(text) if any(map(small.__contains__, _ASSIGNED_NAMES)) else ():
        if _is_secret(match):
            end = match.end("value")
            if not match["quote"]:
                end -= len(match["value"]) - len(match["value"].rstrip(".?:)"))
            yield Personal(match.start("value"), end, "secret")


def _is_secret(match: re.Match[str]) -> bool:
    value = match["value"]
    if not match["quote"]:
        value = value.rstrip(".?:)")
    if len(value) < 6 or _NAMES_OF_OTHERS.search(match["more"]) or _PLACEHOLDER.search(value):
        return False
    if match["quote"] and match["end"] != match["quote"]:  # words in quotation marks: a sentence about passwords
        return False
    if "public" in match.string[max(0, match.start() - 12) : match.start()].lower():
        return False
    # Drawn by chance, all but one token in ten thousand have a digit; names of variables seldom do.
    if _CODE.search(value) or match["end"] == "(" or not any(map(str.isdigit, value)):
        return False
    if _TOKEN_LIKE.search(match["name"]):
        return len(value) >= _TOKEN_CHARACTERS and _classes(value) >= 2 and _entropy(value) >= _TOKEN_ENTROPY
    return _classes(value) >= 2 and _entropy(value) >= _PASSWORD_ENTROPY


def _classes(text: str) -> int:
    """How many of lower case, upper case, digits and signs it has."""
    return (
        any(map(str.islower, text))
        + any(map(str.isupper, text))
        + any(map(str.isdigit, text))
        + any(not character.isalnum() for character in text)
    )


def _entropy(text: str) -> float:
    """Bits a character, by how often each occurs in it."""
    total = len(text)
    return -sum(count / total * math.log2(count / total) for count in Counter(text).values())
