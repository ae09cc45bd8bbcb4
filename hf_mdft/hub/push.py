"""One commit for each push: all or nothing."""

from __future__ import annotations

import fnmatch
import logging
import os
import shutil
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from huggingface_hub import CommitInfo, HfApi
from huggingface_hub.errors import HfHubHTTPError

from ..core.errors import InputError
from .client import ATTEMPTS, call_hub


logger = logging.getLogger(__name__)

PLACEHOLDER = "OWNER/NAME"
"""Stands in a card for the repo's id until it is known: a push puts it in."""

NEVER = (".git", ".cache", "*.bin", "*.pt", "*.pth", "*.pkl", "*.ckpt")
"""What is never pushed: files that can run code, and those of tools."""

IN_PROGRESS = "checkpoint-*"
"""Folders of a `Trainer`, which are not pushed either. (A task may be called so, and its head.)"""


def push_folder(
    source: Path | Callable[[Path], None],
    repo_id: str,
    *,
    private: bool | None = None,
    revision: str | None = None,
    create_pr: bool = False,
    commit_message: str | None = None,
    token: str | bool | None = None,
    files: Sequence[str] | None = None,
    replaces: Sequence[str] = (),
) -> CommitInfo:
    """Push a folder to a Hub repo (created if need be) in one commit.

    Files go up first and count for nothing until the commit, so an interrupted push leaves the repo as it was; pushing
    again skips what is there already.

    Args:
        source: A folder, or a function that writes one.
        repo_id: `"owner/name"`, or `"name"` for one's own.
        private, revision, create_pr, commit_message, token: As in transformers' `push_to_hub`; a branch that does not
            exist is made.
        files: Files of the folder that go up; `None` is all but `NEVER` and `IN_PROGRESS`. What stays behind is named
            in the log.
        replaces: Patterns of files in the repo that go, in the same commit, where the folder does not have them.

    Returns:
        The commit, whose text is its address.

    Raises:
        InputError: Not logged in, no write access, the Hub refuses or cannot be reached; nothing was committed.
    """
    api, safe = HfApi(token=token), "nothing was committed"

    def send(folder: Path) -> CommitInfo:
        return api.upload_folder(
            repo_id=repo_id,
            folder_path=folder,
            revision=revision,
            create_pr=create_pr,
            commit_message=commit_message or "Upload with hf_mdft",
            delete_patterns=list(replaces) or None,
        )

    with tempfile.TemporaryDirectory() as temporary:
        work = Path(temporary) / "repo"
        if callable(source):
            source(work)
        else:
            # Links, not copies: a model may be large, and only its card is changed.
            shutil.copytree(source, work, copy_function=_link, ignore=_left_out)
            if files is not None:
                _keep(work, files)
        if "/" not in repo_id:
            repo_id = f"{call_hub(api.whoami, repo_id, safe, writing=True)['name']}/{repo_id}"
        if call_hub(lambda: _create(api, repo_id, private), repo_id, safe, writing=True):
            safe = f"{safe} (the repo is new and empty)"
        elif private is not None and call_hub(lambda: api.model_info(repo_id), repo_id, safe).private != private:
            logger.warning("%s exists, and stays %s", repo_id, "public" if private else "private")
        if revision is not None and not revision.startswith("refs/pr"):
            call_hub(lambda: api.create_branch(repo_id, branch=revision, exist_ok=True), repo_id, safe, writing=True)
        card = work / "README.md"
        if card.is_file():
            text = put_repo_id(card.read_text(encoding="utf-8"), repo_id, None if create_pr else revision)
            card.unlink()
            card.write_text(text, encoding="utf-8")
        safe = f"{safe}; push again, it goes on where it stopped"
        if create_pr:
            safe = "the pull request may be open all the same: look before you push again"
        try:
            # A pull request that was opened, but whose answer was lost, must not be opened twice.
            return call_hub(lambda: send(work), repo_id, safe, writing=True, attempts=1 if create_pr else ATTEMPTS)
        except ValueError as error:
            if isinstance(error, InputError):
                raise
            raise InputError(f"{repo_id}: {' '.join(str(error).split())}; nothing was committed") from error


def put_repo_id(card: str, repo_id: str, revision: str | None = None) -> str:
    """The card with the repo's own id (and the branch it is on) in place of the placeholder."""
    if revision in (None, "main"):
        return card.replace(PLACEHOLDER, repo_id)
    card = card.replace(f'"{PLACEHOLDER}"', f'"{repo_id}", revision="{revision}"')
    return card.replace(PLACEHOLDER, f"{repo_id}@{revision}")


def _create(api: HfApi, repo_id: str, private: bool | None) -> bool:
    """Make the repo; whether it was not there."""
    try:
        api.create_repo(repo_id, private=private)
    except HfHubHTTPError as error:
        # Who may write to a repo, or open a pull request, need not be allowed to create one.
        exists = error.response.status_code == 409 or (
            error.response.status_code in (402, 403) and api.repo_exists(repo_id)
        )
        if not exists:
            raise
        return False
    return True


def _left_out(folder: str, names: list[str]) -> set[str]:
    in_progress = {name for name in fnmatch.filter(names, IN_PROGRESS) if os.path.isdir(os.path.join(folder, name))}
    return in_progress.union(*(fnmatch.filter(names, pattern) for pattern in NEVER))


def _keep(folder: Path, files: Sequence[str]) -> None:
    for path in sorted(path for path in folder.rglob("*") if not path.is_dir()):
        name = path.relative_to(folder).as_posix()
        if name not in files:
            logger.warning("%s is not pushed: it is no part of the result", name)
            path.unlink()


def _link(source: str, target: str) -> None:
    try:
        os.symlink(os.path.realpath(source), target)
    except OSError:  # where links need a privilege
        shutil.copyfile(source, target)
