"""`report.html`: one page that holds everything, figures inside."""

from __future__ import annotations

from pathlib import Path

from markupsafe import Markup
from matplotlib.figure import Figure

from ..cards.inputs import HEADER
from ..cards.roster import VIEWS
from ..core.attempt import attempted
from ..core.json_files import replace_text
from ..core.pages import template
from ..evaluation import Report
from .figures import accuracy_figure, coefficient_figure, gain_figure, history_figure, svg


def write_report(report: Report, path: str | Path) -> None:
    """Write the report page; it needs no other file and no network."""
    meta = report.history.meta
    figures = {
        "Accuracy by task": (accuracy_figure, report),
        "Specialists against their experts": (gain_figure, report),
        "Merging coefficients of the meta-model": (coefficient_figure, report.coefficients),
        "Loss terms of the meta-model": (history_figure, meta, "loss_", "mean over tasks"),
        "Share of images that the entropy counts": (history_figure, meta, "kept_entropy/", "%", 100),
        "Share of images that are distilled from the expert": (history_figure, meta, "kept_distillation/", "%", 100),
    }
    drawn = {
        title: attempted(lambda draw=draw, args=args: _drawn(draw(*args)), f"the figure '{title}'")
        for title, (draw, *args) in figures.items()
    }
    page = template(Path(__file__).parent / "templates" / "report.html", html=True).render(
        report=report,
        views=VIEWS,
        inputs_header=HEADER,
        figures={title: figure for title, figure in drawn.items() if figure},
    )
    replace_text(Path(path), page)


def _drawn(figure: Figure | None) -> Markup | None:
    return None if figure is None else Markup(svg(figure))
