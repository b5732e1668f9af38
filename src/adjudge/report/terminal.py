"""Tables for the terminal, drawn with rich. Names and words are never read as markup."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from adjudge.report.columns import LEFT_ALIGNED, MIXED_COLUMNS, PEAK, PEAK_GPU, best_cells, table_columns
from adjudge.report.sentences import rows_line
from adjudge.report.text import visible

if TYPE_CHECKING:
    from rich.table import Table

SHORT_TITLES = {
    "training rows": "train\nrows",
    "seconds (train / evaluate)": "train /\neval. (s)",
    PEAK: "peak\nGiB",
    PEAK_GPU: "GiB /\non GPU",
}


def results_table(table: Mapping[str, Any]) -> Table:
    """Return the comparison's table (the mapping of table.json), with the best values in bold."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    head, lines = table_columns(table)
    shown = Table(
        box=box.SIMPLE_HEAD,
        caption=Text(rows_line(table)),
        caption_justify="left",
        show_edge=False,
        padding=(0, 1, 0, 0),
    )
    for name in head:
        shown.add_column(
            Text(SHORT_TITLES.get(name) or visible(name)),
            justify="left" if name in LEFT_ALIGNED else "right",
            no_wrap=name in LEFT_ALIGNED,
        )
    best = best_cells(table, head)
    for number, line in enumerate(lines):
        cells = _broken(head, line)
        shown.add_row(
            *(Text(text, style="bold" if (number, column) in best else "") for column, text in enumerate(cells))
        )
    return shown


def text_table(head: Sequence[str], lines: Sequence[Sequence[str]]) -> Table:
    """Return a table of header and cells, the first column left-aligned, the others right-aligned."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    shown = Table(box=box.SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0))
    for number, name in enumerate(head):
        shown.add_column(Text(visible(name)), justify="right" if number else "left")
    for line in lines:
        shown.add_row(*(Text(visible(text)) for text in line))
    return shown


def _broken(head: Sequence[str], line: Sequence[str]) -> list[str]:
    """Break the cells of one line: with several metrics, 80 columns need a second line for brackets."""
    metrics = head[head.index("method") + 1 : head.index("unreadable")]
    cells = []
    for name, text in zip(head, line, strict=True):
        cell = visible(text)
        if name in MIXED_COLUMNS:
            cell = cell.replace("; ", "\n")
        if len(metrics) > 1 and name in {"method", "unreadable", *metrics}:
            cell = cell.replace(" [", "\n[").replace(" (", "\n(")
        cells.append(cell)
    return cells
