"""Files of Hub repos at one commit, in the cache that all Hugging Face libraries share."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from huggingface_hub import HfApi, ModelInfo, hf_hub_download, snapshot_download
from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError
from huggingface_hub.utils import filter_repo_objects, tqdm

from ..core.cache import key_of, remember, remembered
from ..core.errors import HubOffline, HubUnreachable, InputError
from ..core.reference import ModelReference
from .client import TIMEOUT, call_hub


logger = logging.getLogger(__name__)

Token = str | bool | None


class RepoFile(NamedTuple):
    """A file in a Hub repo: its size in bytes, and its SHA-256 where the Hub states it (for large files)."""

    size: int
    sha256: str | None = None


KIND = "repo-files"
"""Folder of the cache with the names of the files of commits."""


class _Silent(tqdm):
    """No bar: for files that take no time."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **{**kwargs, "disable": True})


_LOOKED_UP: dict[tuple[str, ...], dict[str, RepoFile]] = {}
"""Files of commits that this process has fetched its small files from: they never change."""


def fetch_files(
    model: ModelReference, patterns: Sequence[str], token: Token = None
) -> tuple[Path, dict[str, RepoFile] | None]:
    """Some files of a Hub repo, downloaded where the cache does not have them.

    Args:
        model: A repo; its revision is resolved to a commit.
        patterns: Patterns of the names of the files to fetch.
        token: As in transformers.

    Returns:
        The folder that the files are in, named by the commit, and all of the repo's files; `None` where the Hub
        cannot be reached and the cache must do.

    Raises:
        HubError: They cannot be had; the message has the reason and what to do.
    """
    known = (model.id, model.revision or "", *patterns)
    if known in _LOOKED_UP and (folder := cached_folder(model)):
        return folder, _LOOKED_UP[known]
    info = _look_up(model, token)
    if info is None:
        return cached_folder(model), None
    files = {file.rfilename: RepoFile(file.size or 0, file.lfs.sha256 if file.lfs else None) for file in info.siblings}

    def get(name: str, commit: str | None) -> Path:
        return Path(hf_hub_download(model.id, name, revision=commit, token=token, tqdm_class=_Silent))

    wanted = list(filter_repo_objects(files, allow_patterns=list(patterns)))
    for name in wanted:
        file = call_hub(lambda name=name: get(name, info.sha), model.where)
    if not wanted:
        raise InputError(f"{model.where}: the repo has no {patterns[0]}; give another one")
    if model.revision != info.sha:
        # Under the branch's name too, so that it is found when the Hub is out of reach.
        call_hub(lambda: get(wanted[-1], model.revision), model.where)
    _LOOKED_UP[(model.id, info.sha, *patterns)] = files
    remember(KIND, key_of(model.id, info.sha), sorted(files))
    return file.parents[wanted[-1].count("/")], files


def known_files(model: ModelReference) -> list[str] | None:
    """Names of all files of a commit, where the Hub was once asked for it; else `None`."""
    return remembered(KIND, key_of(model.id, model.revision))


def _look_up(model: ModelReference, token: Token) -> ModelInfo | None:
    """The repo's commit and files; `None` where the Hub stays out of reach, but the cache has something of it."""
    api = HfApi(token=token)
    try:
        return call_hub(
            lambda: api.model_info(model.id, revision=model.revision, files_metadata=True, timeout=TIMEOUT),
            model.where,
        )
    except HubUnreachable as error:
        if cached_folder(model) is None:
            raise
        if not isinstance(error, HubOffline) and not model.is_commit:
            logger.warning("%s: the Hub cannot be reached; its last state in the local cache is used", model.where)
        return None


def cached_folder(model: ModelReference) -> Path | None:
    """Folder of the shared cache with what is there of a repo at a commit, or at what a branch last was."""
    try:
        return Path(snapshot_download(model.id, revision=model.revision, allow_patterns=[], local_files_only=True))
    except (LocalEntryNotFoundError, HFValidationError):
        return None


def fetch_weights(model: ModelReference, name: str, token: Token = None) -> Path:
    """One large file of a repo at a commit, with a progress bar; a download that was cut off goes on.

    Raises:
        HubError: It cannot be had.
    """
    return Path(
        call_hub(
            lambda: hf_hub_download(model.id, name, revision=model.revision, token=token),
            model.where,
            "what has come so far is kept and goes on from there",
        )
    )
