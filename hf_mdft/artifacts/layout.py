"""Every file of every result folder, named once.

A run's output folder:

    results.json  report.html  checkpoints/  meta/  specialists/TASK/

A result folder (meta-model, folded meta-model, specialist, vision tower) holds the model's files and:

    mdft.json  README.md  figures/*.png  .eval_results/mdft.yaml
    head.safetensors            a specialist's head
    heads/TASK.safetensors      heads that a meta-model uses
    own_heads/TASK.safetensors  a task's own head, where another was trained and no pool can build it

A published pool holds `mdft_pool.json` and `README.md` (`hf_mdft.pool.published`).
"""

from __future__ import annotations

import contextlib
import hashlib
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from ..core.errors import InputError
from ..core.json_files import read_json
from ..core.scratch import PREFIX, scratch, share
from ..pool.published import CARD_FILE, POOL_FILE
from ..pool.source import PROCESSOR_FILES


RESULTS, REPORT, CHECKPOINTS, META, SPECIALISTS = "results.json", "report.html", "checkpoints", "meta", "specialists"
MANIFEST, CARD, FIGURES, EVAL_RESULTS = "mdft.json", CARD_FILE, "figures", ".eval_results/mdft.yaml"
HEAD, HEADS, OWN_HEADS = "head.safetensors", "heads", "own_heads"
ADAPTER_CONFIG, ADAPTER_WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
POOL = POOL_FILE
REPORT_MARK = "<h1>hf_mdft report</h1>"

REPLACED = (
    "model.safetensors", "model-?????-of-?????.safetensors", "model.safetensors.index.json", ADAPTER_WEIGHTS,
    ADAPTER_CONFIG, HEAD, f"{HEADS}/*.safetensors", f"{OWN_HEADS}/*.safetensors", f"{FIGURES}/*.png", EVAL_RESULTS,
    *PROCESSOR_FILES,
)  # fmt: skip
"""What an earlier push of a result may have left and the next one replaces as a whole: loaders would mix them."""


REPLACED_BY_NEW = f"{PREFIX}old-"
"""Begins the name of a result's folder while another one takes its place."""

ADVICE = "move it away, or choose another --output-dir"
SYSTEM_FILES = (".DS_Store", "Thumbs.db", "desktop.ini")
"""What file managers leave behind, and nobody misses."""

SMALL = 1 << 20
"""Bytes up to which a file's content is remembered: cards and configs, which people edit."""


def files_of(folder: Path) -> list[str]:
    """All files below a folder, as paths within it."""
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir())


def digest_of(file: Path) -> str | None:
    """SHA-256 of a small file; `None` for a large one."""
    return hashlib.sha256(file.read_bytes()).hexdigest() if file.stat().st_size <= SMALL else None


def written_files(folder: Path) -> dict[str, bool]:
    """Files that the folder's manifest lists and that are there: whether each is still as it was written."""
    files: Any = {}
    with contextlib.suppress(InputError, AttributeError):
        files = read_json(folder / MANIFEST, str(folder)).get("files", {})
    if not isinstance(files, Mapping):
        return {}
    there = {name: digest for name, digest in files.items() if name in files_of(folder)}
    found = {name: digest in (None, digest_of(folder / name)) for name, digest in there.items()}
    return {**found, MANIFEST: True} if found else {}


def refuse_foreign(folder: Path) -> None:
    """Refuse to replace what is no result of a run, or holds files that no run has written.

    Raises:
        InputError: It holds something else; the message names a file.
    """
    if not folder.exists():
        return
    if not folder.is_dir():
        raise InputError(f"{folder}: not a folder, but a run writes one there; {ADVICE}")
    written = written_files(folder)
    for name in files_of(folder):
        if name not in written and Path(name).name not in SYSTEM_FILES:
            raise InputError(f"{folder}: holds {name}, which this hf-mdft has not written there; {ADVICE}")
        if not written.get(name, True):
            raise InputError(f"{folder}: {name} was changed since hf-mdft wrote it; {ADVICE}")


def replace_folder(target: Path, write: Callable[[Path], None]) -> None:
    """Write a result folder beside its place and move it there: it appears whole or not at all, and what was in its
    place is not lost before.

    Raises:
        InputError: Something else is in its place, or there is no space or no permission.
    """
    refuse_foreign(target)
    old = target.with_name(f"{REPLACED_BY_NEW}{target.name}")
    try:
        if old.exists() and not target.exists():  # killed between two moves
            old.rename(target)
        with scratch(target.parent) as temporary:
            work = temporary / "new"
            write(work)
            share(work)
            if target.exists():
                shutil.rmtree(old, ignore_errors=True)
                target.rename(old)
            try:
                work.rename(target)
            except OSError:
                if old.exists():
                    old.rename(target)
                raise
        shutil.rmtree(old, ignore_errors=True)
    except (OSError, SafetensorError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"{target}: cannot write the result ({reason})") from error
