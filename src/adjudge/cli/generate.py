"""``adjudge generate --task T --rows N --out rows.csv``: labelled rows where there are none."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from adjudge.cli import options
from adjudge.cli.completion import complete_tasks
from adjudge.cli.method_names import EXAMPLE

if TYPE_CHECKING:
    from adjudge.config import Config
    from adjudge.generation.generate import Order
    from adjudge.generation.plan import Plan
    from adjudge.generation.selection import Selection
    from adjudge.tasks.spec import TaskSpec

EPILOG = options.examples(
    "adjudge generate --task glue/sst2 --data-dir data --rows 200 --out rows.csv",
    "adjudge generate --labels Polite,Rude --about Message --rows 100 --out rows.csv",
    "adjudge generate --labels Polite,Rude --prompt 'Rude=A rude answer to a customer:' --rows 100 --out rows.csv",
    f"adjudge train {EXAMPLE} --task rows.yaml",
)
WHAT = "What is written"
SHOWN = 2
"""Rows of each label that are shown at the end."""


def add_to(app: typer.Typer) -> None:
    """Add the verb."""
    app.command("generate", epilog=EPILOG)(generate)


def generate(
    ctx: typer.Context,
    rows: Annotated[int, typer.Option(min=2, metavar="N", help="Rows, of all labels together.", rich_help_panel=WHAT)],
    out: Annotated[
        str,
        typer.Option(
            metavar="FILE.csv", help="The rows; beside them FILE.json and FILE.yaml.", rich_help_panel=options.PLACE
        ),
    ],
    overrides: options.Overrides = None,
    task: Annotated[
        str | None,
        typer.Option(
            metavar="NAME|FILE.yaml",
            help="Task whose rows are written; no row that it judges is among them.",
            autocompletion=complete_tasks,
            rich_help_panel=options.ROWS,
        ),
    ] = None,
    data_dir: options.DataDir = None,
    skip_dev: Annotated[
        bool,
        typer.Option(
            "--skip-dev", help="Do not read the task's dev rows: some may be generated.", rich_help_panel=WHAT
        ),
    ] = False,
    labels: Annotated[
        str | None,
        typer.Option(metavar="WORD,…", help="Labels of single texts, in place of a task.", rich_help_panel=WHAT),
    ] = None,
    about: Annotated[
        str | None,
        typer.Option(
            metavar="TEXT",
            help="What the texts are, for the prompt `TEXT labelled WORD:`.",
            show_default="the field's name",
            rich_help_panel=WHAT,
        ),
    ] = None,
    prompt: Annotated[
        list[str] | None,
        typer.Option(
            metavar="WORD=TEXT",
            help="What stands before a text with this label; several with several --prompt.",
            show_default="the task's own, or that of --about",
            rich_help_panel=WHAT,
        ),
    ] = None,
    form: Annotated[
        str,
        typer.Option(
            metavar="base|chat", help="The model continues the prompt, or answers it as a chat.", rich_help_panel=WHAT
        ),
    ] = "base",
    oversample: Annotated[
        int, typer.Option(min=1, metavar="N", help="Texts written per row kept.", rich_help_panel=WHAT)
    ] = 4,
    select: Annotated[
        str,
        typer.Option(metavar="top|random", help="Keep the likeliest texts, or draw them.", rich_help_panel=WHAT),
    ] = "top",
    temperature: Annotated[
        float | None,
        typer.Option(
            min=0,
            max=100,
            metavar="T",
            help="Temperature; 0: always the likeliest token.",
            show_default="the task's, else 1",
            rich_help_panel=WHAT,
        ),
    ] = None,
    max_tokens: Annotated[
        int | None,
        typer.Option(
            min=1, metavar="N", help="Longest text.", show_default="the task's, else 40", rich_help_panel=WHAT
        ),
    ] = None,
    corpus: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="First texts of pairs, one per line.",
            show_default="those of the task's training rows",
            rich_help_panel=options.ROWS,
        ),
    ] = None,
    model: options.Model = None,
    seed: options.Seed = None,
    preset: options.Preset = "default",
    config: options.ConfigFile = None,
    force: Annotated[
        bool, typer.Option("--force", help="Replace rows that are there.", rich_help_panel=options.PLACE)
    ] = False,
) -> None:
    """Write labelled rows with a language model: for a task, or for labels of your own.

    Of all texts that it writes after a label's prompt, those that the model itself finds likeliest are kept. Nobody
    checks their labels. Given again, a stopped command goes on where it was.
    """
    from adjudge.generation.generate import check_order, identity_of
    from adjudge.generation.generate import generate as generate_rows
    from adjudge.generation.work import Work
    from adjudge.models.policy import load_policy
    from adjudge.system.console import note

    settings = options.build_config(ctx.params)
    spec = _task(ctx.params)
    order = _order(ctx.params, settings, spec)
    check_order(order, settings, Path(out), _inputs(ctx.params, spec))
    work = Work(Path(out), identity_of(order, settings), force=force)
    for word in order.plan.words:
        example = order.plan.prompt(word, "…")
        note(f"{word}: {example} {order.plan.start(0)}".rstrip())
    selection = generate_rows(load_policy(settings), settings, order, Path(out), work, spec)
    _report(order, selection, Path(out), spec)


def _task(params: Mapping[str, Any]) -> TaskSpec | None:
    """Return the task, or None for labels. Raises ConfigError for both or neither."""
    from adjudge.errors import ConfigError
    from adjudge.tasks import load_task

    if (params["task"] is None) == (params["labels"] is None):
        raise ConfigError("Say what is generated: either --task NAME or --labels WORD,WORD.")
    if params["task"] is not None:
        return load_task(params["task"])
    if unused := [name for name in ("data_dir", "skip_dev", "corpus") if params[name]]:
        raise ConfigError(f"{options.option_of(unused[0])} is for a task, and --labels are labels of single texts.")
    return None


def _order(params: Mapping[str, Any], settings: Config, spec: TaskSpec | None) -> Order:
    from adjudge.errors import ConfigError
    from adjudge.generation.generate import Order
    from adjudge.generation.plan import FORMS, changed, plan_for_labels, plan_for_task, with_prompts
    from adjudge.system.console import warn

    if params["form"] not in FORMS:
        raise ConfigError(f"--form '{params['form']}': write base or chat.")
    if params["select"] not in ("top", "random"):
        raise ConfigError(f"--select '{params['select']}': write top or random.")
    if spec is None:
        plan = plan_for_labels(options.split_list(params["labels"], "--labels"), params["about"])
    else:
        plan = plan_for_task(spec, params["about"])
    plan = with_prompts(plan, params["prompt"] or ())
    plan = changed(plan, {"temperature": params["temperature"], "max_tokens": params["max_tokens"]}, params["form"])
    given, given_from = _given_texts(params, settings, spec, plan)
    dev_texts: frozenset[str] = frozenset()
    if spec is not None and params["skip_dev"]:
        warn("--skip-dev: dev rows may be among the generated ones, and figures on them would flatter.")
    elif spec is not None:
        from adjudge.tasks import load_split
        from adjudge.tasks.reading.same_text import text_key

        data = settings.data
        dev_texts = frozenset(text_key(row.fields) for row in load_split(spec, "dev", data.data_dir, data.bad_rows))
    at_random = params["select"] == "random"
    return Order(plan, params["rows"], params["oversample"], at_random, given, given_from, dev_texts)


def _inputs(params: Mapping[str, Any], spec: TaskSpec | None) -> list[Path]:
    """Return the files of the user's own that are read."""
    table = spec.source.table if spec is not None else None
    tables = [] if table is None else [table.train, table.dev, table.test]
    return [Path(name) for name in (params["task"], params["corpus"], *tables) if name]


