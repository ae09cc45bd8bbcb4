"""Templates of cards and pages."""

from __future__ import annotations

import functools
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template


def template(path: Path, html: bool = False) -> Template:
    """A template, compiled once; a word that it needs and does not get is an error.

    Args:
        path: Its file; it may include others of its folder.
        html: Escape what is put into it.
    """
    return _environment(path.parent, html).get_template(path.name)


@functools.cache
def _environment(folder: Path, html: bool) -> Environment:
    return Environment(loader=FileSystemLoader(folder, encoding="utf-8"), autoescape=html, undefined=StrictUndefined)
