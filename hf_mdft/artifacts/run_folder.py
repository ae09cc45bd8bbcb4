"""The output folder of a run."""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from ..core.errors import InputError
from ..core.json_files import read_json
from ..core.scratch import PREFIX, remove_left_over
from ..evaluation import Report
from .layout import (
    ADVICE,
    CHECKPOINTS,
    META,
    REPLACED_BY_NEW,
    REPORT,
    REPORT_MARK,
    RESULTS,
    SPECIALISTS,
    refuse_foreign,
    replace_folder,
    written_files,
)
from .report_page import write_report


logger = logging.getLogger(__name__)


def refuse_foreign_output(folder: Path, tasks: Sequence[str]) -> None:
    """Refuse an output folder with other content under a name that a run needs, before anything is trained.

    Raises:
        InputError: It holds something else under such a name.
    """
    place = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    if not place.is_dir():
        what = "not a folder" if place == folder.absolute() else f"{place} is not a folder"
        raise InputError(f"{folder}: {what}; choose another --output-dir")
    if not os.access(place, os.W_OK):
        raise InputError(f"{folder}: no permission to write in {place}; choose another --output-dir")
    for name in (SPECIALISTS, CHECKPOINTS):
        if (folder / name).exists() and not (folder / name).is_dir():
            raise InputError(f"{folder / name}: not a folder, but a run writes one there; {ADVICE}")
    for name in (RESULTS, REPORT):
        if (folder / name).exists() and not (folder / name).is_file():
            raise InputError(f"{folder / name}: not a file, but a run writes one there; {ADVICE}")
    for part in (folder / META, *_specialists(folder), *(folder / SPECIALISTS / task for task in tasks)):
        refuse_foreign(part)
    refuse_foreign_results(folder / RESULTS)
    if (folder / REPORT).exists() and not _is_report(folder / REPORT):
        raise InputError(f"{folder / REPORT}: not written by hf_mdft; {ADVICE}")


def refuse_foreign_results(file: Path, advice: str = ADVICE) -> None:
    """Refuse to write results over a file that is something else.

    Raises:
        InputError: It is.
    """
    if not file.exists():
        return
    found = None
    with contextlib.suppress(InputError):
        found = read_json(file, str(file.parent))
    if not isinstance(found, dict) or "schema" not in found:
        raise InputError(f"{file}: not written by hf_mdft; {advice}")


def refuse_inputs_within(folder: Path, inputs: Iterable[Path]) -> None:
    """Refuse an output folder whose results would take the place of what they are made of.

    Args:
        folder: The output folder.
        inputs: Folders and files of this machine that the run reads.

    Raises:
        InputError: One lies where the run writes.
    """
    for path in inputs:
        for name in (META, SPECIALISTS):
            if path.resolve().is_relative_to((folder / name).resolve()):
                raise InputError(f"{path}: a run in {folder} would replace it; choose another --output-dir")


def _specialists(folder: Path) -> list[Path]:
    """Folders that runs of this or an earlier recipe have written."""
    found = [path for path in (folder / SPECIALISTS).glob("*") if path.is_dir() and not path.name.startswith(PREFIX)]
    return [path for path in found if written_files(path)]


def _is_report(path: Path) -> bool:
    try:
        return REPORT_MARK in path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False


def write_run(
    folder: Path,
    report: Report,
    write_meta: Callable[[Path], None],
    write_specialists: Mapping[str, Callable[[Path], None]],
) -> None:
    """Write results, meta-model, specialists and report; each appears whole or not at all, and none is lost for
    another one. Specialists of an earlier recipe, and what a killed run left behind, go.

    Args:
        folder: The output folder; made if need be.
        report: What the run found.
        write_meta: Writes the meta-model's folder.
        write_specialists: Writes a specialist's folder, by task.

    Raises:
        InputError: Something could not be written; the message names what is missing, and what is there.
    """
    parts: dict[str, Callable[[], None]] = {RESULTS: lambda: report.save(folder / RESULTS)}
    parts[META] = lambda: replace_folder(folder / META, write_meta)
    for task, write in write_specialists.items():
        target = folder / SPECIALISTS / task
        parts[f"{SPECIALISTS}/{task}"] = functools.partial(replace_folder, target, write)
    parts[REPORT] = lambda: write_report(report, folder / REPORT)
    missing: dict[str, Exception] = {}
    for name, write_part in parts.items():
        try:
            folder.mkdir(parents=True, exist_ok=True)
            write_part()
        except Exception as error:  # the others may still be saved
            missing[name] = error
    if missing:
        reasons = ", ".join(f"{name} ({_reason(error)})" for name, error in missing.items())
        there = ", ".join(name for name in parts if name not in missing) or "nothing"
        raise InputError(
            f"{folder}: cannot write {reasons}; written: {there}. Mend that, and give the same command again: it goes "
            "on from its checkpoints"
        ) from next(iter(missing.values()))
    for old in [path for path in _specialists(folder) if path.name not in write_specialists]:
        logger.warning("%s: removed; this recipe makes no such specialist", old)
        shutil.rmtree(old)
    for place in (folder, folder / SPECIALISTS):
        remove_left_over(place)
        for old in place.glob(f"{REPLACED_BY_NEW}*"):  # of a killed run, of tasks that this one does not have
            shutil.rmtree(old, ignore_errors=True)


def _reason(error: Exception) -> str:
    return " ".join(str(getattr(error, "strerror", None) or error).split())[:200] or type(error).__name__
