"""table.md: the comparison, suite averages, figures per label, per phenomenon and of probabilities."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from adjudge.report.across import tables_across
from adjudge.report.certainty import certainties, certainty_columns, certainty_line
from adjudge.report.columns import LEFT_ALIGNED, table_columns, without_dashes
from adjudge.report.labels import label_columns, label_figures, label_line
from adjudge.report.phenomena import phenomena, phenomena_columns, phenomena_line
from adjudge.report.sentences import incomplete_lines, rows_line, table_notes
from adjudge.report.slices import slices, slices_line
from adjudge.report.suites import suite_columns, suite_lines, suite_scores
from adjudge.report.text import visible


def comparison_markdown(table: Mapping[str, Any]) -> str:
    """Return the whole of table.md for the mapping of table.json. Ends with a newline."""
    parts = [markdown_table(table)]
    for scores in suite_scores(table):
        head, lines = without_dashes(*suite_columns(scores))
        parts.append("\n".join([*aligned(head, lines, left=head[:1]), "", *_bullets(suite_lines(scores)), ""]))
    for across in tables_across(table):
        drawn = aligned(across.head, across.lines, left=across.head[:1])
        parts.append("\n".join([*drawn, "", *_bullets(across.notes), ""]))
    tasks = list(dict.fromkeys(str(row["task"]) for row in table.get("rows", ())))
    for task in tasks:
        if figures := label_figures(table, task):
            head, lines = without_dashes(*label_columns(figures))
            parts.append("\n".join([*aligned(head, lines, left=head[:1]), "", escaped(label_line(task, figures)), ""]))
    for task in tasks:
        if sure := certainties(table, task):
            head, lines = without_dashes(*certainty_columns(sure))
            line = escaped(certainty_line(task, sure, table))
            parts.append("\n".join([*aligned(head, lines, left=head[:1]), "", line, ""]))
    for task in tasks:
        if items := phenomena(table, task):
            head, lines = without_dashes(*phenomena_columns(items))
            parts.append(
                "\n".join([*aligned(head, lines, left=head[:1]), "", escaped(phenomena_line(task, items)), ""])
            )
        if sliced := slices(table, task):
            head, lines = without_dashes(*phenomena_columns(sliced, "slice"))
            parts.append("\n".join([*aligned(head, lines, left=head[:1]), "", escaped(slices_line(task, sliced)), ""]))
    return "\n".join(parts)


def markdown_table(table: Mapping[str, Any]) -> str:
    """Return the comparison's table, aligned as plain text, and its sentences. Ends with a newline."""
    head, lines = table_columns(table)
    if not lines:
        empty = ["No run is finished yet.", "", *_bullets(incomplete_lines(table))]
        return "\n".join(empty).rstrip() + "\n"
    intro = f"Intervals are 95 %. {rows_line(table)}".strip()
    return (
        "\n".join([*aligned(head, lines, LEFT_ALIGNED), "", intro, "", *_bullets(table_notes(table))]).rstrip() + "\n"
    )


def aligned(head: Sequence[str], lines: Sequence[Sequence[str]], left: Collection[str]) -> list[str]:
    """Return the lines of a Markdown table with columns as wide as their widest cell.

    Columns named in `left` are aligned at the left, the others at the right.
    """
    cells = [[escaped(text) for text in line] for line in [head, *lines]]
    widths = [max(_width(line[column]) for line in cells) for column in range(len(head))]
    rule = [
        ("-" * width if name in left else "-" * (width - 1) + ":") for name, width in zip(head, widths, strict=True)
    ]
    text = []
    for line in [cells[0], rule, *cells[1:]]:
        padded = [
            cell + " " * (width - _width(cell)) if name in left else " " * (width - _width(cell)) + cell
            for name, cell, width in zip(head, line, widths, strict=True)
        ]
        text.append(f"| {' | '.join(padded)} |")
    return text


def escaped(text: str) -> str:
    """Escape text so that Markdown shows it unchanged.

    A ``<`` that cannot begin a tag stays plain, for those who read the file itself.
    """
    quoted = visible(text).replace("\\", "\\\\").replace("|", "\\|")
    return re.sub(r"<(?=[A-Za-z/!?])", r"\\<", quoted)


def _bullets(sentences: Sequence[str]) -> list[str]:
    return [f"- {escaped(sentence)}" for sentence in sentences]


def _width(text: str) -> int:
    """Return the width of a text in terminal columns."""
    return sum(
        0 if unicodedata.combining(char) else 2 if unicodedata.east_asian_width(char) in "WF" else 1 for char in text
    )
