"""Where a model comes from: a folder, or a Hub repo pinned to a commit."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from huggingface_hub import HfApi, ModelCard, ModelInfo, hf_hub_download, snapshot_download
from huggingface_hub.errors import (
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
)
from huggingface_hub.utils import filter_repo_objects, tqdm

from ..core.errors import InputError
from ..core.hashing import file_hash
from ..hub.client import TIMEOUT, HTTPError, ask


INDEX_FILE = "model.safetensors.index.json"
PROCESSOR_FILES = [
    "preprocessor_config.json",
    "processor_config.json",
    "tokenizer*.json",
    "special_tokens_map.json",
    "vocab.json",
    "merges.txt",
]
SMALL_FILES = ["config.json", INDEX_FILE, "README.md", *PROCESSOR_FILES]
"""What is fetched before a model is checked: never weights, never code."""

logger = logging.getLogger(__name__)

COMMIT = re.compile(r"[0-9a-f]{40}")


class _Silent(tqdm):
    """No bar: for files that take no time."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **{**kwargs, "disable": True})


@dataclass(frozen=True)
class ModelSource:
    """A model and what pins it. Of a Hub repo, the weights come when they are fetched; everything small is there.

    Args:
        id: Hub repo id, or absolute path of a folder.
        revision: Commit sha of the repo, or `sha256:...` over the folder's weight files.
        folder: Where the files are.
        weights: Its weight files and their sizes in bytes.
        checksums: SHA-256 of its weight files, where the Hub tells it.
        token: That found it.
    """

    id: str
    revision: str
    folder: Path
    weights: Mapping[str, int] = field(default_factory=dict, compare=False)
    checksums: Mapping[str, str | None] = field(default_factory=dict, compare=False, repr=False)
    token: str | bool | None = field(default=None, compare=False, repr=False)

    def __str__(self) -> str:
        return self.id

    @property
    def name(self) -> str:
        """For people, and for others: the Hub id, or the folder without where it lies."""
        return self.folder.name if self.is_local else self.id

    @property
    def is_local(self) -> bool:
        """Whether it is a folder of this machine, which others cannot find."""
        return Path(self.id).is_absolute()

    def card(self) -> dict[str, Any]:
        """Metadata of its model card; empty where there is none that can be read."""
        with contextlib.suppress(Exception):  # a stranger's file: the parser raises whatever it stumbles over
            return ModelCard.load(self.folder / "README.md").data.to_dict()
        return {}

    def reference(self) -> dict[str, str]:
        """JSON form, enough to find the same model again."""
        return {"id": self.id, "revision": self.revision}

    @classmethod
    def resolve(
        cls,
        spec: str | Path,
        token: str | bool | None = None,
        revision: str | None = None,
        patterns: Sequence[str] = SMALL_FILES,
    ) -> ModelSource:
        """Find a folder, or a Hub repo (`"owner/name"` or `"owner/name@revision"`).

        A branch or tag is resolved once, to the commit that is stored. Files go to the cache that all Hugging Face
        libraries share; only config, processor, tokenizer and card are fetched here.

        Raises:
            InputError: No such folder or repo, no access, or no safetensors in it.
        """
        path = Path(spec).expanduser()
        if path.is_dir():
            path = path.resolve()
            names = weight_names(path, [file.name for file in path.iterdir()], str(spec))
            files = [path / name for name in names]
            return cls(str(path), _fingerprint(files), path, {file.name: file.stat().st_size for file in files})
        if path.is_absolute() or str(spec).startswith("."):
            raise InputError(f"{spec}: no such folder; give a model folder or a Hub id such as owner/name@revision")
        repo_id, _, named = str(spec).partition("@")
        return cls._from_hub(repo_id, revision or named or None, token, patterns)

    @classmethod
    def _from_hub(
        cls, repo_id: str, revision: str | None, token: str | bool | None, patterns: Sequence[str] = SMALL_FILES
    ) -> ModelSource:
        where = f"{repo_id}@{revision}" if revision else repo_id
        pinned = COMMIT.fullmatch(revision or "") is not None
        try:
            folder, files = fetch_files(repo_id, revision, token, patterns)
        except InputError:
            # A commit never changes, so a repo that has vanished may still be here.
            folder, files = cached_folder(repo_id, revision) if pinned else None, None
            if folder is None:
                raise
        if files is None:
            files = {file.name: RepoFile(file.stat().st_size) for file in folder.iterdir()}
            if not any(name.endswith(".safetensors") for name in files):
                raise InputError(
                    f"{where}: the local cache does not have its weights, and the Hub cannot be reached: check the "
                    "connection"
                )
        found = {name: files[name] for name in weight_names(folder, files, where)}
        sizes = {name: file.size for name, file in found.items()}
        checksums = {name: file.sha256 for name, file in found.items()}
        return cls(repo_id, folder.name, folder, sizes, checksums, token)

    @classmethod
    def from_reference(cls, reference: Mapping[str, str], token: str | bool | None = None) -> ModelSource:
        """The model that a reference pins.

        Raises:
            InputError: It is gone, or a folder's weights changed since the reference was made.
        """
        name, revision = reference["id"], reference["revision"]
        advice = "; it is pinned by this pool: put it back, or change its id and revision where the pool is stored"
        if not Path(name).is_absolute():
            try:
                return cls._from_hub(name, revision, token)
            except InputError as error:
                raise InputError(f"{error}{advice}") from error
        source = cls.resolve(name, token)
        if source.revision != revision:
            raise InputError(
                f"{source}: the weights changed since this pool was pinned ({revision[:19]}... then, "
                f"{source.revision[:19]}... now); restore them or build the pool again"
            )
        return source

    def missing(self) -> dict[str, int]:
        """Weight files that are not here yet, and their sizes."""
        return {name: size for name, size in self.weights.items() if not (self.folder / name).is_file()}

    def fetch(self) -> None:
        """Download the weights that are not here yet, and compare them with the Hub's checksums.

        Raises:
            InputError: They cannot be had whole; nothing broken is left in the cache.
        """
        where = f"{self.id}@{self.revision[:12]}"
        for name in self.missing():
            for again in (True, False):
                file = Path(
                    ask(
                        lambda name=name: hf_hub_download(self.id, name, revision=self.revision, token=self.token),
                        where,
                        "what has come so far is kept and goes on from there",
                    )
                )
                if self._is_whole(file):
                    break
                blob = file.resolve()
                file.unlink(missing_ok=True)
                blob.unlink(missing_ok=True)
                if not again:
                    raise InputError(
                        f"{where}: {name} does not match its checksum, twice; it was removed from the cache: try "
                        "again later, or take another revision"
                    )

    def _is_whole(self, file: Path) -> bool:
        wanted = self.checksums.get(file.name)
        return wanted is None or file_hash(file) == wanted


