"""Writing a result's folder: what stands beside the model's files."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from huggingface_hub import ModelCard

from ..cards import Measured, eval_results_file
from ..core.attempt import attempted
from ..core.errors import InputError
from ..core.json_files import write_json
from ..core.typed import checked
from .layout import CARD, EVAL_RESULTS, MANIFEST, digest_of, files_of, written_files
from .result import Result


logger = logging.getLogger(__name__)

SCHEMA = 2
"""Version of manifests."""

NOTE = "hf_mdft: no labels were used but for this evaluation"


def write_result(
    folder: Path,
    kind: type[Result],
    content: Mapping[str, Any],
    write_files: Callable[[], Callable[[], ModelCard]],
    measured: Mapping[str, tuple[float, Measured]],
) -> None:
    """Write a result: its files, results in the Hub's form, card, and the manifest last.

    An earlier result in the folder goes; other files stay, and are not taken for the result's. A card that somebody
    wrote or changed is kept under another name.

    Args:
        folder: Folder to write to; made if need be.
        kind: Kind of the result.
        content: What its manifest holds.
        write_files: Writes the model's files, and gives what makes figures and card: a model is not lost for these.
        measured: Accuracy of this model, and how it was measured, by task.

    Raises:
        InputError: The folder cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{folder}: cannot be made ({error.strerror}); give another folder") from error
    _set_card_aside(folder)
    for name, is_ours in written_files(folder).items():
        if is_ours:
            (folder / name).unlink()
    before = _states(folder)
    make_card = write_files()
    results = eval_results_file({task: (value, found.data) for task, (value, found) in measured.items()}, NOTE)
    if results:
        (folder / EVAL_RESULTS).parent.mkdir(exist_ok=True)
        (folder / EVAL_RESULTS).write_text(results, encoding="utf-8")
    attempted(lambda: make_card().save(folder / CARD), f"{folder / CARD}")
    mine = [name for name, state in _states(folder).items() if before.get(name) != state and name != MANIFEST]
    files = {name: digest_of(folder / name) for name in mine}
    write_json(folder / MANIFEST, {"schema": SCHEMA, "kind": kind.name, **content, "files": files})


def _set_card_aside(folder: Path) -> None:
    """Keep a card that somebody, or PEFT, wrote or changed."""
    card = folder / CARD
    if not card.is_file() or written_files(folder).get(CARD):
        return
    kept = next(path for n in itertools.count(1) if not (path := folder / f"{CARD}.{n}").exists())
    card.rename(kept)
    logger.warning("%s was not as hf_mdft wrote it; it is kept as %s", card, kept.name)


def _states(folder: Path) -> dict[str, tuple[int, int]]:
    stats = {name: (folder / name).stat() for name in files_of(folder)}
    return {name: (stat.st_mtime_ns, stat.st_size) for name, stat in stats.items()}


def measured_of(content: Mapping[str, Any], where: str) -> dict[str, Measured]:
    """The measurements in a manifest, by task.

    Raises:
        InputError: It is damaged.
    """
    return checked(content.get("measured", {}), dict[str, Measured], f"{where}: measured")
