"""Text that may be shown: one line, without secrets, and nothing that turns a terminal or a page around."""

from __future__ import annotations

import re
import unicodedata


LONGEST = 4000
"""Characters of a line that is shown."""

USER = re.compile(r"(?<=://)(?<!hf://)(?<!hdfs://)[^\s'\",]*@")
"""Name and password in an address; they may hold `/` and `@`. Those of the Hub and of Hadoop hold revisions there."""

QUERY = re.compile(r"(?P<address>\w+://[^\s?'\"]*)\?[^\s'\"),]*")
"""What follows an address's question mark: signatures of private files."""

TOKEN = re.compile(r"\bhf_[A-Za-z0-9_]{6,}")

TURNING = re.compile("[\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")
"""Letters that change the direction of writing, or begin a line."""


def without_secrets(text: str) -> str:
    """Text without names, passwords and signatures of addresses, and without Hub tokens."""
    text = QUERY.sub(r"\g<address>", USER.sub("", text))
    return TOKEN.sub("hf_...", text)


def is_plain(text: str) -> bool:
    """Whether all of a text is seen as it is read: no control characters, line breaks or changes of direction."""
    return not TURNING.search(text) and not any(unicodedata.category(letter) in ("Cc", "Cs") for letter in text)


def one_line(text: str) -> str:
    """Text on one line that shows what would not be seen, and is cut where it is very long."""
    line = " ".join(text.split())
    shown = "".join(letter if is_plain(letter) else f"\\u{ord(letter):04x}" for letter in line)
    return shown if len(shown) <= LONGEST else f"{shown[:LONGEST]} ..."