def _given_texts(
    params: Mapping[str, Any], settings: Config, spec: TaskSpec | None, plan: Plan
) -> tuple[tuple[str, ...], str]:
    """Return the first texts of pairs, each once, and their origin; nothing where whole rows are written."""
    from adjudge.errors import ConfigError
    from adjudge.system.console import note
    from adjudge.system.files import read_lines
    from adjudge.tasks import load_split

    if plan.given is None or spec is None:
        if params["corpus"] is not None:
            raise ConfigError(f"--corpus gives the first texts of pairs, and {plan.name} has single texts.")
        return (), ""
    if params["corpus"] is not None:
        texts, _ = read_lines(Path(params["corpus"]))
        origin = Path(params["corpus"]).name
    else:
        rows = load_split(spec, "train", settings.data.data_dir, settings.data.bad_rows)
        texts, origin = [row.fields[plan.given] for row in rows], "training rows"
        note(f"The first texts are those of the training rows, without their labels ({plan.given}).")
    return tuple(dict.fromkeys(" ".join(text.split()) for text in texts if text.strip())), origin


def _report(order: Order, selection: Selection, out: Path, spec: TaskSpec | None) -> None:
    from adjudge.generation.selection import REASONS, fields_of
    from adjudge.system.console import note

    for reason, count in selection.dropped.items():
        note(f"dropped: {count:,} {REASONS[reason]}")
    for word in order.plan.words:
        of_label = [row for row in selection.rows if row.word == word]
        note(f"{word}: {len(of_label):,} rows of {selection.passed[word]:,} different texts")
        for row in of_label[:SHOWN]:
            note(f"    {' | '.join(fields_of(order.plan, row).values())}")
    note(f"written: {out}")
    source = f"--task {out.with_suffix('.yaml')}" if spec else f"--data {out} --text text --label label"
    note(f"train on them with: adjudge train {EXAMPLE} {source}")
