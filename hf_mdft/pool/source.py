"""A model that was found: its files in a folder, or in the cache for a Hub repo pinned to a commit."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from huggingface_hub import ModelCard
from huggingface_hub.utils import filter_repo_objects
from peft.utils import CONFIG_NAME, SAFETENSORS_WEIGHTS_NAME

from ..architectures.identity import functional_config
from ..core.errors import HubError, InputError
from ..core.hashing import file_hash
from ..core.reference import ModelReference
from ..core.regular import check_regular, check_whole
from ..hub.conversion import find_conversion
from ..hub.download import RepoFile, cached_folder, fetch_files, fetch_weights, known_files
from .weight_files import INDEX_FILE, NoSafetensors, weight_names


logger = logging.getLogger(__name__)

PROCESSOR_FILES = [
    "preprocessor_config.json",
    "processor_config.json",
    "tokenizer*.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "vocab.txt",
    "merges.txt",
    "*spiece.model",
    "sentencepiece*.model",
    "tokenizer.model",
]
CARD = "README.md"

SMALL_FILES = ["config.json", CONFIG_NAME, INDEX_FILE, CARD, *PROCESSOR_FILES]
"""What is fetched before a model is checked: never weights, never code."""

FOLDER_IDENTITY = "folder 2"
"""Version of how a folder's revision is computed."""


@dataclass(frozen=True)
class ModelSource:
    """A model and where its files are. Weights of a Hub repo come when they are fetched; everything small is there.

    Args:
        reference: The model, pinned.
        folder: Folder of its files.
        weights: Its weight files and their sizes in bytes.
        checksums: SHA-256 of its weight files, where the Hub states it.
        token: Token that found it.
    """

    reference: ModelReference
    folder: Path
    weights: Mapping[str, int] = field(default_factory=dict, compare=False)
    checksums: Mapping[str, str | None] = field(default_factory=dict, compare=False, repr=False)
    token: str | bool | None = field(default=None, compare=False, repr=False)

    def __str__(self) -> str:
        return self.reference.id

    def card(self) -> dict[str, Any]:
        """Metadata of its model card; empty where there is none that can be read."""
        with contextlib.suppress(Exception):  # a stranger's file: the parser raises whatever it stumbles over
            return ModelCard.load(self.folder / CARD).data.to_dict()
        return {}

    @property
    def license(self) -> str | None:
        """The license that its card states."""
        return self.card().get("license")

    @classmethod
    def resolve(
        cls,
        spec: str | Path | ModelReference,
        token: str | bool | None = None,
        revision: str | None = None,
        patterns: Sequence[str] = SMALL_FILES,
        adapters: bool = False,
    ) -> ModelSource:
        """Find a folder, or a Hub repo (`"owner/name"` or `"owner/name@revision"`).

        A branch or tag is resolved once, to the commit that is stored. Files go to the cache that all Hugging Face
        libraries share; only config, processor, tokenizer and card are fetched here.

        Args:
            spec: The folder or repo.
            token, revision: As in transformers.
            patterns: Files that are fetched.
            adapters: Whether it may be a PEFT adapter.

        Raises:
            InputError: No such folder or repo, no access, or no safetensors in it.
        """
        reference = ModelReference.parse(spec, revision)
        if not reference.is_local:
            return cls._from_hub(reference, token, patterns, adapters)
        folder = Path(reference.id)
        for file in folder.iterdir():
            if not file.is_dir():
                check_regular(file, f"{spec}: {file.name}")
        names = weight_names(folder, [file.name for file in folder.iterdir()], str(spec), adapters=adapters)
        sizes = {name: check_whole(folder / name, f"{spec}: {name}").st_size for name in names}
        return cls(ModelReference(reference.id, _fingerprint(folder, names)), folder, sizes, token=token)

    @classmethod
    def _from_hub(
        cls,
        reference: ModelReference,
        token: str | bool | None,
        patterns: Sequence[str] = SMALL_FILES,
        adapters: bool = False,
    ) -> ModelSource:
        try:
            folder, files = fetch_files(reference, patterns, token)
        except InputError:
            # A commit never changes, so a repo that has vanished may still be here.
            folder, files = cached_folder(reference) if reference.is_commit else None, None
            if folder is None:
                raise
        pinned = ModelReference(reference.id, folder.name)
        cut_off = files is None
        if cut_off:
            files = {file.name: RepoFile(file.stat().st_size) for file in folder.iterdir() if file.exists()}
            _check_whole(pinned, reference.where, files, patterns)
        try:
            names = weight_names(folder, files, reference.where, reference.spec, adapters)
        except InputError as error:
            reason = error
            if cut_off:
                reason = NoSafetensors(
                    f"{reference.where}: the local cache does not have its weights, and the Hub cannot be reached: "
                    "check the connection"
                )
            elif not isinstance(error, NoSafetensors):
                raise
            return cls._converted(pinned, reference, reason, token, patterns)
        found = {name: files[name] for name in names}
        sizes = {name: file.size for name, file in found.items()}
        checksums = {name: file.sha256 for name, file in found.items()}
        return cls(pinned, folder, sizes, checksums, token)

    @classmethod
    def _converted(
        cls,
        pinned: ModelReference,
        given: ModelReference,
        reason: NoSafetensors,
        token: str | bool | None,
        patterns: Sequence[str],
    ) -> ModelSource:
        """The safetensors copy that the Hub's conversion bot has made of a repo, where there is one."""
        try:
            found = find_conversion(pinned, token)
        except HubError:
            found = None  # the missing weights are what the user must know
        if found is None:
            raise reason
        if found.commit is None:
            raise NoSafetensors(
                f"{reason}; or give {given.id}@{found.ref}, the conversion bot's pull request, if it holds the same "
                "model: it was made from another commit"
            ) from reason
        logger.warning(
            "%s: no safetensors there; those of the conversion bot's pull request (%s) are used, pinned at %s",
            given.where,
            found.ref,
            found.commit[:12],
        )
        return cls._from_hub(ModelReference(given.id, found.commit), token, patterns)

    @classmethod
    def from_reference(
        cls, reference: ModelReference, token: str | bool | None = None, adapters: bool = False
    ) -> ModelSource:
        """The model that a reference pins; `adapters` as in `resolve`.

        Raises:
            InputError: It is gone, or a folder's weights or config changed since the reference was made.
        """
        advice = "; it is pinned by this pool: put it back, or change its id and revision where the pool is stored"
        if not reference.is_local:
            try:
                return cls._from_hub(reference, token, adapters=adapters)
            except InputError as error:
                raise type(error)(f"{error}{advice}") from error
        source = cls.resolve(reference.id, token, adapters=adapters)
        if source.reference.revision != reference.revision:
            raise InputError(
                f"{source}: its weights or config changed since this pool was pinned "
                f"({str(reference.revision)[:19]}... then, {source.reference.revision[:19]}... now); restore them or "
                "build the pool again"
            )
        return source

    @property
    def is_adapter(self) -> bool:
        """Whether it is a PEFT adapter on a base."""
        return SAFETENSORS_WEIGHTS_NAME in self.weights

    def is_copy_of(self, other: ModelSource) -> bool:
        """Whether it computes what another one does: the same commit or folder, or, in another repo, weights with the
        same checksums and a config that says the same."""
        if self.reference.is_same(other.reference):
            return True
        if not self.checksums or not all(self.checksums.values()) or self.checksums != other.checksums:
            return False
        return _identity(self.folder, self.weights) == _identity(other.folder, other.weights)

    def missing(self) -> dict[str, int]:
        """Weight files that are not here yet, and their sizes."""
        return {name: size for name, size in self.weights.items() if not (self.folder / name).is_file()}

    def fetch(self) -> None:
        """Download the weights that are not here yet, and compare them with the Hub's checksums.

        Raises:
            InputError: They cannot be had whole; nothing broken is left in the cache.
        """
        for name in self.missing():
            for again in (True, False):
                file = fetch_weights(self.reference, name, self.token)
                wanted = self.checksums.get(name)
                if wanted is None or file_hash(file) == wanted:
                    break
                blob = file.resolve()
                file.unlink(missing_ok=True)
                blob.unlink(missing_ok=True)
                if not again:
                    raise InputError(
                        f"{self.reference.where}: {name} does not match its checksum, twice; it was removed from the "
                        "cache: try again later, or take another revision"
                    )


