"""The recipe that `hf-mdft pool discover` writes."""

from __future__ import annotations

import json
import re

import yaml

from ..core.reference import ModelReference
from ..heads import TEMPLATES
from ..pool.discovery import Candidate


def draft(base: ModelReference, candidates: list[Candidate]) -> str:
    """A recipe with models that were found on the Hub, to be edited: what the Hub does not hold is marked.

    Of several models for one data set, the most downloaded is taken, and the others are named in comments.
    """
    lines = [
        f"# Fine-tuned models of {base.id} that fit it. Delete what you do not want, and complete what is marked.",
        "pool:",
        f"  base: {_quoted(base.spec)}",
        "  experts:",
    ]
    taken, tasks = {}, []
    for found in candidates:
        about = f"{found.license or 'no license stated'}, {found.downloads} downloads"
        line = f"{_quoted(found.task)}: {_quoted(found.reference.spec)}  # {' '.join(about.split())}"
        key = found.datasets[0] if found.datasets else None
        if key and key in taken:
            lines.append(f"    # same data set as {taken[key]}: {line}")
            continue
        taken[key] = found.task
        lines.append(f"    {line}")
        templates = found.task.replace("-", "_")
        tasks.append(f"  {_quoted(found.task)}:")
        images = (
            f"{{path: {_quoted(key)}, split: train}}  # from its card: check split and config"
            if key
            else ("null  # COMPLETE: arguments of datasets.load_dataset, such as {path: me/images, split: train}")
        )
        tasks.append(f"    unlabelled: {images}")
        tasks.append("    # evaluation: {path: ..., split: test}  # optional; the only use of labels")
        tasks.append("    # class_names: [...]  # default: the data set's own")
        if templates in TEMPLATES:
            tasks.append(f"    templates: {templates}")
    return "\n".join([*lines, "tasks:", *tasks, ""])


def _quoted(text: str) -> str:
    """A YAML string that nothing in it can end, plain where that is safe."""
    plain = re.fullmatch(r"[A-Za-z][\w./@-]*", text) and yaml.safe_load(text) == text
    return text if plain else json.dumps(text)
