"""Values of the teacher's options and of its internal constants that are compared."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from ...embedding import restoration
from ...embedding.views import FEW_VIEWS, HELD_OUT_VIEWS, TEACHER_VIEWS, TEST_VIEWS, Offset
from ...experts import ensemble, related, weights
from ...specialize import SpecializeArguments
from ...specialize.teacher import lda, sources


OPTIONS = "specialize"
"""Begins the names of options of phase 2, beside constants of modules."""

Setting = Mapping[str, Any]
"""Values by name: of options of phase 2 (`"specialize.NAME"`), and of constants of modules (`"MODULE.NAME"`)."""

MODULES = {
    module.__name__.rpartition(".")[2]: module for module in (ensemble, lda, related, restoration, sources, weights)
}
"""Modules whose constants are varied, by name."""


def _each(name: str, *values: Any, given: str | None = None) -> dict[str, Setting]:
    """Settings by value; `given` names the option that must be on for the value to matter."""
    on = {} if given is None else {given: True}
    return {f"{value:g}" if isinstance(value, float) else str(value): {**on, name: value} for value in values}


def _views(*views: tuple[Offset, ...]) -> dict[str, Setting]:
    on = {"specialize.teacher_views": True}
    return {str(len(offsets)): {**on, "sources.TEACHER_VIEWS": offsets} for offsets in views}


CHOICES: dict[str, dict[str, Setting]] = {
    "views": {
        "1": {"specialize.teacher_views": False},
        **_views(FEW_VIEWS, TEST_VIEWS, TEACHER_VIEWS, TEACHER_VIEWS + HELD_OUT_VIEWS),
    },
    "other-models": _each("specialize.ensemble_weight", 0.0, 0.1, 0.4, 1.0),
    "prior": _each("specialize.prior_strength", 0.0, 0.25, 0.5, 1.0),
    "lda": _each("specialize.lda_weight", 0.0, 0.1, 0.2, 0.4),
    "lda-shrinkage": _each("lda.SHRINKAGE", 0.001, 0.01, 0.1, 0.3),
    "lda-fits": _each("lda.FITS", 1, 2, 4),
    "restorations": {
        "none": {"specialize.restore": False},
        **_each("restoration.LEAST_GAIN", 0.01, 0.02, 0.03, 0.05, 0.1, given="specialize.restore"),
    },
    "restorations-uneven": _each("restoration.LEAST_GAIN_IF_UNEVEN", 0.03, 0.1, 0.2, given="specialize.restore"),
    "further-experts": {"off": {"specialize.further_experts": False}, "on": {"specialize.further_experts": True}},
    "sharpness": _each("weights.SHARPNESS", 0.0, 2.0, 4.0, 8.0, 16.0, 32.0),
    "noise": _each("weights.NOISE", 0.05, 0.1, 0.2, 0.4, 0.8),
    "temperatures": {
        "off": {"ensemble.COOLEST": 1.0, "ensemble.HOTTEST": 1.0},
        "on": {"ensemble.COOLEST": 0.1, "ensemble.HOTTEST": 10.0},
    },
    "related-experts": {
        "off": {"specialize.related_experts": False},
        **_each("related.LEAST_AGREEMENT", 0.0, 0.6, 0.75, 0.9, given="specialize.related_experts"),
    },
}
"""By choice: values that are compared, the present one among them. `sharpness` 0 is the evenly weighted ensemble, of
three experts and more."""


@contextmanager
def using(constants: Mapping[str, Any]) -> Iterator[None]:
    """Other values of constants, for as long as the context lasts.

    Args:
        constants: Values by `"MODULE.NAME"`, with a module of `MODULES`.
    """
    found = {}
    try:
        for name, value in constants.items():
            found[name] = present(name)
            _set(name, value)
        yield
    finally:
        for name, value in found.items():
            _set(name, value)


def _set(name: str, value: Any) -> None:
    module, _, own = name.partition(".")
    setattr(MODULES[module], own, value)


def constants() -> dict[str, Any]:
    """Present values of all constants that are varied, by name."""
    names = {name for values in CHOICES.values() for setting in values.values() for name in setting}
    return {name: present(name) for name in sorted(names) if not is_option(name)}


def is_option(name: str) -> bool:
    """Whether a name is that of an option, not of a constant."""
    return name.startswith(f"{OPTIONS}.")


def present(name: str, options: Any = SpecializeArguments) -> Any:
    """Present value of an option or a constant, by name.

    Args:
        name: `"specialize.NAME"`, or `"MODULE.NAME"` with a module of `MODULES`.
        options: Options of phase 2; the default are the package's.
    """
    part, _, own = name.partition(".")
    return getattr(options if part == OPTIONS else MODULES[part], own)
