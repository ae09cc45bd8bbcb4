"""Opening a result folder, whatever it holds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import CommitInfo

from ..core.errors import InputError
from ..core.json_files import read_json
from ..core.reference import ModelReference
from ..hub import push_folder
from ..hub.download import fetch_files
from ..pool.published import PublishedPool, read_published
from .layout import ADAPTER_CONFIG, ADAPTER_WEIGHTS, CARD, HEADS, MANIFEST, OWN_HEADS, POOL
from .meta_model import MetaModel
from .result import RESULTS, Result
from .writing import SCHEMA


ADVICE = "give a run's 'meta' or 'specialists/TASK' folder"


@RESULTS.register("pool")
@dataclass(frozen=True)
class PoolFolder(Result):
    """A published pool.

    Args:
        pool: Its manifest.
    """

    label = "pool"

    pool: PublishedPool

    @classmethod
    def read(cls, folder: Path, content: Mapping[str, Any]) -> PoolFolder:
        return cls(folder, read_published(folder))

    def push(self, repo_id: str, form: str | None = None, **options: Any) -> CommitInfo:
        if form is not None:
            return super().push(repo_id, form, **options)
        return push_folder(self.folder, repo_id, files=self.files(), **options)

    def files(self) -> list[str]:
        return [POOL, CARD]


def open_result(source: str | Path) -> Result:
    """The result in a folder: a meta-model, a folded one, a specialist, a vision tower or a pool.

    Raises:
        InputError: It is none, or damaged; one line with the file and the reason.
    """
    folder = Path(source)
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; {ADVICE}")
    if (folder / POOL).is_file():
        return PoolFolder.read(folder, {})
    if not (folder / MANIFEST).is_file():
        raise InputError(f"{folder}: no result of a run (no {MANIFEST}); {ADVICE}")
    content = _manifest(folder)
    return RESULTS.get(content["kind"]).read(folder, content)


def _manifest(folder: Path) -> Mapping[str, Any]:
    content = read_json(folder / MANIFEST, str(folder))
    if not isinstance(content, Mapping) or content.get("schema") != SCHEMA:
        found = content.get("schema", 1) if isinstance(content, Mapping) else "?"
        raise InputError(
            f"{folder}: {MANIFEST} has schema {found}, this hf-mdft reads {SCHEMA}; make the result again with it"
        )
    kind = content.get("kind")
    if not isinstance(kind, str) or kind not in RESULTS:
        raise InputError(f"{folder}: {MANIFEST} is damaged (kind '{kind}'); make the result again")
    return content


def load_meta_model(source: str | Path, revision: str | None = None, token: str | bool | None = None) -> MetaModel:
    """A meta-model from a folder or the Hub.

    Args:
        source: A folder, `owner/name` or `owner/name@revision`.
        revision, token: As in transformers.

    Raises:
        InputError: It is no meta-model, or damaged; the message names the source.
    """
    reference = ModelReference.parse(source, revision)
    wanted = [MANIFEST, ADAPTER_CONFIG, ADAPTER_WEIGHTS, *(f"{where}/*.safetensors" for where in (HEADS, OWN_HEADS))]
    folder = Path(reference.id) if reference.is_local else fetch_files(reference, wanted, token)[0]
    try:
        if (folder / MANIFEST).is_file():  # of others, only the files that a meta-model has were fetched
            kind = RESULTS.get(_manifest(folder)["kind"])
            if not issubclass(kind, MetaModel):
                raise InputError(f"{source}: a {kind.label} is a plain model; load it with transformers")
        found = open_result(folder)
    except InputError as error:
        raise InputError(str(error).replace(str(folder), str(source))) from error
    if isinstance(found, PoolFolder):
        raise InputError(f"{source}: a pool, not a meta-model; load it with ModelPool.from_pretrained")
    return found
