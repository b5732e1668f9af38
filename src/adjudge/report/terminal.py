"""Tables for the terminal, drawn with rich. Names and words are never read as markup.

A table that is wider than the terminal is laid out otherwise, so that no word and no number is broken: brackets go to a
second line, then each task gets a table of its own, then the columns are split over several tables.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from adjudge.report.columns import LEFT_ALIGNED, MIXED_COLUMNS, PEAK, PEAK_GPU, best_cells, table_columns
from adjudge.report.sentences import rows_line
from adjudge.report.text import visible

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderableType
    from rich.table import Table
    from rich.text import Text

SHORT_TITLES = {
    "training rows": "train\nrows",
    "seconds (train / evaluate)": "train /\neval. (s)",
    PEAK: "peak\nGiB",
    PEAK_GPU: "GiB /\non GPU",
}

WIDEST = 10_000
"""A width in which every table fits: to measure how wide one is when nothing is broken."""


@dataclass(frozen=True, slots=True)
class Grid:
    """The cells of a table, and the columns that are aligned at the left."""

    head: list[str]
    lines: list[list[Text]]
    left: frozenset[str]

    def columns(self, numbers: Sequence[int]) -> Grid:
        """Return the grid of these columns."""
        lines = [[line[number] for number in numbers] for line in self.lines]
        return Grid([self.head[number] for number in numbers], lines, self.left)

    def rows(self, numbers: Sequence[int]) -> Grid:
        """Return the grid of these rows."""
        return Grid(self.head, [self.lines[number] for number in numbers], self.left)

    def table(self) -> Table:
        """Draw the grid. Only a column that is too wide alone is cut, with an ellipsis."""
        from rich import box
        from rich.table import Table
        from rich.text import Text

        table = Table(box=box.SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0))
        for name in self.head:
            table.add_column(
                Text(SHORT_TITLES.get(name) or visible(name)),
                justify="left" if name in self.left else "right",
                overflow="ellipsis",
                no_wrap=name in LEFT_ALIGNED,
            )
        for line in self.lines:
            table.add_row(*line)
        return table


class Fitted:
    """A table drawn in its first layout that fits the terminal, or else in the last, split by columns."""

    def __init__(self, layouts: Sequence[Sequence[tuple[str, Grid]]], caption: str = "") -> None:
        self.layouts = layouts
        """Each layout is a list of grids, with the title above each ("" for none)."""
        self.caption = caption

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[RenderableType]:
        """Yield titles, tables and the caption."""
        from rich.text import Text

        fitting = (layout for layout in self.layouts if all(_fits(grid, console, options) for _, grid in layout))
        for number, (title, grid) in enumerate(next(fitting, self.layouts[-1])):
            if title:
                yield Text(f"\n{visible(title)}" if number else visible(title), style="bold")
            for part_number, part in enumerate(_split(grid, console, options)):
                if part_number:
                    yield Text("")
                yield part.table()
        if self.caption:
            yield Text(self.caption, style="dim italic")


def results_table(table: Mapping[str, Any]) -> Fitted:
    """Return the comparison's table (the mapping of table.json), with the best values in bold."""
    from rich.text import Text

    head, lines = table_columns(table)
    best = best_cells(table, head)

    def grid(*, broken: bool) -> Grid:
        cells = [
            [
                Text(text, style="bold" if (number, column) in best else "")
                for column, text in enumerate(_cells(head, line, broken=broken))
            ]
            for number, line in enumerate(lines)
        ]
        return Grid(head, cells, LEFT_ALIGNED)

    metrics = head[head.index("method") + 1 : head.index("unreadable")]
    whole, broken = grid(broken=len(metrics) > 1), grid(broken=True)
    layouts = [[("", whole)], [("", broken)]]
    if "task" in head:
        tasks = list(dict.fromkeys(line[0] for line in lines))
        rows_of = {task: [number for number, line in enumerate(lines) if line[0] == task] for task in tasks}
        untitled = broken.columns(range(1, len(head)))
        layouts.append([(task, untitled.rows(rows_of[task])) for task in tasks])
    return Fitted(layouts, rows_line(table))


def text_table(head: Sequence[str], lines: Sequence[Sequence[str]]) -> Fitted:
    """Return a table of header and cells, the first column left-aligned, the others right-aligned."""
    from rich.text import Text

    cells = [[Text(visible(text)) for text in line] for line in lines]
    broken = [[Text(visible(text).replace(" [", "\n[").replace(" (", "\n(")) for text in line] for line in lines]
    left = frozenset(head[:1])
    return Fitted([[("", Grid(list(head), cells, left))], [("", Grid(list(head), broken, left))]])


def _fits(grid: Grid, console: Console, options: ConsoleOptions) -> bool:
    from rich.measure import Measurement

    return Measurement.get(console, options.update(max_width=WIDEST), grid.table()).maximum <= options.max_width


def _split(grid: Grid, console: Console, options: ConsoleOptions) -> Iterator[Grid]:
    """Yield grids with as many columns as fit; each begins with the first column, which names the rows."""
    first, others = 0, list(range(1, len(grid.head)))
    while others:
        count = len(others)
        while count > 1 and not _fits(grid.columns([first, *others[:count]]), console, options):
            count -= 1
        yield grid.columns([first, *others[:count]])
        others = others[count:]


def _cells(head: Sequence[str], line: Sequence[str], *, broken: bool) -> list[str]:
    """Return the cells of one line as they are shown; `broken` moves brackets to a second line."""
    metrics = head[head.index("method") + 1 : head.index("unreadable")]
    cells = []
    for name, text in zip(head, line, strict=True):
        cell = visible(text)
        if name in MIXED_COLUMNS:
            cell = cell.replace("; ", "\n")
        if broken and name in {"method", "unreadable", *metrics}:
            cell = cell.replace(" [", "\n[").replace(" (", "\n(")
        cells.append(cell)
    return cells
