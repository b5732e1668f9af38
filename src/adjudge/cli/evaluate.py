"""``adjudge evaluate``: judge rows with a prompted model, an adapter from elsewhere or a finished run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from adjudge.cli import options, own_data
from adjudge.cli.method_names import EXAMPLE, UNTRAINED, either
from adjudge.cli.show import show_scores

EPILOG = options.examples(
    f"adjudge evaluate --method {UNTRAINED[-1]} --task glue/rte --data-dir data",
    f"adjudge evaluate --run runs/reviews/{EXAMPLE}-seed0 --data more-reviews.csv",
    f"adjudge evaluate --run runs/vader-movies/{EXAMPLE}-seed0 --task vader/tweets",
    f"adjudge evaluate --run runs/glue-mnli/{EXAMPLE}-seed0 --task glue/ax --data-dir data",
    f"adjudge evaluate --run runs/vader-movies/{EXAMPLE}-seed0 --decode labels",
    "adjudge evaluate --adapter their-lora --task glue/sst2 --data-dir data",
)

FIXED_BY_TRAINING = {
    "train_rows": None,
    "seed": None,
    "preset": "default",
    "config": None,
    "prompt_style": None,
    "labels": None,
    "instruction": None,
    "kind": None,
}
"""Parameters that cannot be given with ``--run``, each with its value when it was not given."""


def add_to(app: typer.Typer) -> None:
    """Add the verb."""
    app.command("evaluate", epilog=EPILOG)(evaluate)


def evaluate(
    ctx: typer.Context,
    overrides: options.Overrides = None,
    method: Annotated[
        str | None, typer.Option(metavar="NAME", help=f"Prompt the untrained model: {either(UNTRAINED)}.")
    ] = None,
    run: Annotated[str | None, typer.Option(metavar="DIR", help="Judge with a finished run, in this folder.")] = None,
    adapter: Annotated[
        str | None,
        typer.Option(
            metavar="DIR", help="Judge with a LoRA adapter that peft or trl saved; its base model, or that of --model."
        ),
    ] = None,
    task: options.Task = None,
    data_dir: options.DataDir = None,
    train_rows: options.TrainRows = None,
    eval_rows: options.EvalRows = None,
    split: options.Split = None,
    data: options.Data = None,
    dataset: own_data.Dataset = None,
    dataset_config: own_data.DatasetConfig = None,
    dev: options.Dev = None,
    instruction: options.Instruction = None,
    text: options.Text = None,
    label: options.Label = None,
    labels: options.Labels = None,
    kind: options.Kind = None,
    separator: options.Separator = None,
    encoding: options.Encoding = None,
    model: options.Model = None,
    seed: options.Seed = None,
    preset: options.Preset = "default",
    config: options.ConfigFile = None,
    prompt_style: options.PromptStyle = None,
    decode: options.Decode = None,
    send_rows: options.SendRows = False,
    out: Annotated[
        str | None,
        typer.Option(
            metavar="DIR",
            help="Folder for the results.",
            show_default="runs/TASK/METHOD-seedN; with --run in the run folder; with --adapter named after it",
            rich_help_panel=options.PLACE,
        ),
    ] = None,
    force: options.Force = False,
) -> None:
    """Judge a task's rows with an untrained model, an adapter or a finished run, and score the answers.

    Name one of them, with --method, --adapter or --run. With --run, --data is a file whose every row is judged with the
    run's own task; --text and --label name its columns, where they are not the task's.
    """
    from adjudge.errors import ConfigError
    from adjudge.experiments.execute import execute
    from adjudge.experiments.what_was_read import report_own_table
    from adjudge.methods.registry import parse_name
    from adjudge.runs.default_folder import default_folder
    from adjudge.system.console import note

    if sum(judge is not None for judge in (method, run, adapter)) != 1:
        raise ConfigError(f"Name the judge: --method {either(UNTRAINED)}, --adapter DIR, or --run DIR (one of them).")
    if run is not None:
        for folder, scores in _judge_with_run(ctx.params):
            show_scores(scores, folder)
        return
    params, shown = (ctx.params, str(method)) if adapter is None else _with_adapter(ctx.params)
    entry, _ = parse_name(params["method"])
    if entry.trains:
        raise ConfigError(f"{method} must be trained first: adjudge train {method}; then adjudge evaluate --run DIR.")
    settings = options.build_config(params)
    spec = own_data.only_task(params, settings, "evaluate")
    folder = Path(out) if out is not None else default_folder([spec], shown, settings.seed)
    note(f"judging {spec.name} with {shown} → {folder}")
    report_own_table(spec, settings)
    show_scores(execute(settings, spec, folder, force=force), folder)


def _with_adapter(params: Mapping[str, Any]) -> tuple[dict[str, Any], str]:
    """Return the parameters of a verb with what ``--adapter`` stands for, and what the judge is called.

    The base model is the one that the adapter names, unless a parameter or a KEY=VALUE names another.
    """
    from adjudge.methods.registry import GIVEN
    from adjudge.runs.given_adapter import base_of_adapter, given_adapter

    adapter = given_adapter(params["adapter"])
    changes = {"method": GIVEN, "adapter": str(adapter.foreign.folder)}
    if params["model"] is None and "model" not in options.given_settings(params):
        changes["model"] = base_of_adapter(adapter)
    return {**params, **changes}, f"{GIVEN}-{adapter.short_name}"


def _judge_with_run(params: Mapping[str, Any]) -> list[tuple[Path, dict[str, Any]]]:
    """Judge with the run that ``--run`` names; return folder and scores of each result."""
    from adjudge.errors import ConfigError
    from adjudge.experiments.evaluate import evaluate_tasks
    from adjudge.runs.tasks import pick_task

    fixed = [options.option_of(name) for name, absent in FIXED_BY_TRAINING.items() if params[name] != absent]
    if fixed:
        raise ConfigError(f"{fixed[0]} was fixed when {params['run']} was trained; with --run it cannot be changed.")
    settings = options.build_config(params)  # checks the other options, too
    passed_on = {name: params[name] for name in ("split", "eval_rows", "decode", "data_dir", "out", "force", "model")}
    passed_on["settings"] = options.given_settings(params)
    if params["data"] is None:
        names_task = any(params[name] is not None for name in ("task", "dataset", *own_data.OWN_ROWS))
        spec = own_data.only_task(params, settings, "evaluate") if names_task else None
        return evaluate_tasks(params["run"], spec=spec, **passed_on)
    if params["dataset"] is not None:
        raise ConfigError("--data and --dataset both say which rows: give one of them.")
    if params["dev"] is not None:
        raise ConfigError("With --run, every row of --data is judged: leave --dev out, or name its file with --data.")
    text = options.split_list(params["text"], "--text") if params["text"] is not None else ()
    spec = None if params["task"] is None else pick_task(Path(params["run"]), params["task"])
    passed_on |= {name: params[name] for name in ("data", "label", "separator", "encoding")}
    return evaluate_tasks(params["run"], spec=spec, text=text, **passed_on)
