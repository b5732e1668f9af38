"""What a run would send to an API, said before anything is run.

The writer itself asks for consent once more.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from operator import add
from pathlib import Path

from adjudge.config import Config
from adjudge.errors import ConfigError
from adjudge.methods.for_tasks import longest_step, steps_before
from adjudge.methods.registry import get_entry
from adjudge.methods.settings import api_models, model_of
from adjudge.models.chat_api import Outgoing, check_consent, check_ready, has_consent, is_api, outgoing_line
from adjudge.prompts.demonstrations import choose_demonstrations
from adjudge.prompts.explanations import with_placeholders
from adjudge.runs.folder import WRITER_LOG
from adjudge.system.console import note
from adjudge.tasks.spec import TaskSpec
from adjudge.types import Example


def outgoing(
    config: Config, specs: Sequence[TaskSpec], train: Sequence[Sequence[Example]], judged: Sequence[Sequence[Example]]
) -> Outgoing | None:
    """Return what judging these rows would send to the API of the run's model; None for a local model."""
    if not is_api(model_of(config)):
        return None
    from adjudge.prompts.messages import answer_limit, prompt_messages  # it imports PyTorch

    parts = []
    if (entry := get_entry(config.method)).many_questions:
        method_outgoing = entry.load().outgoing
        assert method_outgoing is not None
        return reduce(add, (method_outgoing(config, *each) for each in zip(specs, train, judged, strict=True)))
    for spec, train_rows, rows in zip(specs, train, judged, strict=True):
        shown: Sequence[Example] = ()
        if entry.rows == "demonstrations":
            shown = choose_demonstrations(train_rows, spec, config.prompt, config.seed)[: config.prompt.demonstrations]
            shown = with_placeholders(shown, config.prompt, config.answer.analysis_tokens)
        steps = [steps_before(config, row) for row in rows]  # each about as long as the row's prompt
        letters = sum(
            (1 + count) * sum(len(message["content"]) for message in prompt_messages(row, spec, config.prompt, shown))
            for row, count in zip(rows, steps, strict=True)
        )
        written = len(rows) * answer_limit(spec, config) + sum(steps) * longest_step(config)
        parts.append(Outgoing(len(rows) + sum(steps), letters, written))
    return reduce(add, parts)


def check_sending(runs: Sequence[tuple[Config, Outgoing | None, Path]], *, say: bool = False) -> None:
    """Raise ConfigError for what keeps runs of one model from sending rows: consent, a key, a network.

    A folder with logged answers is left to the writer: what is logged needs none of them. With `say`, say what goes.
    """
    for config, _, folder in runs:
        writer = next((name for name in api_models(config) if name != model_of(config)), None)
        if writer is not None and not (folder / WRITER_LOG).is_file():
            check_ready(writer, config.api)
            if not has_consent():
                writes = get_entry(config.method).writes
                raise ConfigError(
                    f"{writer} writes {writes} for {config.method}: requests with training rows go to "
                    f"{config.api.base_url}.\nNothing was sent. Add --send-rows if they may leave this machine."
                )
    parts = [(config, going) for config, going, folder in runs if going and not (folder / WRITER_LOG).is_file()]
    if not parts:
        return
    config, total = parts[0][0], reduce(add, (going for _, going in parts))
    entries = [get_entry(config.method) for config, _ in parts]
    searching = any(entry.trains and not entry.many_questions for entry in entries)
    what = "rows and their steps" if any(entry.stepwise for entry in entries) else "rows"
    if any(entry.many_questions for entry in entries):
        what = "questions about rows, at most," if what == "rows" else f"questions about {what}, at most,"
    what = f"{what}{',' * (not what.endswith(','))} besides those of a search," if searching else what
    check_consent(total, model_of(config), config.api, what)
    several = len(parts) > 1
    if say and (several or any(entry.stepwise or entry.many_questions for entry in entries)):
        note(f"{'in all: ' * several}{outgoing_line(total, model_of(config), config.api, what)}")


def note_sending(config: Config, going: Outgoing) -> None:
    """Say what a run would send."""
    many = get_entry(config.method).many_questions
    note(outgoing_line(going, model_of(config), config.api, "questions about rows, at most," if many else "rows"))
