"""Figures of reports and cards."""

from __future__ import annotations

import functools
import io
import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec

import matplotlib
from matplotlib.figure import Figure

from ..cards import ROSTER, MetaFacts, compared
from ..core.attempt import attempted
from ..evaluation import Report
from .layout import FIGURES


if TYPE_CHECKING:
    from matplotlib.axes import Axes


STYLE = {
    "svg.hashsalt": "hf_mdft",
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "text.parse_math": False,  # names of tasks may hold `$`
}

P = ParamSpec("P")


def in_style(draw: Callable[P, Figure | None]) -> Callable[P, Figure | None]:
    """A function that draws, with the style of all figures."""

    @functools.wraps(draw)
    def styled(*args: P.args, **kwargs: P.kwargs) -> Figure | None:
        with matplotlib.rc_context(STYLE):
            return draw(*args, **kwargs)

    return styled


def svg(figure: Figure) -> str:
    """A figure as text to put into a page."""
    stream = io.StringIO()
    with matplotlib.rc_context(STYLE):
        figure.savefig(stream, format="svg", bbox_inches="tight", metadata={"Date": None})
    text = stream.getvalue()
    return text[text.index("<svg") :]


def save(figure: Figure, path: Path) -> None:
    """Write a figure to a file; the kind is the file's ending."""
    path.write_bytes(encoded(figure, path.suffix.removeprefix(".")))


def encoded(figure: Figure, kind: str) -> bytes:
    """A figure as a file of a kind holds it."""
    metadata = {"Software": None} if kind == "png" else {"Date": None} if kind == "svg" else None
    stream = io.BytesIO()
    with matplotlib.rc_context(STYLE):
        figure.savefig(stream, format=kind, bbox_inches="tight", dpi=110, metadata=metadata)
    return stream.getvalue()


def _axes(width: float, height: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(width, height))
    axes = figure.add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


@in_style
def accuracy_figure(report: Report) -> Figure | None:
    """Bars by task for the models that matter most."""
    shown = [model for model in ROSTER if model.in_figure and report.accuracy.get(model.name)]
    names = [*report.tasks, "average"]
    if not shown:
        return None
    figure, axes = _axes(max(6, 1.1 * len(names)), 3)
    width = 0.8 / len(shown)
    for i, model in enumerate(shown):
        row = report.accuracy[model.name]
        heights = [
            100 * value for value in (*(row.get(t, 0) for t in report.tasks), report.average.get(model.name, 0))
        ]
        places = [j + (i - (len(shown) - 1) / 2) * width for j in range(len(names))]
        axes.bar(places, heights, width * 0.92, label=model.label, color=model.color)
    axes.set_xticks(range(len(names)), names, rotation=25, ha="right")
    axes.set_ylabel("accuracy in %")
    axes.set_ylim(0, 100)
    axes.legend(frameon=False, ncols=len(shown), loc="lower center", bbox_to_anchor=(0.5, 1.0))
    return figure


@in_style
def gain_figure(report: Report) -> Figure | None:
    """Points gained over the expert by each specialist, with and without the gate, and by test-time augmentation."""
    names = [t for t in report.tasks if t in report.comparison]
    if not names:
        return None
    expert, ungated = report.accuracy["expert"], report.accuracy["specialist_ungated"]
    figure, axes = _axes(max(5, 0.9 * len(names)), 2.6)
    color = compared("specialist").color
    for i, name in enumerate(names):
        gain = 100 * (ungated[name] - expert[name])
        kept = report.gate[name].improved
        axes.bar(i, gain, 0.6, color=color if kept else "white", edgecolor=color)
    if views := report.accuracy.get("expert_views"):
        gains = [100 * (views[name] - expert[name]) for name in names]
        axes.hlines(gains, [i - 0.4 for i in range(len(names))], [i + 0.4 for i in range(len(names))], color="black")
    axes.axhline(0, color="black", linewidth=0.8)
    axes.set_xticks(range(len(names)), names, rotation=25, ha="right")
    axes.set_ylabel("points over the expert")
    axes.set_title(
        f"filled: kept by the gate; hollow: the expert was kept; line: {compared('expert_views').label}",
        fontsize=9,
        loc="left",
    )
    return figure


