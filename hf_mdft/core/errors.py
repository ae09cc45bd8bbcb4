"""Exceptions for bad input, and the words they are made of."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any

from .plain_text import one_line, without_secrets


class InputError(ValueError):
    """Bad input: the message is one line that names the file or repo, what is wrong and what to do, without secrets.

    The command line prints it without a traceback and exits with 2.
    """

    def __init__(self, message: str) -> None:
        super().__init__(one_line(without_secrets(message)))


class HubError(InputError):
    """The Hub refuses, or does not have what was requested."""


class HubUnreachable(HubError):
    """The Hub does not answer; what the local cache has may do."""


class HubOffline(HubUnreachable):
    """`HF_HUB_OFFLINE` is set."""


LISTED = 20
"""Known words that an error message lists."""


def suggest(word: str, known: Iterable[str]) -> str:
    """Ending of an error message: the nearest known word, or all of them, as far as a line holds them."""
    known = sorted(known)
    near = difflib.get_close_matches(word, known, n=1)
    if near:
        return f"did you mean '{near[0]}'?"
    more = f" and {len(known) - LISTED} more" if len(known) > LISTED else ""
    return f"known: {', '.join(known[:LISTED])}{more}."


def known(name: Any, names: Iterable[str], what: str) -> Any:
    """The name, where it is one of these.

    Raises:
        InputError: It is not; the nearest is suggested.
    """
    if name not in names:
        raise InputError(f"unknown {what} '{name}': {suggest(str(name), names)}")
    return name
