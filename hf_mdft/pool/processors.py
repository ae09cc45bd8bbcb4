"""Whose image processor a task's images go through."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path

from ..core.errors import InputError
from ..tasks import Preprocessor, has_processor
from .manifest import ModelPool
from .source import ModelSource


logger = logging.getLogger(__name__)


def processor_of(pool: ModelPool, task: str) -> ModelSource:
    """The task's experts' own image processor, where they have one and agree; else the base's.

    Args:
        pool: Base and experts.
        task: Name of the task.
    """
    base = Preprocessor.of(pool.base.folder, str(pool.base))
    found: list[ModelSource] = []
    for name in pool.experts_of(task):
        source = pool.experts[name]
        found.append(source if _differences(source, base) else pool.base)
    first = found[0] if found else pool.base
    own = Preprocessor.of(first.folder, str(first))
    return first if not any(_differences(source, own) for source in found) else pool.base


def check_processors(pool: ModelPool, tasks: list[str]) -> None:
    """Whether image processors give what the tower reads, and which tasks have one of their own.

    Args:
        pool: Base and experts.
        tasks: Names of the tasks.

    Raises:
        InputError: One cannot be read, or gives another size than the base's config says, or than the base's
            processor gives.
    """
    base = Preprocessor.of(pool.base.folder, str(pool.base))
    reads, gives = pool.architecture.image_shape(pool.config), base.shape
    if reads is not None and reads != gives:
        raise InputError(
            f"{pool.base}: its image processor gives {gives[1]} x {gives[2]} pixels, its config says {reads[1]} x "
            f"{reads[2]}; correct preprocessor_config.json"
        )
    shapes = base.shapes()
    if len(shapes) > 1:
        raise InputError(
            f"{pool.base}: its image processor keeps the shape of pictures ({' and '.join(shapes)} pixels), and one "
            "size is needed; state height and width in preprocessor_config.json"
        )
    for task in tasks:
        used = processor_of(pool, task)
        for name in pool.experts_of(task):
            source = pool.experts[name]
            differences = _differences(source, base)
            if not differences:
                continue
            what = "; ".join(differences[:3])
            shape = Preprocessor.of(source.folder, str(source)).shape
            if shape != gives:
                raise InputError(
                    f"{source}: its image processor gives {shape[1]} x {shape[2]} pixels, the base's {gives[1]} x "
                    f"{gives[2]} ({what}); the images of all tasks have one size: take an expert for the base's"
                )
            if used is pool.base:
                logger.warning(
                    "%s: its image processor differs from the base's (%s) and from another expert's of '%s'; the "
                    "base's is used: expect other figures than its own",
                    source, what, task,
                )  # fmt: skip
            else:
                logger.warning(
                    "%s: its image processor differs from the base's (%s); its own is used for all images of '%s'",
                    source, what, task,
                )  # fmt: skip


def copy_processor(source: ModelSource, folder: Path) -> None:
    """Put a model's image processor into a folder, in place of another one's."""
    for name in ("processor_config.json", "preprocessor_config.json"):
        (folder / name).unlink(missing_ok=True)
        if (source.folder / name).is_file():
            shutil.copyfile(source.folder / name, folder / name)


def _differences(source: ModelSource, other: Preprocessor) -> list[str]:
    """What sets a model's own image processor apart; nothing where it has none."""
    if not has_processor(source.folder):
        return []
    return Preprocessor.of(source.folder, str(source)).differences(other)
