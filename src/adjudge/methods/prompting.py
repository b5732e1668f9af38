"""Zero-shot and few-shot prompting: the untrained model, asked.

Differs from arXiv 2410.11020: few-shot demonstrations are balanced over the labels by default
(``prompt.demonstration_choice=first`` takes the first rows, as the paper does), and they are turns of the chat where the model
has a chat template.
"""

from __future__ import annotations

from collections.abc import Sequence

from adjudge.errors import RunError
from adjudge.evaluation.predict import Judge, PromptedJudge
from adjudge.methods.base import Method
from adjudge.models.policy import load_policy
from adjudge.prompts.demonstrations import choose_demonstrations
from adjudge.runs.folder import Run, read_jsonl
from adjudge.system.files import write_text
from adjudge.tasks.spec import TaskSpec
from adjudge.types import Example

DEMONSTRATIONS = "demonstrations.jsonl"


def _build_zero_shot(run: Run, spec: TaskSpec, train: Sequence[Example]) -> Judge:
    return PromptedJudge(load_policy(run.config), spec, run.config)


def _build_few_shot(run: Run, spec: TaskSpec, train: Sequence[Example]) -> Judge:
    chosen = choose_demonstrations(train, spec, run.config.prompt)
    _write_demonstrations(run, chosen)
    return PromptedJudge(load_policy(run.config), spec, run.config, chosen)


def _load_few_shot(run: Run, spec: TaskSpec) -> Judge:
    path = run.folder / DEMONSTRATIONS
    if not path.is_file():  # without them it would quietly be another method
        raise RunError(
            f"{path} is missing: the demonstrations that the run showed. Evaluate few-shot anew with another --out."
        )
    return PromptedJudge(load_policy(run.config), spec, run.config, [Example(**record) for record in read_jsonl(path)])


def _write_demonstrations(run: Run, chosen: Sequence[Example]) -> None:
    import json

    lines = (json.dumps({"id": e.id, "fields": dict(e.fields), "gold": e.gold}, ensure_ascii=False) for e in chosen)
    write_text(run.folder / DEMONSTRATIONS, "".join(f"{line}\n" for line in lines))


ZERO_SHOT = Method(
    name="zero-shot",
    build=_build_zero_shot,
    load=lambda run, spec: _build_zero_shot(run, spec, ()),
)

FEW_SHOT = Method(
    name="few-shot",
    build=_build_few_shot,
    load=_load_few_shot,
)
