"""`report.html`: one page that holds everything, figures inside."""

from __future__ import annotations

from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from .figures import accuracy_figure, coefficient_figure, gain_figure, history_figure
from .results import Report


def write_report(report: Report, path: str | Path) -> None:
    """Write the report page; it needs no other file and no network."""
    figures = {
        "Accuracy by task": accuracy_figure(report),
        "Specialists against their experts": gain_figure(report),
        "Merging coefficients of the meta-model": coefficient_figure(report),
        "Loss terms of the meta-model": history_figure(report, "meta", "loss_", "mean over tasks"),
        "Share of images that the entropy counts": history_figure(report, "meta", "kept_entropy/", "%", 100),
        "Share of images anchored to the expert": history_figure(report, "meta", "kept_anchor/", "%", 100),
    }
    loader = FileSystemLoader(Path(__file__).parent / "templates")
    template = Environment(loader=loader, autoescape=True, undefined=StrictUndefined).get_template("report.html")
    page = template.render(
        report=report,
        rows=report.rows(),
        figures={title: Markup(svg) for title, svg in figures.items() if svg},
    )
    Path(path).write_text(page)
