"""Draws docs/images/results.svg from the first table of docs/results.md.

python docs/figures.py
"""

from __future__ import annotations

import re
from pathlib import Path

import matplotlib


matplotlib.use("svg")
import matplotlib.pyplot as plt  # noqa: E402


PAGE = Path(__file__).with_name("results.md")
FIGURE = PAGE.parent / "images" / "results.svg"
MODELS = {"base": "#b8bdc4", "experts": "#6b7f99", "meta-model": "#e0a83c", "specialists": "#c2452d"}
"""Columns of the table that are drawn, with their colors."""


def read_table(text: str) -> dict[str, dict[str, float]]:
    """Accuracy in percent by pool and model, from the table under "Average accuracy"."""
    section = text.split("\n## Average accuracy\n")[1].split("\n## ")[0]
    rows = [[cell.strip() for cell in re.findall(r"[^|]+", line)] for line in re.findall(r"^\|.*\|$", section, re.M)]
    header, values = rows[0], rows[2:]
    return {row[0]: {name: float(cell) for name, cell in zip(header[1:], row[1:], strict=True)} for row in values}


def draw(accuracy: dict[str, dict[str, float]], path: Path) -> None:
    """Grouped bars, from 0 to 100 %."""
    with plt.rc_context({"svg.fonttype": "none", "svg.hashsalt": "hf_mdft", "font.size": 10}):
        figure, axes = plt.subplots(figsize=(7.5, 3), layout="constrained")
        width = 0.8 / len(MODELS)
        for number, (model, color) in enumerate(MODELS.items()):
            places = [pool + (number - (len(MODELS) - 1) / 2) * width for pool in range(len(accuracy))]
            heights = [row[model] for row in accuracy.values()]
            bars = axes.bar(places, heights, 0.94 * width, label=model, color=color)
            axes.bar_label(bars, labels=[f"{height:.1f}" for height in heights], padding=2, fontsize=8)
        axes.set_xticks(range(len(accuracy)), [f"pool {pool}" for pool in accuracy])
        axes.set_ylim(0, 100)
        axes.set_ylabel("average accuracy in percent")
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(axis="x", length=0)
        axes.legend(ncols=len(MODELS), loc="upper left", frameon=False)
        path.parent.mkdir(exist_ok=True)
        figure.savefig(path, facecolor="white", metadata={"Date": None})
        plt.close(figure)


if __name__ == "__main__":
    draw(read_table(PAGE.read_text(encoding="utf-8")), FIGURE)