def _check_whole(pinned: ModelReference, where: str, available: Collection[str], patterns: Sequence[str]) -> None:
    """Whether the local cache has all small files of a commit that the Hub cannot be asked about.

    Raises:
        InputError: One that it is known to have is missing.
    """
    known = known_files(pinned)
    if known is None:  # another program's work
        if not any("processor" in name for name in available) and "preprocessor_config.json" in patterns:
            logger.warning(
                "%s: the Hub cannot be reached, and the local cache has no image processor of it; whether there is "
                "one is not known",
                where,
            )
        return
    own = [name for name in known if "/" not in name and name != CARD]
    missing = sorted(set(filter_repo_objects(own, allow_patterns=list(patterns))) - set(available))
    if missing:
        raise InputError(
            f"{where}: the local cache does not have {missing[0]}, and the Hub cannot be reached: check the connection"
        )


def _identity(folder: Path, weights: Collection[str]) -> list[Any]:
    """What a folder's configs say about what its weights compute."""
    found: list[Any] = [functional_config(folder)]
    if SAFETENSORS_WEIGHTS_NAME in weights:
        found.append((folder / CONFIG_NAME).read_text(encoding="utf-8", errors="replace"))
    return found


def _fingerprint(folder: Path, weights: list[str]) -> str:
    """What makes a folder this model: its weights, and the parts of its config that change the function."""
    config = json.dumps([FOLDER_IDENTITY, *_identity(folder, weights)], sort_keys=True)
    digest = hashlib.sha256(config.encode())
    for name in weights:
        digest.update(bytes.fromhex(file_hash(folder / name)))
    return f"sha256:{digest.hexdigest()}"
