"""The study as a figure."""

from __future__ import annotations

from matplotlib.figure import Figure

from ...artifacts.figures import in_style
from ...cards import compared
from .result import ShiftStudy
from .table import order


PALETTE = ("#5a9e6f", "#8d6cab", "#c0504d", "#3aa6a6", "#a0764a", "#d16ba5", "#6b8e23", "#4a4a8a")
"""Colors of baselines, one after the other."""

COLORS = {"expert_views": "#5b6270", "specialist_views": "#d9822b"}
"""Those of the model that is run on nine views; its line is dashed."""


@in_style
def shift_figure(study: ShiftStudy) -> Figure | None:
    """Average accuracy over severity, one panel per shift and one line per model: above on the shifted test images,
    below, the same models on the clean ones. `None` where nothing was shifted."""
    shifts = list(dict.fromkeys(condition.shift for condition in study.conditions if condition.severity))
    if not shifts:
        return None
    figure = Figure(figsize=(1.5 + 2.6 * len(shifts), 5.2))
    grid = figure.subplots(2, len(shifts), sharex=True, sharey=True, squeeze=False)
    colors = dict(zip(study.baselines, PALETTE * len(study.baselines), strict=False)) | COLORS
    for column, shift in enumerate(shifts):
        # The images as they are stand at severity 0 of every shift.
        found = [condition for condition in study.conditions if condition.shift == shift or not condition.severity]
        for axes, images in zip(grid[:, column], ("shifted", "clean"), strict=True):
            axes.spines[["top", "right"]].set_visible(False)
            for name in order(study):
                if name == "specialist_ungated":  # mostly the specialists' own line
                    continue
                heights = [100 * getattr(condition, images)[name].average for condition in found]
                axes.plot(
                    [condition.severity for condition in found],
                    heights,
                    "--" if name.endswith("_views") else "-",
                    marker=".",
                    linewidth=1.3,
                    color=colors.get(name) or compared(name).color,
                    label=compared(name).label,
                )
        grid[0, column].set_title(shift, fontsize=10)
        grid[1, column].set_xlabel("severity")
        grid[1, column].set_xticks(sorted({condition.severity for condition in found}))
    grid[0, 0].set_ylabel("accuracy in %, shifted")
    grid[1, 0].set_ylabel("accuracy in %, clean")
    handles, labels = grid[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, frameon=False, ncols=4, loc="lower center", bbox_to_anchor=(0.5, 0.96), fontsize=8)
    return figure
