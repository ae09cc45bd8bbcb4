"""Prompt templates by name: those of the eight tasks of the literature, and a plain one."""

from __future__ import annotations

from ..core.errors import InputError, suggest


_ARTICLES = ("", "a ", "the ")

TEMPLATES: dict[str, list[str]] = {
    "default": ["a photo of a {}."],
    "sun397": ["a photo of a {}.", "a photo of the {}."],
    "stanford_cars": [
        *(f"a photo of {word} {{}}." for word in ("a", "the", "my")),
        "i love my {}!",
        *(f"a photo of my {word} {{}}." for word in ("dirty", "clean", "new", "old")),
    ],
    "resisc45": [
        f"{source} {kind} of {article}{{}}."
        for source in ("satellite", "aerial")
        for kind in ("imagery", "photo", "view")
        for article in _ARTICLES
    ],
    "eurosat": [f"a centered satellite photo of {article}{{}}." for article in _ARTICLES],
    "svhn": ['a photo of the number: "{}".'],
    "gtsrb": [f'a {kind} photo of a "{{}}" traffic sign.' for kind in ("zoomed in", "centered", "close up")],
    "mnist": ['a photo of the number: "{}".'],
    "dtd": [
        f"a photo of {article} {{}} {noun}."
        for noun in ("texture", "pattern", "thing", "object")
        for article in ("a", "the")
    ],
}


def resolve_templates(templates: str | list[str], where: str) -> list[str]:
    """Templates from a list or the name of a built-in set.

    Args:
        templates: Prompts with one `{}` for the class name, or a name in `TEMPLATES`.
        where: Name of the task, for the message.

    Raises:
        InputError: Unknown set, or a template without `{}`.
    """
    if isinstance(templates, str):
        if templates not in TEMPLATES:
            raise InputError(f"{where}: unknown template set '{templates}': {suggest(templates, TEMPLATES)}")
        templates = TEMPLATES[templates]
    for template in templates:
        if not isinstance(template, str) or template.count("{}") != 1:
            raise InputError(f"{where}: template '{template}' must hold one {{}} for the class name")
    if not templates:
        raise InputError(f"{where}: the list of templates is empty")
    return templates
