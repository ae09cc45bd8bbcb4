"""Going on where an interrupted run stopped, and only if it was the same run."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from transformers import TrainingArguments

from ..core.cache import key_of
from ..core.errors import InputError
from ..core.json_files import replace_text
from ..core.sealed import ASIDE, SEAL, whole
from ..core.timing import SECONDS, forget_finished
from .checkpoints import checkpoints, last_whole


KEY_FILE = "run.key"
"""File of a folder of work in progress that tells which run it is of."""

ADVICE = "move it away, or choose another output folder"

IRRELEVANT = {
    "output_dir", "logging_dir", "run_name", "report_to", "disable_tqdm", "log_level", "logging_steps", "save_steps",
    "save_total_limit", "save_strategy", "hub_token", "hub_model_id", "push_to_hub", "per_device_eval_batch_size",
    "logging_strategy", "logging_first_step", "dataloader_num_workers", "ddp_backend",
    "local_rank", "ddp_timeout", "rounds", "hub_strategy", "hub_private_repo", "hub_always_push", "hub_revision",
}  # fmt: skip
"""Arguments that change where and how a run is done, but not its result (`rounds`: no round depends on later ones)."""


def arguments_key(args: TrainingArguments) -> dict[str, Any]:
    """Arguments that a result depends on, by name, JSON-able."""
    return {name: value for name, value in args.to_dict().items() if name not in IRRELEVANT}


def resumable(folder: Path, parts: Any, own_folders: Iterable[str] = ()) -> str | None:
    """Last checkpoint in `folder` if it belongs to the run that `parts` describe; else the folder is made ready.

    Checkpoints (and `own_folders`) of another run are removed, so that a changed input never meets a stale result.

    Args:
        folder: Folder of the run's work in progress.
        parts: Everything that the result depends on, JSON-able, with a version of what is stored.
        own_folders: Names of folders beside the checkpoints that hold results of the run.

    Raises:
        InputError: No space or no permission, or the folder holds checkpoints of something else.
    """
    key, file = key_of(parts), folder / KEY_FILE
    try:
        strange = [path for path in checkpoints(folder) if not (path / SEAL).exists()]
        if strange and not file.is_file():
            raise InputError(f"{strange[0]}: not written by hf_mdft; {ADVICE}")
        if file.is_file() and file.read_text(encoding="utf-8", errors="replace") == key:
            checkpoint = last_whole(folder)
            if checkpoint is None and not any(whole(folder / name) for name in own_folders):
                forget_finished(folder)
            return checkpoint
        folder.mkdir(parents=True, exist_ok=True)
        old = [*checkpoints(folder), *folder.glob(f"{ASIDE}*"), *(folder / name for name in own_folders), file]
        for path in [path for path in old if path.is_dir()]:
            shutil.rmtree(path)
        (folder / SECONDS).unlink(missing_ok=True)
        replace_text(file, key)
    except OSError as error:
        raise InputError(f"{folder}: cannot write ({error.strerror}); choose another output folder") from error
    return None
