"""Where a model comes from: a folder, or a Hub repo pinned to a commit."""

from __future__ import annotations

import functools
import hashlib
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from ..errors import InputError


PROCESSOR_FILES = [
    "preprocessor_config.json",
    "processor_config.json",
    "tokenizer*",
    "special_tokens_map.json",
    "vocab.json",
    "merges.txt",
]
WANTED_FILES = ["config.json", "model*.safetensors", "model.safetensors.index.json", "README.md", *PROCESSOR_FILES]


@dataclass(frozen=True)
class ModelSource:
    """A model that lies on this machine, and what pins it.

    Args:
        id: Hub repo id, or absolute path of a folder.
        revision: Commit sha of the repo, or `sha256:...` over the folder's weight files.
        folder: Where the files are.
    """

    id: str
    revision: str
    folder: Path

    def __str__(self) -> str:
        return self.id

    def reference(self) -> dict[str, str]:
        """JSON form, enough to find the same model again."""
        return {"id": self.id, "revision": self.revision}

    @classmethod
    def resolve(cls, spec: str | Path, token: str | bool | None = None) -> ModelSource:
        """Find a folder, or download a Hub repo (`"owner/name"` or `"owner/name@revision"`).

        A branch or tag is resolved once, to the commit that is stored. Downloads go to the cache that all Hugging
        Face libraries share; only configs, safetensors, processor, tokenizer and card are fetched.

        Raises:
            InputError: No such folder or repo, no access, or no safetensors in it.
        """
        path = Path(spec).expanduser()
        if path.is_dir():
            path = path.resolve()
            return cls(str(path), _fingerprint(weight_files(path, str(spec))), path)
        if path.is_absolute() or str(spec).startswith("."):
            raise InputError(f"{spec}: no such folder; give a model folder or a Hub id such as owner/name@revision")
        repo_id, _, revision = str(spec).partition("@")
        folder = download(repo_id, revision or None, token, WANTED_FILES)
        weight_files(folder, str(spec))
        return cls(repo_id, folder.name, folder)

    @classmethod
    def from_reference(cls, reference: dict[str, str], token: str | bool | None = None) -> ModelSource:
        """The model that a reference pins.

        Raises:
            InputError: It is gone, or a folder's weights changed since the reference was made.
        """
        if Path(reference["id"]).is_absolute():
            source = cls.resolve(reference["id"], token)
            if source.revision != reference["revision"]:
                raise InputError(
                    f"{source}: the weights changed since this pool was pinned ({reference['revision'][:19]}... then, "
                    f"{source.revision[:19]}... now); restore them or build the pool again"
                )
            return source
        return cls.resolve(f"{reference['id']}@{reference['revision']}", token)


def weight_files(folder: Path, where: str) -> list[Path]:
    """Safetensors files of a model folder, in order.

    Raises:
        InputError: There are none. Other formats are never read: they can run code.
    """
    files = sorted(folder.glob("model*.safetensors"))
    sharded = [file for file in files if "-of-" in file.name]
    files = sharded if (folder / "model.safetensors.index.json").is_file() else [f for f in files if f not in sharded]
    if not files:
        raise InputError(
            f"{where}: no model.safetensors; weights are read from safetensors only (for a Hub repo without them, its "
            "automatic conversion may be at '@refs/pr/N', see the repo's pull requests)"
        )
    return files


def _fingerprint(files: list[Path]) -> str:
    digest = hashlib.sha256()
    for file in files:
        stat = file.stat()
        digest.update(_file_hash(str(file), stat.st_size, stat.st_mtime_ns))
    return f"sha256:{digest.hexdigest()}"


@functools.lru_cache(maxsize=1024)
def _file_hash(path: str, size: int, modified: int) -> bytes:
    with open(path, "rb") as file:
        digest = hashlib.sha256()
        while block := file.read(1 << 20):
            digest.update(block)
        return digest.digest()


def download(repo_id: str, revision: str | None, token: str | bool | None, patterns: list[str] | None = None) -> Path:
    """Folder with a Hub repo's files at one commit (the folder's name), from the shared cache where they are there.

    Raises:
        InputError: It cannot be had; the message says why and what to do.
    """
    where = f"{repo_id}@{revision}" if revision else repo_id
    try:
        return Path(snapshot_download(repo_id, revision=revision, allow_patterns=patterns, token=token))
    except HFValidationError as error:
        raise InputError(f"{where}: neither a folder here nor a valid Hub id (owner/name)") from error
    except GatedRepoError as error:
        raise InputError(
            f"{where}: gated repo; accept its terms on the Hub and log in with 'hf auth login'"
        ) from error
    except RepositoryNotFoundError as error:
        raise InputError(
            f"{where}: no such folder here and no such repo on the Hub, or it is private: check the name, or log in "
            "with 'hf auth login'"
        ) from error
    except RevisionNotFoundError as error:
        raise InputError(f"{where}: the repo has no such branch, tag or commit") from error
    except LocalEntryNotFoundError as error:
        raise InputError(
            f"{where}: no such folder here, not in the local cache, and the Hub cannot be reached; check the path or "
            "the connection"
        ) from error
    except HfHubHTTPError as error:
        raise InputError(f"{where}: the Hub answered {error.response.status_code}; try again later") from error
