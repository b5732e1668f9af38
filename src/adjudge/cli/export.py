"""``adjudge export --run DIR --format F --out DIR``: a judge as a model of its own."""

from __future__ import annotations

from typing import Annotated

import typer

from adjudge.cli.method_names import EXAMPLE
from adjudge.cli.options import JudgingSettings, examples, given_settings

EPILOG = examples(
    f"adjudge export --run runs/vader-movies/{EXAMPLE}-seed0 --format merged --out judge",
    f"adjudge export --run runs/vader-movies/{EXAMPLE}-seed0 --format gguf --dtype q8_0 --out judge-gguf",
)


def add_to(app: typer.Typer) -> None:
    """Add the verb."""
    app.command("export", epilog=EPILOG)(export)


def export(
    ctx: typer.Context,
    run: Annotated[str, typer.Option(metavar="DIR", help="A finished run folder, or a judge that left its run.")],
    kind: Annotated[
        str,
        typer.Option(
            "--format",
            metavar="FORMAT",
            help="merged (a transformers folder), gguf (llama.cpp, Ollama) or onnx (a fine-tuned encoder).",
        ),
    ],
    out: Annotated[str, typer.Option(metavar="DIR", help="Folder to write; it must not exist.")],
    overrides: JudgingSettings = None,
    dtype: Annotated[
        str | None,
        typer.Option(
            metavar="TYPE",
            help="merged: float32, bfloat16, float16. gguf: float16, bfloat16, float32, q8_0.",
            show_default="the first",
        ),
    ] = None,
    rows: Annotated[
        int, typer.Option(min=0, metavar="N", help="Judge so many of the run's judged rows again, and compare.")
    ] = 200,
    max_changed: Annotated[
        float,
        typer.Option(min=0, max=1, metavar="SHARE", help="Write nothing when more of the answers than this change."),
    ] = 0.01,
    model: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Base model, for a judge that left its run.", show_default="as recorded"),
    ] = None,
) -> None:
    """Export a judge as a model of its own, for other programs.

    The export judges rows again before it appears, and the number of changed answers is reported.
    """
    from adjudge.ship.export import export_judge
    from adjudge.system.console import note

    settings = given_settings(ctx.params)
    exported = export_judge(
        *(run, kind, out), dtype=dtype, rows=rows, max_changed=max_changed, model=model, settings=settings
    )
    if exported.rows:
        note(f"{exported.changed} of {exported.rows} answers changed ({100 * exported.share:.1f} %)")
    note(f"written: {exported.folder}")
