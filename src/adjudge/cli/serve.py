"""``adjudge serve``: answer requests over HTTP with finished runs."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from adjudge.cli.doubt import MinConfidence
from adjudge.cli.method_names import EXAMPLE
from adjudge.cli.options import BaseModel, JudgingSettings, SendRows, examples, given_settings

if TYPE_CHECKING:
    from adjudge.ship.serving.judges import ServedJudge

EPILOG = examples(
    f"adjudge serve --run runs/vader-movies/{EXAMPLE}-seed0",
    "adjudge serve --run runs/reviews --run runs/topics --port 8080",
    "adjudge serve --run runs/reviews runtime.threads=4",
)
KEY = "ADJUDGE_API_KEY"
LOOPBACK = ("127.", "::1", "localhost")


def add_to(app: typer.Typer) -> None:
    """Add the verb."""
    app.command("serve", epilog=EPILOG)(serve)


def serve(
    ctx: typer.Context,
    run: Annotated[
        list[str],
        typer.Option(
            metavar="DIR", help="A finished run folder, or a comparison's. Give it several times to serve several."
        ),
    ],
    overrides: JudgingSettings = None,
    task: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="Only this task, of a run or a comparison over several.", show_default="all of a run"
        ),
    ] = None,
    model: BaseModel = None,
    host: Annotated[str, typer.Option(metavar="ADDRESS", help="Address to listen at.")] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(metavar="N", min=0, max=65535, help="Port to listen at; 0 is any free one.")
    ] = 8000,
    min_confidence: MinConfidence = None,
    send_rows: SendRows = False,
) -> None:
    """Answer requests over HTTP with finished runs, and show a page to try them.

    POST /v1/classify takes texts and gives labels with probabilities; the forms of OpenAI's API work too.
    Set ADJUDGE_API_KEY to ask every client for a key.
    """
    from adjudge.errors import ConfigError
    from adjudge.system.console import note, warn

    try:
        from adjudge.ship.serving.app import build_app
        from adjudge.ship.serving.run import address, bind
        from adjudge.ship.serving.run import serve as serve_app
    except ModuleNotFoundError as error:
        if error.name not in ("starlette", "uvicorn"):
            raise
        raise ConfigError("adjudge serve needs Starlette and uvicorn: pip install 'adjudge[serve]'.") from None

    key = os.environ.get(KEY)
    if key is not None and not key.strip():
        raise ConfigError(f"{KEY} is set but empty: give it a key, or unset it to serve without one.")
    bound = bind(host, port)
    judges = _load(run, task, model, given_settings(ctx.params), min_confidence or [])
    if key is None and not host.startswith(LOOPBACK):
        warn(f"everyone who reaches {host} can use these judges. Set {KEY} to ask for a key.")
    note(f"serving at {address(bound)}  (a page at /, POST /v1/classify, /v1/chat/completions)")
    serve_app(build_app(judges, key=None if key is None else key.strip()), bound)
    note("stopped; every accepted request was answered.")


def _load(
    runs: list[str], task: str | None, model: str | None, settings: Mapping[str, Any], min_confidence: list[str]
) -> list[ServedJudge]:
    """Return the judges of the runs. Prints what each is, and the vLLM command for its adapter."""
    from adjudge.config import change
    from adjudge.evaluation.abstention import read_decision
    from adjudge.experiments.evaluate import load_judges, open_folder
    from adjudge.experiments.pick_run import pick_run
    from adjudge.methods.registry import get_entry
    from adjudge.runs.calibration import temperature_of
    from adjudge.runs.tasks import pick_among
    from adjudge.ship.serving.judges import judges_of_run, names_for
    from adjudge.ship.serving.vllm import vllm_command
    from adjudge.system.console import note

    names = names_for([Path(folder) for folder in runs])
    folders = [pick_run(Path(folder), task) for folder in runs]
    served: list[ServedJudge] = []
    for name, folder in zip(names, folders, strict=True):
        opened, specs = open_folder(folder, model=model)
        if task is not None:
            specs = [pick_among(folder, specs, task)]
        decisions = {spec.name: read_decision(spec, min_confidence) for spec in specs}
        judges = load_judges(folder, model=model, settings=settings)  # checks the settings, too
        config = change(opened.config, settings)
        loaded = judges_of_run(name, specs, judges, method=config.method, batch_size=config.evaluation.batch_size)
        for index, judge in enumerate(loaded):
            task = judge.spec.name
            each = replace(judge, temperature=temperature_of(folder, task), decision=decisions[task])
            loaded[index] = each
            each.warm_up()
            sure = "" if each.spec.is_number else f", probabilities {'un' * (each.temperature is None)}calibrated"
            note(f"{each.name}: {config.method} on {task}, fields: {', '.join(each.spec.fields)}{sure}")
        command = vllm_command(opened.part("adapter"), config.model, loaded[0].name)
        if command is not None and not get_entry(config.method).rates_labels:
            note(f"  the same adapter in vLLM, which needs the run's own prompts:\n  {command}")
        served += loaded
    return served
