"""Figures of a report, as SVG text."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import matplotlib
from matplotlib.figure import Figure

from .results import MODELS, Report


if TYPE_CHECKING:
    from matplotlib.axes import Axes


COLOURS = {
    "base": "#b8bcc4",
    "weight_average": "#9fb8d0",
    "task_arithmetic": "#7f9fc4",
    "expert": "#5b6270",
    "meta": "#2f6db3",
    "specialist": "#d9822b",
    "specialist_ungated": "#ecc08e",
}


def _svg(figure: Figure) -> str:
    stream = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": "hf_mdft", "svg.fonttype": "none", "font.family": "sans-serif"}):
        figure.savefig(stream, format="svg", bbox_inches="tight", metadata={"Date": None})
    text = stream.getvalue()
    return text[text.index("<svg") :]


def _axes(width: float, height: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(width, height))
    axes = figure.add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def accuracy_figure(report: Report) -> str | None:
    """Bars by task for the models that matter most."""
    shown = [m for m in ("base", "expert", "meta", "specialist") if report.accuracy.get(m)]
    names = [*report.tasks, "average"]
    if not shown:
        return None
    figure, axes = _axes(max(6, 1.1 * len(names)), 3)
    width = 0.8 / len(shown)
    for i, model in enumerate(shown):
        heights = [100 * report.accuracy[model].get(name, 0) for name in names]
        places = [j + (i - (len(shown) - 1) / 2) * width for j in range(len(names))]
        axes.bar(places, heights, width * 0.92, label=MODELS[model], color=COLOURS[model])
    axes.set_xticks(range(len(names)), names, rotation=25, ha="right")
    axes.set_ylabel("accuracy in %")
    axes.set_ylim(0, 100)
    axes.legend(frameon=False, ncols=len(shown), loc="lower center", bbox_to_anchor=(0.5, 1.0))
    return _svg(figure)


def gain_figure(report: Report) -> str | None:
    """Points gained over the expert by each specialist, with and without the gate."""
    names = [t for t in report.tasks if t in report.comparison]
    if not names:
        return None
    expert, ungated = report.accuracy["expert"], report.accuracy["specialist_ungated"]
    figure, axes = _axes(max(5, 0.9 * len(names)), 2.6)
    for i, name in enumerate(names):
        gain = 100 * (ungated[name] - expert[name])
        kept = report.gate[name]["chosen"] == "specialist"
        axes.bar(i, gain, 0.6, color=COLOURS["specialist"] if kept else "white", edgecolor=COLOURS["specialist"])
    axes.axhline(0, color="black", linewidth=0.8)
    axes.set_xticks(range(len(names)), names, rotation=25, ha="right")
    axes.set_ylabel("points over the expert")
    axes.set_title("filled: kept by the gate; hollow: the expert was kept", fontsize=9, loc="left")
    return _svg(figure)


def coefficient_figure(report: Report) -> str | None:
    """Coefficients by tensor (rows, from the embeddings down) and expert (columns)."""
    if not report.coefficients:
        return None
    experts = list(next(iter(report.coefficients.values())))
    values = [[row[expert] for expert in experts] for row in report.coefficients.values()]
    figure, axes = _axes(1.5 + 0.55 * len(experts), 4.2)
    limit = max(abs(v) for row in values for v in row) or 1.0
    image = axes.imshow(values, aspect="auto", cmap="RdBu_r", vmin=-limit, vmax=limit, interpolation="nearest")
    axes.set_xticks(range(len(experts)), experts, rotation=35, ha="right")
    axes.set_ylabel(f"{len(values)} parameter tensors, input to output")
    axes.set_yticks([])
    figure.colorbar(image, ax=axes, label="merging coefficient")
    return _svg(figure)


def history_figure(report: Report, phase: str, prefix: str, ylabel: str, scale: float = 1.0) -> str | None:
    """Everything logged in a phase under a prefix, over the steps."""
    lines = [line for line in report.history.get(phase, []) if "loss" in line]
    keys = sorted({key for line in lines for key in line if key.startswith(prefix)})
    if len(lines) < 2 or not keys:
        return None
    figure, axes = _axes(5, 2.6)
    for key in keys:
        points = [(line["step"], scale * line[key]) for line in lines if key in line]
        axes.plot(*zip(*points, strict=True), label=key.removeprefix(prefix), linewidth=1.4)
    axes.set_xlabel("step")
    axes.set_ylabel(ylabel)
    axes.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))
    return _svg(figure)
