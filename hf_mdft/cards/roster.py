"""The models that are compared, in the order of every table."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from ..core.errors import InputError


@dataclass(frozen=True)
class Compared:
    """A model of the comparison.

    Args:
        name: Its key in `results.json`.
        label: Its name in tables and figures.
        color: Its color in figures.
        card_label: Its name in the tables of cards.
        on_meta_card: Whether a meta-model's card has a row of it.
        in_figure: Whether the figure of accuracies has bars of it.
        passes: Forward passes per image at test time.
        each: These are passes of each of a task's experts.
    """

    name: str
    label: str
    color: str = "#8a8f99"
    card_label: str = ""
    on_meta_card: bool = True
    in_figure: bool = False
    passes: int = 1
    each: bool = False

    def passes_with(self, experts: int) -> int:
        """Forward passes per image at test time, for a task with that many experts."""
        return self.passes * (experts if self.each else 1)


VIEWS = 9
"""Views of test-time augmentation, the image as it is among them."""


ROSTER = (
    Compared("base", "base", "#b8bcc4", "base model", in_figure=True),
    Compared("expert", "experts", "#5b6270", "expert", in_figure=True),
    Compared("expert_views", f"experts, {VIEWS} views", "#8a93a3", f"expert, {VIEWS} views", True, True, VIEWS),
    Compared("experts_mean", "experts, mean accuracy", "#9aa1ad", "experts of the task, mean accuracy"),
    Compared("experts_average", "experts, averaged", "#a9c3a0", "experts of the task, weights averaged"),
    Compared(
        "experts_greedy", "experts, greedy average", "#8fb384", "experts of the task, greedy average by agreement"
    ),
    Compared("ensemble", "ensemble of experts", "#86ad78", "ensemble of the task's experts", each=True),
    Compared(
        "ensemble_views",
        f"ensemble, {VIEWS} views",
        "#5f8f50",
        f"ensemble of the task's experts, {VIEWS} views",
        passes=VIEWS,
        each=True,
    ),
    Compared("weight_average", "weight average", "#9fb8d0", "weight average of the pool"),
    Compared("task_arithmetic", "task arithmetic", "#7f9fc4", "task arithmetic"),
    Compared("meta", "meta-model", "#2f6db3", "meta-model", in_figure=True),
    Compared(
        "specialist_ungated", "specialists, no gate", "#ecc08e", "candidate that the gate refused", on_meta_card=False
    ),
    Compared("specialist", "specialists", "#d9822b", "specialist", in_figure=True),
    Compared(
        "specialist_views", f"specialists, {VIEWS} views", "#b5651d", f"specialist, {VIEWS} views", False, passes=VIEWS
    ),
)
"""In order. A comparison may hold further baselines and earlier rounds, which come after these."""

_BY_NAME = {model.name: model for model in ROSTER}


def compared(name: str) -> Compared:
    """The roster's entry, or one for a further baseline or an earlier round."""
    round_of = re.fullmatch(r"specialist_round_(\d+)", name)
    return _BY_NAME.get(name) or Compared(name, f"specialists, round {round_of[1]}" if round_of else name)


def refuse_reserved(name: str) -> None:
    """Raises:
    InputError: A baseline would have the name of a model that is compared anyway.
    """
    if name in _BY_NAME or compared(name).label != name:
        raise InputError(f"baseline '{name}': every comparison has a model of that name; leave it out")


def in_order(names: Iterable[str]) -> list[str]:
    """Names in the roster's order, others after them as they come."""
    given = list(names)
    return [model.name for model in ROSTER if model.name in given] + [n for n in given if n not in _BY_NAME]
