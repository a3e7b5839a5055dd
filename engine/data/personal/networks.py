"""E-mail, IP and hardware addresses."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator

from engine.data.personal.found import Personal, before

_EMAIL = re.compile(
    r"(?<![\w.+@/%'-])[^\W_][\w.%+'-]{0,63}@(?:[^\W_](?:[\w-]{0,61}[^\W_])?\.){1,8}([^\W\d_]{2,24}|xn--[a-z0-9-]{2,40})"
    r"(?![\w@-])"
)
# image@2x.png; react@latest.js
_FILE_ENDING = re.compile("png|jpe?g|gif|svg|webp|ico|bmp|pdf|js|ts|css|html|py|json|ya?ml|toml|txt|md|zip", re.I)
_IPV4 = re.compile(r"(?<![\w.+-])(?<!\w/)(?:\d{1,3}\.){3}\d{1,3}(?![\w]|\.\d|-[a-z]|/\d{1,2}\b)")
_IPV6 = re.compile(r"(?<![\w:.])(?:[0-9A-Fa-f]{1,4}:){2,7}(?::?[0-9A-Fa-f]{1,4}){1,6}(?![\w:])")
# Four numbers with dots are a version more often than an address, where one of these stands on the line before them.
_NOT_IP = re.compile(
    r"\bv(?:ersions?|er)?\b|releases?|firmware|build|section|chapter|clause|article|§|updat|upgrad|downgrad|python|chrome|driver"
    r"|\boid\b|figure|table|theorem|[<>=~^]=\s*$"
)
# Sections and versions have small numbers; of all addresses one in 4,000 has four such.
_SMALL = 32
_MAC = re.compile(r"(?<![\w:-])(?:[0-9A-Fa-f]{2}([:-]))(?:[0-9A-Fa-f]{2}\1){4}[0-9A-Fa-f]{2}(?![\w:-])")


def find_emails(text: str) -> Iterator[Personal]:
    if "@" not in text:
        return
    for match in _EMAIL.finditer(text):
        is_repository = text.startswith(("git@", "hg@", "svn@"), match.start()) and text[match.end() :][:1] in ":/"
        if not is_repository and not _FILE_ENDING.fullmatch(match[1]):
            yield Personal(match.start(), match.end(), "email")


def find_network_addresses(text: str) -> Iterator[Personal]:
    """Public IP addresses (private ones, such as 192.168.0.1, are everybody's), and hardware addresses."""
    for match in _IPV4.finditer(text) if text.count(".") > 2 else ():
        numbers = map(int, match.group().split("."))
        if max(numbers) >= _SMALL and _is_public(match.group()) and not _NOT_IP.search(before(text, match.start())):
            yield Personal(match.start(), match.end(), "ip")
    if text.count(":") < 5:  # the fewest that a hardware address has, or an IPv6 address that is worth finding
        return
    for match in _IPV6.finditer(text):
        if _is_public(match.group()):
            yield Personal(match.start(), match.end(), "ip")
    for match in _MAC.finditer(text):
        octets = set(re.split("[:-]", match.group().lower()))
        if len(octets) > 2:  # not 00:00:00:00:00:00, nor a time with all parts alike
            yield Personal(match.start(), match.end(), "mac")


def _is_public(text: str) -> bool:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return False
    return address.is_global and not address.is_multicast
