"""Tables for a terminal and for Markdown."""

from __future__ import annotations

from collections.abc import Sequence


def text_table(header: Sequence[str], rows: Sequence[Sequence[str]], left: int = 1) -> str:
    """Columns as wide as what they hold, two spaces apart.

    Args:
        header: Names of the columns.
        rows: Cells by row.
        left: How many columns, from the first, are aligned to the left; figures are aligned to the right.
    """
    lines = [list(map(str, row)) for row in [header, *rows]]
    widths = [max(len(line[i]) for line in lines) for i in range(len(header))]

    def cell(i: int, text: str) -> str:
        return f"{text:<{widths[i]}}" if i < left else f"{text:>{widths[i]}}"

    return "\n".join("  ".join(cell(i, text) for i, text in enumerate(line)).rstrip() for line in lines)


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)
