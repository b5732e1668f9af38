"""``adjudge evaluate``: judge rows with a prompted model or with a finished run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from adjudge.cli import options
from adjudge.cli.show import show_scores

EPILOG = (
    "Examples:\n\n`adjudge evaluate --method few-shot --task glue/rte --data-dir data`\n\n"
    "`adjudge evaluate --run runs/vader-movies/sft-seed0 --task vader/tweets`\n\n"
    "`adjudge evaluate --run runs/vader-movies/sft-seed0 --decode labels`"
)


def add_to(app: typer.Typer) -> None:
    """Add the verb."""
    app.command("evaluate", epilog=EPILOG)(evaluate)


def evaluate(
    overrides: options.Overrides = None,
    method: Annotated[
        str | None, typer.Option(metavar="zero-shot|few-shot", help="Ask the untrained model.", show_default="none")
    ] = None,
    run: Annotated[str | None, typer.Option(metavar="DIR", help="A finished run folder.", show_default="none")] = None,
    task: options.Task = None,
    data_dir: options.DataDir = None,
    train_rows: options.TrainRows = None,
    eval_rows: options.EvalRows = None,
    split: options.Split = None,
    data: options.Data = None,
    dev: options.Dev = None,
    text: options.Text = None,
    label: options.Label = None,
    labels: options.Labels = None,
    model: options.Model = None,
    seed: options.Seed = None,
    preset: options.Preset = "default",
    config: options.ConfigFile = None,
    prompt_style: options.PromptStyle = None,
    decode: options.Decode = None,
    out: Annotated[
        str | None,
        typer.Option(
            metavar="DIR",
            help="Folder for the results.",
            show_default="runs/TASK/METHOD-seedN; for --run the run's own",
            rich_help_panel=options.PLACE,
        ),
    ] = None,
    force: options.Force = False,
) -> None:
    """Judge the rows of a task and score the answers: an untrained model (--method) or what a run trained (--run)."""
    from adjudge.console import note
    from adjudge.errors import ConfigError
    from adjudge.methods.execute import evaluate_run, execute
    from adjudge.methods.registry import get_entry

    if (method is None) == (run is None):
        raise ConfigError("Say what judges: --method zero-shot, --method few-shot, or --run DIR (one of them).")
    own_data = {"data": data, "text": text, "label": label, "labels": labels, "dev": dev}
    if run is not None:
        given = {
            "--model": model,
            "--train-rows": train_rows,
            "--seed": seed,
            "--preset": preset if preset != "default" else None,
            "--config": config,
            "--prompt-style": prompt_style,
        }
        fixed = [option for option, value in given.items() if value is not None] + list(overrides or ())
        if fixed:
            raise ConfigError(f"{fixed[0]} was settled when {run} was trained; with --run it cannot be changed.")
        named = task is not None or any(value is not None for value in own_data.values())
        settings = options.build_config(preset=preset, file=None, overrides=(), values={"evaluation.decode": decode})
        spec = options.chosen_tasks(task, settings, **own_data)[0] if named else None
        folder, scores = evaluate_run(
            run, spec=spec, split=split, eval_rows=eval_rows, decode=decode, data_dir=data_dir, out=out, force=force
        )
        show_scores(scores, folder)
        return
    entry = get_entry(method or "")
    if entry.trains:
        raise ConfigError(f"{method} must be trained first: adjudge train {method}; then adjudge evaluate --run DIR.")
    values = {
        "method": method,
        "model": model,
        "seed": seed,
        "data.data_dir": data_dir,
        "data.train_rows": train_rows,
        "data.eval_rows": eval_rows,
        "data.split": split,
        "prompt.style": prompt_style,
        "evaluation.decode": decode,
    }
    settings = options.build_config(preset=preset, file=config, overrides=overrides, values=values)
    specs = options.chosen_tasks(task, settings, **own_data)
    if len(specs) > 1:
        raise ConfigError("evaluate takes one task; `adjudge compare` takes several.")
    settings = settings.model_copy(update={"task": specs[0].name})
    folder = Path(out) if out is not None else Path("runs") / options.file_name(specs[0].name) / f"{method}-seed{settings.seed}"
    note(f"judging {specs[0].name} with {method} → {folder}")
    show_scores(execute(settings, specs[0], folder, force=force), folder)
