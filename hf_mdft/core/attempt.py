"""What is not worth losing a result for."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TypeVar


logger = logging.getLogger(__name__)

T = TypeVar("T")


def attempted(make: Callable[[], T], what: str) -> T | None:
    """What `make` gives; `None` and a warning where it fails, whatever the reason.

    Args:
        make: Makes something that stands beside a result: a figure, a page, a card.
        what: Names it.
    """
    try:
        return make()
    except Exception as error:  # hours of work must not end with a figure
        reason = " ".join(str(error).split())[:200]
        logger.warning("%s could not be made (%s: %s); everything else is there", what, type(error).__name__, reason)
        return None
