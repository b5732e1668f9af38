"""``adjudge tasks``: list the tasks, describe one, explain mistakes in a task file, or export some."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import typer

from adjudge.cli import options
from adjudge.cli.completion import complete_tasks
from adjudge.cli.show import stdout

if TYPE_CHECKING:
    from adjudge.tasks.spec import TaskSpec
    from adjudge.types import Example

EPILOG = options.examples(
    "adjudge tasks",
    "adjudge tasks glue/rte --data-dir data",
    "adjudge tasks --overlap --data-dir data",
    "adjudge tasks validate my_task.yaml",
    "adjudge tasks --export lm-eval neighbours glue/sst2 glue/rte --data-dir data",
)


def add_to(app: typer.Typer) -> None:
    """Add the verb."""
    app.command("tasks", epilog=EPILOG)(tasks)


def tasks(
    ctx: typer.Context,
    names: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[NAME|FILE.yaml|validate FILE.yaml]",
            help="Task to describe, or file to check after `validate`; with --export any number of tasks.",
            show_default=False,
            autocompletion=complete_tasks,
        ),
    ] = None,
    data_dir: options.DataDir = None,
    prompt_style: options.PromptStyle = None,
    overlap: Annotated[
        bool,
        typer.Option("--overlap", help="Count the dev rows that are among the training rows too, for one task or all."),
    ] = False,
    export: Annotated[
        tuple[str, str] | None,
        typer.Option(
            metavar="lm-eval|inspect DIR",
            help="Write tasks with their rows for lm-evaluation-harness or Inspect AI, into a new folder.",
        ),
    ] = None,
    model: options.Model = None,
    run: Annotated[
        str | None,
        typer.Option(
            metavar="DIR", help="Export the tasks and prompts of a finished run.", rich_help_panel=options.HOW
        ),
    ] = None,
    split: options.Split = None,
    eval_rows: options.EvalRows = None,
) -> None:
    """List the tasks, describe one, check a task file, or export some for other programs.

    A description ends with a prompt as the model sees it. A check explains every mistake in the file.
    """
    from adjudge.cli import neighbours
    from adjudge.errors import ConfigError

    given = names or []
    if export is not None:
        if overlap:
            raise ConfigError("--overlap counts rows and --export writes them: give one of the two.")
        read = (*neighbours.OPTIONS, "data_dir", "prompt_style")
        neighbours.export(*export, given, {name: ctx.params[name] for name in read})
        return
    if unread := [name for name in neighbours.OPTIONS if ctx.params[name] is not None]:
        raise ConfigError(f"{options.option_of(unread[0])} is only for --export lm-eval|inspect DIR.")
    name, more = (given[0], given[1:]) if given else (None, [])
    if name == "validate":
        if not more:
            raise ConfigError("Name the file to check: adjudge tasks validate FILE.yaml.")
        _refuse_more(more[1:])
        _validate(more[0])
        return
    _refuse_more(more)
    if overlap:
        from adjudge.cli.overlap import show_overlap

        show_overlap(name, data_dir)
    elif name is None:
        _list()
    else:
        _describe(name, data_dir, prompt_style)


def _refuse_more(more: Sequence[str]) -> None:
    from adjudge.errors import ConfigError

    if more:
        raise ConfigError(
            f"'{more[0]}' is one argument too many: adjudge tasks NAME, or adjudge tasks validate FILE.yaml."
        )


def _list() -> None:
    from rich.table import Table
    from rich.text import Text

    from adjudge.tasks import list_tasks, load_task

    table = Table("task", "what is judged", "answers", "ranked by", box=None, pad_edge=False)
    for name in list_tasks():
        spec = load_task(name)
        table.add_row(*(Text(text) for text in (spec.name, spec.title, _answers(spec), spec.primary)))
    stdout().print(table)


def _validate(file: str) -> None:
    from adjudge.config import load_config
    from adjudge.errors import TaskError
    from adjudge.experiments.what_was_read import report_own_table
    from adjudge.system.console import warn
    from adjudge.tasks import load_task, validate_task
    from adjudge.tasks.validate import unnamed_words

    mistakes = validate_task(file)
    if mistakes:
        raise TaskError(
            f"{file}: {len(mistakes)} {'mistake' if len(mistakes) == 1 else 'mistakes'}:\n"
            + "\n".join(f"  - {mistake}" for mistake in mistakes)
        )
    typer.echo(f"{file}: a valid task.")
    spec = load_task(file)
    if spec.source.table is not None and Path(spec.source.table.train).is_file():
        report_own_table(spec, load_config())
    if missing := unnamed_words(spec):
        warn(f"the instruction does not name {', '.join(missing)}: the untrained model cannot know this answer.")


def _describe(name: str, data_dir: str | None, prompt_style: str | None) -> None:
    from adjudge.config import load_config
    from adjudge.prompts.render import Renderer
    from adjudge.tasks import load_task
    from adjudge.tasks.passes import ask, asked_task

    spec = load_task(name)
    config = load_config(values={"prompt.style": prompt_style})
    lines = {
        "title": spec.title,
        "about": " ".join(spec.description.split()),
        "answers": _answers(spec),
        "metrics": ", ".join(spec.metrics),
        "fields": ", ".join(spec.fields),
        "rows from": _sources(spec),
    }
    typer.echo(spec.name)
    for key, text in lines.items():
        if text:
            typer.echo(f"  {key + ':':<10} {text}")
    tokenizer, form = _tokenizer_at_hand(config.prompt.style)
    example, origin = _example(spec, data_dir)
    typer.echo(f"\nA prompt ({form}; {origin}), the answer follows:\n")
    if spec.several == "passes":
        spec, example = asked_task(spec), ask(spec, example)[0]
    typer.echo(Renderer(tokenizer, spec, config.prompt).text(example))


def _answers(spec: TaskSpec) -> str:
    if spec.number is not None:
        return f"a number from {spec.number.low:g} to {spec.number.high:g}"
    return f"any of {', '.join(spec.names)}" if spec.several else ", ".join(spec.words)


def _sources(spec: TaskSpec) -> str:
    source, sources = spec.source, []
    if source.files:
        sources.append(f"--data-dir DIR ({source.files.folder})")
    if source.vader:
        sources.append("adjudge fetch vader")
    if source.generated:
        sources.append(f"a generator ({source.generated.generator})")
    if source.table:
        sources.append(source.table.train)
    if source.hub:
        sources.append(f"the hub ({source.hub.path}{f', {source.hub.config}' if source.hub.config else ''})")
    return ", or ".join(sources)


def _example(spec: TaskSpec, data_dir: str | None) -> tuple[Example, str]:
    """Return the first dev row and its origin; without local rows a row of field names.

    Nothing is downloaded for a description.
    """
    from adjudge.errors import DataError
    from adjudge.tasks import load_split
    from adjudge.types import Example

    placeholder = Example("", {field: f"⟨{field}⟩" for field in spec.fields})
    source = spec.source
    if data_dir is None and source.vader is None and source.generated is None and source.table is None:
        return placeholder, "the first row with --data-dir"
    try:
        return load_split(spec, "dev", data_dir)[0], "the first dev row"
    except DataError:
        if data_dir is not None:
            raise
        return placeholder, "its rows are not here yet"


def _tokenizer_at_hand(style: str) -> tuple[Any, str]:
    """Return a tokenizer and the name of the prompt's form.

    With the bundled model in the cache it is its tokenizer, for its chat template. The plain form needs none.
    """
    from adjudge.models.sources.bundled import bundled_folder, is_fetched

    name = "smollm2-135m"
    if style == "chat" and is_fetched(name):
        from adjudge.models.sources.loading import load_tokenizer

        return load_tokenizer(name, str(bundled_folder(name)), {}), f"chat template of {name}"
    return _NoTokenizer(), "plain form" if style == "paper" else "plain form, as no chat model is fetched"


class _NoTokenizer:
    """Stands in for a tokenizer where a prompt is only shown as text: no chat template, no tokens."""

    bos_token_id = unk_token_id = chat_template = None
    added_tokens_decoder: ClassVar[dict[int, Any]] = {}

    def __call__(self, _text: str, **_options: Any) -> Any:
        return _Nothing()


class _Nothing:
    """What `_NoTokenizer` makes of a text."""

    ids = input_ids = ()

    def __getitem__(self, _index: int) -> _Nothing:
        return self
