"""What a pool names: tasks that can be folders, experts that are other models than the base and each other."""

from __future__ import annotations

import glob
import logging
import os
import re
import sys
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from peft.utils import CONFIG_NAME

from ..core.errors import InputError
from ..core.plain_text import is_plain, one_line
from ..core.typed import expect
from .source import ModelSource


logger = logging.getLogger(__name__)

LONGEST = 120
"""Bytes of a task's name: folders take 255, and endings are added."""

CONFIGS = ("config.json", CONFIG_NAME)
"""Files of which a model's folder holds one: a whole model, or an adapter."""

RESERVED = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)
"""Names of devices on Windows."""


def check_names(base: ModelSource, experts: Mapping[str, Sequence[ModelSource]]) -> None:
    """Raises:
    InputError: A task's name cannot be a folder's, this system takes two for one, or an expert is the base.
    """
    folders: dict[str, str] = {}
    for task, sources in experts.items():
        check_task_name(task)
        same = folders.setdefault(unicodedata.normalize("NFC", task).casefold(), task)
        if same != task:
            told = f"tasks '{same}' and '{task}': some systems take them for one folder; rename one of them"
            if sys.platform in ("win32", "darwin"):
                raise InputError(told)
            logger.warning("%s", told)
        if base in sources:
            raise InputError(f"{base}: the expert of '{task}' is the base itself; give null, or a fine-tuned model")


def distinct(task: str, sources: Sequence[ModelSource]) -> list[ModelSource]:
    """A task's experts, or its teachers, without copies (`ModelSource.is_copy_of`), of which it warns."""
    kept: list[ModelSource] = []
    for source in sources:
        same = next((other for other in kept if source.is_copy_of(other)), None)
        if same is None:
            kept.append(source)
        else:
            logger.warning("%s: the same weights as %s, also named for task '%s'; they count once", source, same, task)
    return kept


def model_folders(specs: Iterable[str | Path], where: str) -> list[str | Path]:
    """Models as they are named, with the folders that patterns (`runs/*`) stand for in their place, in order of their
    names.

    Raises:
        InputError: A pattern stands for no folder that holds a model.
    """
    found: list[str | Path] = []
    for spec in specs:
        expect(spec, (str, Path), where)
        if not glob.has_magic(str(spec)) or Path(os.path.expanduser(spec)).is_dir():
            found.append(spec)
            continue
        matching = sorted(glob.glob(str(Path(os.path.expanduser(spec)))), key=_in_order_of_numbers)
        folders = [folder for folder in matching if any((Path(folder) / name).is_file() for name in CONFIGS)]
        if not folders:
            raise InputError(f"{where}: no folder with a {' or '.join(CONFIGS)} matches {spec}")
        if others := [folder for folder in matching if folder not in folders and Path(folder).is_dir()]:
            shown = ", ".join(map(one_line, others[:5]))
            logger.warning("%s: %s: no models (no %s): %s", where, spec, " or ".join(CONFIGS), shown)
        found += folders
    return found


def _in_order_of_numbers(name: str) -> list[Any]:
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", name)]


def check_task_name(task: str) -> None:
    """Task names become names of folders, and may come from a repo of somebody else.

    Raises:
        InputError: It could lead out of the output folder, or some system has no such folder.
    """
    wrong = task.startswith(".") or task != task.strip() or task.endswith(".") or not is_plain(task)
    if not task or wrong or re.search(r'[/\\:*?"<>|]', task) or RESERVED.fullmatch(task):
        raise InputError(
            f"task name '{task}': use letters, digits, '.', '_' and '-' (it becomes the name of a folder)"
        )
    if len(task.encode()) > LONGEST:
        raise InputError(f"task name '{task[:40]}...': longer than {LONGEST} bytes, which no folder can be called")