class RepoFile(NamedTuple):
    """Of a file in a Hub repo: its size in bytes, and its SHA-256 where the Hub tells it (of large files)."""

    size: int
    sha256: str | None = None


_LOOKED_UP: dict[tuple[str, ...], dict[str, RepoFile]] = {}
"""Files of commits that this process has fetched its small files from: they never change."""


def fetch_files(
    repo_id: str, revision: str | None, token: str | bool | None, patterns: Sequence[str]
) -> tuple[Path, dict[str, RepoFile] | None]:
    """Some files of a Hub repo at one commit, from the cache that all Hugging Face libraries share where it has them.

    Args:
        patterns: Of the names of the files to fetch.

    Returns:
        The folder that the files are in, named by the commit, and all of the repo's files; none where the
        Hub cannot be reached and the cache must do.

    Raises:
        InputError: They cannot be had; the message says why and what to do.
    """
    where = f"{repo_id}@{revision}" if revision else repo_id
    known = (repo_id, revision or "", *patterns)
    if known in _LOOKED_UP and (folder := cached_folder(repo_id, revision)):
        return folder, _LOOKED_UP[known]
    info = _look_up(repo_id, revision, token, where)
    if info is None:
        return cached_folder(repo_id, revision), None
    files = {file.rfilename: RepoFile(file.size or 0, file.lfs.sha256 if file.lfs else None) for file in info.siblings}

    def get(name: str, commit: str | None) -> Path:
        return Path(hf_hub_download(repo_id, name, revision=commit, token=token, tqdm_class=_Silent))

    wanted = list(filter_repo_objects(files, allow_patterns=list(patterns)))
    for name in wanted:
        file = ask(lambda name=name: get(name, info.sha), where)
    if not wanted:
        raise InputError(f"{where}: the repo has no {patterns[0]}; give another one")
    if revision != info.sha:
        # Under the branch's name too, so that it is found when the Hub is out of reach.
        ask(lambda: get(wanted[-1], revision), where)
    _LOOKED_UP[(repo_id, info.sha, *patterns)] = files
    return file.parents[wanted[-1].count("/")], files


def _look_up(repo_id: str, revision: str | None, token: str | bool | None, where: str) -> ModelInfo | None:
    """The repo's commit and files; none where the Hub stays out of reach, but the cache has something of it."""
    api = HfApi(token=token)
    try:
        return ask(
            lambda: api.model_info(repo_id, revision=revision, files_metadata=True, timeout=TIMEOUT),
            where,
        )
    except InputError as error:
        offline = isinstance(error.__cause__, OfflineModeIsEnabled)
        unreachable = isinstance(error.__cause__, HTTPError) and not isinstance(error.__cause__, HfHubHTTPError)
        if not (offline or unreachable) or cached_folder(repo_id, revision) is None:
            raise
        if unreachable and not COMMIT.fullmatch(revision or ""):
            logger.warning("%s: the Hub cannot be reached; what the local cache last had of it is used", where)
        return None


def cached_folder(repo_id: str, revision: str | None) -> Path | None:
    """Folder of the shared cache with what is there of a repo at a commit, or at what a branch last was."""
    try:
        return Path(snapshot_download(repo_id, revision=revision, allow_patterns=[], local_files_only=True))
    except (LocalEntryNotFoundError, HFValidationError):
        return None


def weight_names(folder: Path, available: Iterable[str], where: str) -> list[str]:
    """Names of a model's safetensors files, in order.

    Args:
        folder: Holds the index, where the weights are sharded.
        available: Names of the files that the model has.

    Raises:
        InputError: There are none, or a shard is missing. Other formats are never read: they can run code.
    """
    available = set(available)
    if INDEX_FILE in available:
        try:
            names = sorted(set(json.loads((folder / INDEX_FILE).read_text())["weight_map"].values()))
        except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
            raise InputError(f"{where}: {INDEX_FILE} is damaged; take another revision") from error
        for name in names:
            if name not in available:
                raise InputError(f"{where}: shard '{name}' of {INDEX_FILE} is missing; take another revision")
        return names
    if "model.safetensors" not in available:
        raise InputError(
            f"{where}: no model.safetensors; weights are read from safetensors only (for a Hub repo without them, its "
            "automatic conversion may be at '@refs/pr/N', see the repo's pull requests)"
        )
    return ["model.safetensors"]


def _fingerprint(files: list[Path]) -> str:
    digest = hashlib.sha256()
    for file in files:
        digest.update(bytes.fromhex(file_hash(file)))
    return f"sha256:{digest.hexdigest()}"
