"""Writes the tables of docs/recipes.md and docs/shift.md from the code.

python docs/generate.py
"""

from __future__ import annotations

import dataclasses
import inspect
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

import hf_mdft.recipes
from hf_mdft import MdftConfig, MdftTrainingArguments, SpecializeArguments, Task
from hf_mdft.core.registry import Registry
from hf_mdft.evaluation import TRANSDUCTIVE
from hf_mdft.heads import HEADS, TEMPLATES
from hf_mdft.meta.terms import META_TERMS
from hf_mdft.objectives import FILTERS
from hf_mdft.objectives.scores import SCORES
from hf_mdft.recipes.options import ELSEWHERE
from hf_mdft.restorations import RESTORATIONS
from hf_mdft.shifts import SHIFTS
from hf_mdft.specialize.teacher import TEACHER_PARTS
from hf_mdft.specialize.terms import STUDENT_TERMS
from hf_mdft.transforms import TRANSFORMS


PAGES = [Path(__file__).with_name(name) for name in ("recipes.md", "shift.md")]
BLOCK = re.compile(r"(<!-- generated: (\w+) -->\n)(.*?)(<!-- end -->)", re.S)
FILLED_IN = ("allow_base_mismatch", "pool", "tower", "target_modules")
"""Options of the adapter that no recipe sets."""


def table(header: list[str], rows: list[list[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def as_yaml(value: Any) -> str:
    """A value as it stands in a recipe."""
    return yaml.safe_dump(value, default_flow_style=True, width=1000).removesuffix("...\n").strip()


def default_of(field: dataclasses.Field) -> str:
    if field.default_factory is not dataclasses.MISSING:
        return f"`{as_yaml(field.default_factory())}`"
    return "" if field.default is dataclasses.MISSING else f"`{as_yaml(field.default)}`"


def own_fields(kind: type) -> list[dataclasses.Field]:
    """Fields that the class itself declares: new ones, and those whose default it changes."""
    return [field for field in dataclasses.fields(kind) if field.name in kind.__annotations__]


def options(kind: type, left_out: tuple[str, ...] = ()) -> str:
    """Option, default and help of a dataclass whose fields have `help` in their metadata."""
    fields = [field for field in own_fields(kind) if field.name not in left_out]
    rows = [[f"`{field.name}`", default_of(field), field.metadata["help"]] for field in fields]
    return table(["option", "default", "what it is"], rows)


def arguments(part: Any) -> dict[str, str]:
    """Name and description of each entry in a docstring's section `Args`."""
    section = re.search(r"^Args:\n((?:[ ]{4}.*\n?|\n)+)", (inspect.getdoc(part) or "") + "\n", re.M)
    found = {}
    for names, text in re.findall(r"^ {4}(\w[\w, ]*): ((?:.*\n?)(?: {8}.*\n?)*)", section[1] if section else "", re.M):
        found |= {name.strip(): " ".join(text.split()) for name in names.split(",")}
    return found


def summary(part: Any) -> str:
    """First paragraph of a docstring."""
    return " ".join(inspect.getdoc(part).split("\n\n")[0].split())


def named(registry: Registry) -> str:
    """Name and description of parts without options of their own."""
    return table(["name", "what it is"], [[f"`{name}`", summary(registry.get(name))] for name in registry.names()])


def restorations() -> str:
    """Names by the function that they share, and its description."""
    names: dict[Callable, list[str]] = {}
    for name in RESTORATIONS.names():
        part = RESTORATIONS.get(name)
        names.setdefault(getattr(part, "func", part), []).append(f"`{name}`")
    return table(["names", "what it does"], [[", ".join(found), summary(part)] for part, found in names.items()])


def parts(registry: Registry) -> str:
    """Name, options with defaults, and description of every part of a registry."""
    rows = []
    for name in registry.names():
        part = registry.get(name)
        known = [p for p in inspect.signature(part).parameters.values() if p.default is not p.empty]
        told = arguments(part)
        rows.append(
            [
                f"`{name}`",
                "<br>".join(f"`{p.name}: {as_yaml(p.default)}` {told.get(p.name, '')}".strip() for p in known),
                summary(part),
            ]
        )
    return table(["name", "options", "what it does"], rows)


def presets() -> str:
    rows = []
    folder = Path(hf_mdft.recipes.__file__).parent / "presets"
    for path in sorted(folder.glob("*.yaml"), key=lambda path: path.stem):
        preset = yaml.safe_load(path.read_text(encoding="utf-8"))
        paper = preset.get("paper")
        rows.append([f"`{path.stem}`", preset["about"], f"[paper]({paper})" if paper else ""])
    return table(["preset", "what it is", "paper"], rows)


def task() -> str:
    told = arguments(Task)
    rows = [[f"`{field.name}`", default_of(field), told[field.name]] for field in dataclasses.fields(Task)]
    return table(["key", "default", "what it is"], rows)


def templates() -> str:
    rows = [[f"`{name}`", "<br>".join(f"`{text}`" for text in texts)] for name, texts in TEMPLATES.items()]
    return table(["set", "prompts"], rows)


def shifts() -> str:
    kinds = [SHIFTS.get(name) for name in SHIFTS.names()]
    rows = [[f"`{k.name}`", summary(k), k.unit, ", ".join(map(str, k.constants))] for k in kinds]
    return table(["shift", "what it is like", "constant", "at severities 1 to 5"], rows)


BLOCKS: dict[str, Callable[[], str]] = {
    "task": task,
    "adapter": lambda: options(MdftConfig, FILLED_IN),
    "meta": lambda: options(MdftTrainingArguments, tuple(ELSEWHERE)),
    "specialize": lambda: options(SpecializeArguments, tuple(ELSEWHERE)),
    "meta_terms": lambda: named(META_TERMS),
    "teacher_parts": lambda: named(TEACHER_PARTS),
    "student_terms": lambda: named(STUDENT_TERMS),
    "presets": presets,
    "training_free": lambda: named(TRANSDUCTIVE),
    "transforms": lambda: parts(TRANSFORMS),
    "filters": lambda: parts(FILTERS),
    "scores": lambda: named(SCORES),
    "restorations": restorations,
    "heads": lambda: parts(HEADS),
    "templates": templates,
    "shifts": shifts,
}


def generate(page: str) -> str:
    """The page with every generated block written anew."""
    return BLOCK.sub(lambda found: f"{found[1]}{BLOCKS[found[2]]()}\n{found[4]}", page)


if __name__ == "__main__":
    for page in PAGES:
        page.write_text(generate(page.read_text(encoding="utf-8")), encoding="utf-8")
