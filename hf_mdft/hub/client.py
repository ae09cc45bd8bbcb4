"""Calls to the Hub: repeated where a fault may pass, and one clear line where it will not."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping
from typing import TypeVar

from huggingface_hub import constants
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    LocalTokenNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from ..core.errors import HubError, HubOffline, HubUnreachable


T = TypeVar("T")

HTTPError = HfHubHTTPError.__bases__[0]
"""Base of the errors of the HTTP library that the client uses, whichever that is."""

CLIENT_ERRORS = (
    HTTPError, HFValidationError, EntryNotFoundError, LocalTokenNotFoundError, OfflineModeIsEnabled, OSError,
    RuntimeError,
)  # fmt: skip
PASSING = (408, 425, 429, 500, 502, 503, 504)
ATTEMPTS = 4
PATIENCE = 60.0
"""Seconds after which a call is not repeated again: the client may have been patient within it already."""
LONGEST_WAIT = 300.0
TIMEOUT = float(constants.HF_HUB_ETAG_TIMEOUT)
"""Seconds without an answer after which a request is given up and repeated; set with `HF_HUB_ETAG_TIMEOUT`."""


def call_hub(
    call: Callable[[], T], where: str, safe: str | None = None, writing: bool = False, attempts: int = ATTEMPTS
) -> T:
    """Call the client; where the Hub is busy, broken or cut off, wait as long as it demands and call again.

    The client itself repeats some of its requests and not others (looking up a repo, reading a header, creating a
    repo, committing, a connection that breaks within a file); here every one is.

    Args:
        call: Safe to repeat.
        where: The repo, for the message.
        safe: What the user may rely on after a failure, for the message.
        writing: Whether the call needs write access, for the message.
        attempts: One for a call that is not safe to repeat.

    Raises:
        HubError: The Hub refuses; one line with the reason and what to do. `HubUnreachable` where it does not answer
            in any attempt, `HubOffline` where it must not be called.
    """
    start = time.monotonic()
    for attempt in range(1, attempts + 1):
        try:
            return call()
        except CLIENT_ERRORS as error:
            wait = _wait(error, attempt)
            if wait is None or attempt == attempts or time.monotonic() - start > PATIENCE:
                reason = f"{where}: {_explain(error, writing)}"
                raise _kind(error)(f"{reason}; {safe}" if safe else reason) from error
            time.sleep(wait)
    raise AssertionError("unreachable")


def _kind(error: BaseException) -> type[HubError]:
    cause = _cause(error)
    if isinstance(cause, OfflineModeIsEnabled):
        return HubOffline
    # The client's own errors for answers of the Hub are HTTP errors too.
    unreachable = isinstance(cause, HTTPError) and not isinstance(cause, HfHubHTTPError)
    return HubUnreachable if unreachable or isinstance(cause, LocalEntryNotFoundError) else HubError


def _cause(error: BaseException) -> BaseException:
    """What happened, where the client wraps it in 'not in the cache' or 'error while uploading'."""
    if isinstance(error, LocalEntryNotFoundError | RuntimeError) and error.__cause__ is not None:
        return _cause(error.__cause__)
    return error


def _status(error: BaseException) -> int | None:
    return error.response.status_code if isinstance(error, HfHubHTTPError) else None


def _wait(error: Exception, attempt: int) -> float | None:
    """Seconds until asking again makes sense; none where it does not."""
    cause = _cause(error)
    status = _status(cause)
    if status is not None:
        if status not in PASSING:
            return None
        wait = _demanded_wait(cause.response.headers) or 2.0 ** (attempt - 1)
        return wait if wait <= LONGEST_WAIT else None
    # The storage behind large files (hf_xet) raises its faults as a plain RuntimeError.
    if isinstance(cause, HTTPError | RuntimeError) or _is_short_file(cause):
        return 2.0 ** (attempt - 1)
    return None


def _demanded_wait(headers: Mapping[str, str]) -> float | None:
    """Seconds that the Hub demands to wait, by its own header or the standard one, and one more against rounding."""
    limit = re.search(r";\s*r=0\s*;\s*t=(\d+)", headers.get("RateLimit", ""))
    wanted = limit[1] if limit else headers.get("Retry-After", "")
    return float(wanted) + 1 if wanted.isdigit() else None


def _is_short_file(error: BaseException) -> bool:
    return isinstance(error, OSError) and "Consistency check failed" in str(error)


def _explain(error: Exception, writing: bool) -> str:
    cause = _cause(error)
    status = _status(cause)
    if isinstance(cause, OfflineModeIsEnabled):
        if writing:
            return "HF_HUB_OFFLINE is set: unset it to push"
        return "no such folder here, not in the local cache, and HF_HUB_OFFLINE is set: check the path, or unset it"
    if isinstance(cause, HFValidationError) and writing:
        return "no valid Hub id (owner/name; a branch is given with --revision)"
    if isinstance(cause, HFValidationError):
        return "neither a folder here nor a valid Hub id (owner/name)"
    if isinstance(cause, GatedRepoError):
        return "gated repo: accept its terms on its page and log in with 'hf auth login'"
    if isinstance(cause, RevisionNotFoundError):
        return "the repo has no such branch, tag or commit"
    if isinstance(cause, LocalTokenNotFoundError):
        return "not logged in: use 'hf auth login' or set HF_TOKEN"
    if writing and status in (401, 403, 404):
        return f"the Hub refused ({status}): log in with write access to this repo ('hf auth login')"
    if isinstance(cause, RepositoryNotFoundError):
        return "no such folder here and no such repo on the Hub, or it is private: check the name, or log in with " \
            "'hf auth login'"  # fmt: skip
    if status == 429:
        return "the Hub limits requests (429): wait some minutes, or log in for a higher limit"
    if status is not None and status >= 500:
        return f"the Hub is out of order ({status}): try again later"
    if status is not None:
        message = getattr(cause, "server_message", None) or f"status {status}"
        return f"the Hub refused ({' '.join(str(message).split())})"
    if isinstance(cause, HTTPError):
        reason = " ".join(str(cause).split()) or type(cause).__name__
        return f"the Hub cannot be reached ({reason}), and not all of it is in the local cache: check the connection"
    if isinstance(cause, LocalEntryNotFoundError):
        return "no such folder here, not in the local cache, and the Hub cannot be reached: check path or connection"
    if isinstance(cause, EntryNotFoundError):
        return f"a file is not there ({_first_line(cause)})"
    if _is_short_file(cause):
        return "a file came incomplete, again and again: check the connection"
    if isinstance(cause, OSError) and cause.strerror:
        advice = "give another folder" if writing else "free space, or set HF_HOME to another disk"
        return f"{cause.filename or 'the local cache'}: {cause.strerror}; {advice}"
    return f"the transfer failed ({_first_line(cause)})"


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).strip().splitlines()), "") or type(error).__name__
