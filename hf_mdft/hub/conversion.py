"""The Hub's own safetensors copies of repos that hold other weights: pull requests of its conversion bot."""

from __future__ import annotations

from typing import NamedTuple

from huggingface_hub import HfApi

from ..core.cache import key_of, remember, remembered
from ..core.errors import HubUnreachable
from ..core.reference import ModelReference
from .client import call_hub


AUTHOR, TITLE = "SFconvertbot", "Adding `safetensors` variant of this model"
"""Exactly these, as transformers demands: anybody may open a pull request."""

MEMORY = "conversions"


class Conversion(NamedTuple):
    """A conversion pull request: its reference, and its commit where it was made from the wanted one."""

    ref: str
    commit: str | None


def find_conversion(model: ModelReference, token: str | bool | None = None) -> Conversion | None:
    """The open conversion pull request of a repo, that of the model's own commit where there is one.

    Args:
        model: A repo at a commit.
        token: As in transformers.

    Returns:
        `None` where there is none. Its `commit` is `None` where it was made from another commit than the model's: its
        weights may be other ones. What was found for a commit is remembered, for when the Hub is out of reach.

    Raises:
        HubError: The Hub cannot be asked.
    """
    key = key_of(model.id, model.revision)
    api, other = HfApi(token=token), None
    try:
        found = call_hub(
            lambda: list(
                api.get_repo_discussions(
                    model.id, author=AUTHOR, discussion_type="pull_request", discussion_status="open"
                )
            ),
            model.where,
        )
    except HubUnreachable:
        if known := remembered(MEMORY, key):
            return Conversion(*known)
        raise
    for request in found:
        if (request.author, request.title, request.status) != (AUTHOR, TITLE, "open") or not request.is_pull_request:
            continue
        ref = request.git_reference
        head, *parents = call_hub(lambda ref=ref: api.list_repo_commits(model.id, revision=ref), model.where)
        if parents and parents[0].commit_id == model.revision:
            remember(MEMORY, key, [ref, head.commit_id])
            return Conversion(ref, head.commit_id)
        other = other or Conversion(ref, None)
    return other
