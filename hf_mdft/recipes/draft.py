"""The recipe that `hf-mdft pool discover` writes."""

from __future__ import annotations

import json
import re

import yaml

from ..core.reference import ModelReference
from ..heads import TEMPLATES
from ..pool.discovery import Candidate, by_data_set


def draft(base: ModelReference, candidates: list[Candidate]) -> str:
    """A recipe with models that were found on the Hub, to be edited: what the Hub does not hold is marked.

    Models for one data set are experts of one task, the most downloaded first.
    """
    lines = [
        f"# Fine-tuned models of {base.id} that fit it. Delete what you do not want, and complete what is marked.",
        "pool:",
        f"  base: {_quoted(base.spec)}",
        "  experts:",
    ]
    tasks = []
    for group in by_data_set(candidates):
        name, data = group[0].task, group[0].datasets[0] if group[0].datasets else None
        if len(group) == 1:
            lines.append(f"    {_quoted(name)}: {_described(group[0])}")
        else:
            lines.append(f"    {_quoted(name)}:  # one data set, {_quoted(data)}; all of them teach the specialist")
            lines += [f"      - {_described(found)}" for found in group]
        templates = name.replace("-", "_")
        tasks.append(f"  {_quoted(name)}:")
        images = (
            f"{{path: {_quoted(data)}, split: train}}  # from its card: check split and config"
            if data
            else ("null  # COMPLETE: arguments of datasets.load_dataset, such as {path: me/images, split: train}")
        )
        tasks.append(f"    unlabelled: {images}")
        tasks.append("    # evaluation: {path: ..., split: test}  # optional; the only use of labels")
        tasks.append("    # class_names: [...]  # default: the data set's own")
        if templates in TEMPLATES:
            tasks.append(f"    templates: {templates}")
    return "\n".join([*lines, "tasks:", *tasks, ""])


def _described(found: Candidate) -> str:
    about = f"{found.license or 'no license stated'}, {found.downloads} downloads"
    return f"{_quoted(found.reference.spec)}  # {' '.join(about.split())}"


def _quoted(text: str) -> str:
    """A YAML string that nothing in it can end, plain where that is safe."""
    plain = re.fullmatch(r"[A-Za-z][\w./@-]*", text) and yaml.safe_load(text) == text
    return text if plain else json.dumps(text)