@in_style
def coefficient_figure(coefficients: Mapping[str, Mapping[str, float]]) -> Figure | None:
    """Coefficients by tensor (rows, from the embeddings down) and expert (columns)."""
    if not coefficients:
        return None
    experts = list(next(iter(coefficients.values())))
    values = [[math.nan if row[e] is None else row[e] for e in experts] for row in coefficients.values()]
    figure, axes = _axes(1.5 + 0.55 * len(experts), 4.2)
    limit = max((abs(v) for row in values for v in row if math.isfinite(v)), default=0) or 1.0
    image = axes.imshow(values, aspect="auto", cmap="RdBu_r", vmin=-limit, vmax=limit, interpolation="nearest")
    axes.set_xticks(range(len(experts)), experts, rotation=35, ha="right")
    axes.set_ylabel(f"{len(values)} parameter tensors, input to output")
    axes.set_yticks([])
    figure.colorbar(image, ax=axes, label="merging coefficient")
    return figure


@in_style
def history_figure(
    history: Sequence[Mapping[str, Any]], prefix: str, ylabel: str, scale: float = 1.0
) -> Figure | None:
    """Everything logged under a prefix, over the steps."""
    lines = [line for line in history if "loss" in line]
    keys = sorted({key for line in lines for key in line if key.startswith(prefix)})
    if len(lines) < 2 or not keys:
        return None
    figure, axes = _axes(5, 2.6)
    for key in keys:
        points = [(line["step"], scale * line[key]) for line in lines if line.get(key) is not None]
        axes.plot(*zip(*points, strict=True), label=_shown(key.removeprefix(prefix)), linewidth=1.4)
    axes.set_xlabel("step")
    axes.set_ylabel(ylabel)
    axes.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))
    return figure


@in_style
def cosine_figure(names: list[str], cosines: list[list[float]]) -> Figure:
    """How alike task vectors are, pair by pair."""
    size = 2.2 + 0.5 * len(names)
    figure = Figure(figsize=(size + 0.6, size))
    axes = figure.add_subplot()
    image = axes.imshow(cosines, cmap="RdBu_r", vmin=-1, vmax=1)
    axes.set_xticks(range(len(names)), names, rotation=35, ha="right")
    axes.set_yticks(range(len(names)), names)
    if len(names) <= 20:
        for i, row in enumerate(cosines):
            for j, value in enumerate(row):
                color = "white" if abs(value) > 0.6 else "black"
                axes.text(j, i, f"{value:.2f}", ha="center", va="center", fontsize=8, color=color)
    figure.colorbar(image, ax=axes, label="cosine of task vectors", shrink=0.8)
    return figure


def _shown(label: str) -> str:
    """A label of a legend, which leaves out what begins with `_`."""
    return f" {label}" if label.startswith("_") else label


def card_figures(meta: MetaFacts, specialist: Sequence[Mapping[str, Any]], folder: Path) -> dict[str, str]:
    """Draw what a card shows beside its text: coefficients, loss terms, kept ratios.

    Args:
        meta: The meta-model.
        specialist: Log lines of a specialist's training.
        folder: Folder of the result.

    Returns:
        Path within the folder, by caption.
    """
    share = "Share of images that count in the meta-model's training"
    drawn = {
        "coefficients": ("Merging coefficients of the meta-model", coefficient_figure, meta.coefficients),
        "specialist_loss": (
            "Loss terms of the specialist", history_figure, specialist, "loss_", "mean over images",
        ),
        "meta_loss": ("Loss terms of the meta-model", history_figure, meta.history, "loss_", "mean over tasks"),
        "kept_distillation": (
            f"{share}: distillation", history_figure, meta.history, "kept_distillation/", "%", 100,
        ),
        "kept_entropy": (f"{share}: filtered entropy", history_figure, meta.history, "kept_entropy/", "%", 100),
    }  # fmt: skip
    paths = {}
    for name, (caption, draw, *args) in drawn.items():
        path = folder / FIGURES / f"{name}.png"
        if attempted(lambda draw=draw, args=args, path=path: _written(_png(draw, json.dumps(args)), path), f"{path}"):
            paths[caption] = f"{FIGURES}/{name}.png"
    return paths


@functools.lru_cache(maxsize=8)  # the meta-model's stand on the card of every specialist
def _png(draw: Callable[..., Figure | None], args: str) -> bytes | None:
    figure = draw(*json.loads(args))
    return None if figure is None else encoded(figure, "png")


def _written(png: bytes | None, path: Path) -> bool:
    if png is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(png)
    return png is not None
