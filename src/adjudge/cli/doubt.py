"""The options that say what becomes of doubtful answers."""

from __future__ import annotations

from typing import Annotated

import typer

DOUBT = "Doubtful answers"
"""Title of their panel in a help page."""

MinConfidence = Annotated[
    list[str] | None,
    typer.Option(
        metavar="P|LABEL=P",
        help="Hold back answers with a probability below P; LABEL=P for one label. May be given several times.",
        show_default="every answer is given",
        rich_help_panel=DOUBT,
    ),
]
AbstainShare = Annotated[
    float | None,
    typer.Option(metavar="S", help="Hold back this share of the rows, the least sure ones.", rich_help_panel=DOUBT),
]
CostFile = Annotated[
    str | None,
    typer.Option(
        "--costs",
        metavar="FILE",
        help="Answer what costs least: a table with a row per right label and a column per answer.",
        rich_help_panel=DOUBT,
    ),
]
