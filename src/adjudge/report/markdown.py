"""table.md: the comparison's table, the averages over GLUE and SuperGLUE, and the figures per phenomenon."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from adjudge.report.phenomena import phenomena, phenomena_columns, phenomena_line
from adjudge.report.suites import suite_columns, suite_lines, suite_scores
from adjudge.report.tables import LEFT, columns_of, incomplete_lines, rows_text, significance_lines, visible


def comparison_markdown(table: Mapping[str, Any]) -> str:
    """The whole of table.md for the mapping of table.json. Ends with a newline."""
    parts = [markdown_table(table)]
    for scored in suite_scores(table):
        head, lines = suite_columns(scored)
        parts.append(
            "\n".join(
                [*aligned(head, lines, left=head[:1]), "", *(f"- {escaped(line)}" for line in suite_lines(scored)), ""]
            )
        )
    for task in dict.fromkeys(str(row["task"]) for row in table.get("rows", ())):
        if found := phenomena(table, task):
            head, lines = phenomena_columns(found)
            parts.append(
                "\n".join([*aligned(head, lines, left=head[:1]), "", escaped(phenomena_line(task, found)), ""])
            )
    return "\n".join(parts)


def markdown_table(table: Mapping[str, Any]) -> str:
    """table.md: an aligned table that also reads well as plain text, then the sentences below it. Ends with a newline."""
    head, lines = columns_of(table)
    if not lines:
        return (
            "\n".join(
                ["No cell is finished yet.", "", *(f"- {escaped(line)}" for line in incomplete_lines(table))]
            ).rstrip()
            + "\n"
        )
    text = aligned(head, lines, LEFT)
    notes = [
        f"Intervals are 95 %. {rows_text(table)}".strip(),
        "",
        *(f"- {escaped(line)}" for line in significance_lines(table)),
    ]
    return "\n".join([*text, "", *notes]).rstrip() + "\n"


def aligned(head: Sequence[str], lines: Sequence[Sequence[str]], left: Collection[str]) -> list[str]:
    """The lines of a Markdown table whose columns are as wide as their widest cell; those named in `left` begin at the left."""
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
    """Text that Markdown shows as it is; a ``<`` that cannot begin a tag stays plain, for those who read the file itself."""
    quoted = visible(text).replace("\\", "\\\\").replace("|", "\\|")
    return re.sub(r"<(?=[A-Za-z/!?])", r"\\<", quoted)


def _width(text: str) -> int:
    return sum(
        0 if unicodedata.combining(char) else 2 if unicodedata.east_asian_width(char) in "WF" else 1 for char in text
    )
