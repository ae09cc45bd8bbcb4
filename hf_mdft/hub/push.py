"""One commit for each push: all or nothing."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

from huggingface_hub import HfApi
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalTokenNotFoundError
from huggingface_hub.utils import httpx

from ..errors import InputError


def push_folder(
    source: Path | Callable[[Path], None],
    repo_id: str,
    *,
    private: bool | None = None,
    revision: str | None = None,
    create_pr: bool = False,
    commit_message: str | None = None,
    token: str | bool | None = None,
) -> str:
    """Push a folder to a Hub repo (created if need be) in one commit.

    Args:
        source: A folder, or a function that writes one.
        repo_id: `"owner/name"`.
        private, revision, create_pr, commit_message, token: As in transformers' `push_to_hub`.

    Returns:
        The commit's address.

    Raises:
        InputError: Not logged in, no write access, the Hub refuses or cannot be reached; nothing was committed.
    """
    api = HfApi(token=token)
    with tempfile.TemporaryDirectory() as temporary:
        if callable(source):
            source(Path(temporary))
            source = Path(temporary)
        try:
            repo_id = api.create_repo(repo_id, private=private, exist_ok=True).repo_id
            commit = api.upload_folder(
                repo_id=repo_id,
                folder_path=source,
                revision=revision,
                create_pr=create_pr,
                commit_message=commit_message or "Upload with hf_mdft",
            )
        except (LocalTokenNotFoundError, HFValidationError) as error:
            raise InputError(f"{repo_id}: {str(error).splitlines()[0]}") from error
        except HfHubHTTPError as error:
            status = error.response.status_code
            raise InputError(
                f"{repo_id}: the Hub refused the push ({status}); log in with write access ('hf auth login'); "
                "nothing was committed"
            ) from error
        except httpx.HTTPError as error:
            raise InputError(
                f"{repo_id}: the Hub cannot be reached ({error}); nothing was committed, push again"
            ) from error
    return commit.commit_url
