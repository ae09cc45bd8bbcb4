"""Text of users in Markdown, YAML and code blocks, none of which it can end."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from ..core.data_reference import DataReference
from ..core.pages import template
from ..core.plain_text import is_plain, one_line
from ..core.reference import ModelReference


TEMPLATES = Path(__file__).parent / "templates"

OPENS = re.compile(r"(?<!\\)((?:\\\\)*)<(?=[A-Za-z/!?])")
"""What opens an element of HTML: not after an odd number of backslashes."""


def render(name: str, **words: Any) -> str:
    """A template of this room; a word that it needs and does not get is an error."""
    return without_html(template(TEMPLATES / name).render(**words))


def without_html(text: str) -> str:
    """A card in whose text nothing opens an element of HTML: ours have none. Blocks of code stay as they are."""
    parts = re.split(r"(?ms)(^```.*?^```$)", text)
    return "".join(part if number % 2 else OPENS.sub(r"\1&lt;", part) for number, part in enumerate(parts))


def escaped(text: Any) -> str:
    """Text without what Markdown, HTML or formulas would read as markup."""
    return "".join(f"\\{char}" if char in r"\`*_[]<>|#{}~&$" else char for char in one_line(str(text)))


def literal(value: Any) -> str:
    """A Python literal for a code block."""
    return json.dumps(value, ensure_ascii=False).replace("`", "\\u0060")


def fenced(text: str) -> str:
    """Text for a code block."""
    return text.replace("```", "'''").rstrip()


def recipe_text(recipe: Mapping[str, Any]) -> str:
    """A recipe as YAML for a code block."""

    def written(allow_unicode: bool) -> str:
        return yaml.dump(
            recipe, Dumper=_RecipeDumper, sort_keys=False, allow_unicode=allow_unicode, width=float("inf")
        )

    text = written(allow_unicode=True)
    return fenced(text if is_plain(text.replace("\n", "")) else written(allow_unicode=False))


def model_link(model: ModelReference) -> str:
    """A model of the Hub at its revision, or the name of a folder."""
    if model.is_local:
        return f"`{one_line(model.name).replace('`', '')}` (a local folder, weights `{str(model.revision)[:19]}`)"
    return f"[{model.id}](https://huggingface.co/{model.id}/tree/{model.revision})"


def data_link(data: DataReference | None) -> str | None:
    """A data set of the Hub with its split, or the names of files."""
    if data is None:
        return None
    if data.count is not None:
        return escaped(data.to_dict())
    parts = [escaped(f"{key} {value}") for key in ("name", "split", "revision") if (value := getattr(data, key))]
    if data.on_hub:
        name = f"[{escaped(data.path)}](https://huggingface.co/datasets/{data.path})"
    else:
        name = f"local files {escaped(data.data_files or data.data_dir or data.path)}"
    return ", ".join([name, *parts])


def overlap_text(share: float | None) -> str:
    """Whether the images of an evaluation were used without their labels, too."""
    if share is None:
        return "not compared with the unlabelled images"
    if share == 1:
        return "**transductive**, all of them are among the unlabelled images"
    if share > 0:
        return f"{100 * share:.1f} % of them are among the unlabelled images (**transductive**), the others are not"
    return "**held-out**, none of them is among the unlabelled images"


class _RecipeDumper(yaml.SafeDumper):
    """Lists on one line, everything else below each other."""

    def represent_sequence(self, tag: str, sequence: Any, flow_style: bool | None = None) -> yaml.Node:
        return super().represent_sequence(tag, sequence, flow_style=True)
