"""The model card of a trained judge: what it judges, how well, and how to use it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from adjudge.models.sources.untrusted import HEAD_WEIGHTS, has_embeddings, has_head
from adjudge.runs.calibration import read_calibration
from adjudge.runs.folder import Run, read_json
from adjudge.system.files import write_text
from adjudge.tasks.spec import TaskSpec
from adjudge.version import __version__

FILE = "README.md"


def write_card(
    folder: Path, run: Run, specs: Sequence[TaskSpec], results: Sequence[Mapping[str, Any]], base: Mapping[str, Any]
) -> None:
    """Write the card into `folder`.

    `results` are the scores of each task, and `base` is the model underneath.
    """
    from huggingface_hub import ModelCardData

    hub = base.get("hub")
    data = ModelCardData(
        base_model=hub,
        library_name="peft" if folder.name == "adapter" else None,
        pipeline_tag="text-classification",
        tags=["adjudge", run.config.method, *(["lora"] if folder.name == "adapter" else [])],
        model_name=f"{run.config.method} on {', '.join(spec.name for spec in specs)}",
        eval_results=_eval_results(specs, results),
        ignore_metadata_errors=True,
    )
    parts = [
        f"---\n{data.to_yaml()}\n---",
        f"# A judge: {', '.join(spec.title for spec in specs)}",
        _what(run, specs, base),
        "## How well it judges",
        _table(specs, results),
        *_warnings(results),
        "## How it was trained",
        _training(run, specs),
        "## How to use it",
        _use(folder, hub),
        "## Intended use and limits",
        _limits(base),
    ]
    write_text(folder / FILE, "\n\n".join(parts) + "\n")


def _what(run: Run, specs: Sequence[TaskSpec], base: Mapping[str, Any]) -> str:
    lines = []
    for spec in specs:
        fields = ", ".join(f"`{field}`" for field in spec.fields)
        answers = ", ".join(f"`{word}`" for word in spec.words)
        if spec.number is not None:
            answers = f"a number from {spec.number.low:g} to {spec.number.high:g}"
        lines.append(f"- **{spec.name}**: {spec.instruction.strip()}\n  It reads {fields} and answers {answers}.")
    model = base.get("hub") or base.get("name")
    text = f"Trained with adjudge {__version__} (`{run.config.method}`)"
    text += f", on top of `{model}`." if model else "."
    return "\n\n".join([text, "\n".join(lines), *([str(base["note"])] if base.get("note") else [])])


def _table(specs: Sequence[TaskSpec], results: Sequence[Mapping[str, Any]]) -> str:
    if not results:
        return "It was not judged by adjudge."
    rows = ["| task | rows | metric | value | 95 % interval |", "| --- | --: | --- | --: | --- |"]
    for spec, scores in zip(specs, results, strict=True):
        for name, figure in scores["metrics"].items():
            interval = "–" if figure["low"] is None else f"{figure['low']:.3f} to {figure['high']:.3f}"
            value = "undefined" if figure["value"] is None else f"{figure['value']:.3f}"
            rows.append(f"| {spec.name} | {scores['n']} | {name} | {value} | {interval} |")
    per_label = [
        f"| {spec.name} | {word} | {figures['gold']} | {_share(figures['precision'])} | {_share(figures['recall'])} |"
        for spec, scores in zip(specs, results, strict=True)
        for word, figures in scores.get("per_label", {}).items()
    ]
    if per_label:
        rows += ["", "| task | answer | rows | precision | recall |", "| --- | --- | --: | --: | --: |", *per_label]
    return "\n".join(rows)


def _warnings(results: Sequence[Mapping[str, Any]]) -> list[str]:
    lines = []
    for scores in results:
        if scores.get("majority", {}).get("one_label"):
            lines.append(f"On {scores['task']} it answers `{scores['majority']['word']}` for every row.")
        if scores["unreadable"]:
            lines.append(f"{scores['unreadable']} of {scores['n']} answers on {scores['task']} were unreadable.")
    return lines


def _training(run: Run, specs: Sequence[TaskSpec]) -> str:
    training = read_json(run.folder / "training.json") if (run.folder / "training.json").is_file() else {}
    lines = [
        f"- {training.get('train_rows', 'an unknown number of')} training rows, seed {run.config.seed}",
        f"- SHA-256 of the rows: `{training.get('rows_sha256', 'unknown')}`",
    ]
    for spec in specs:
        if spec.on_hub is not None:
            lines.append(f"- {spec.name} is `{spec.on_hub[0]}` on the hub, revision `{spec.on_hub[1]}`")
    for task, fitted in read_calibration(run.folder).items():
        lines.append(
            f"- Its probabilities on {task} are calibrated: temperature {fitted['temperature']:.3g}, fitted on "
            f"{fitted['rows']} {fitted['source']}"
        )
    lines.append("- `judge.json` holds the task, the prompt and every setting that decides an answer")
    return "\n".join(lines)


def _use(folder: Path, hub: str | None) -> str:
    text = f"""With adjudge, from this folder or the id of its repository:

```python
import adjudge

judge = adjudge.open_judge("path/to/{folder.name}")
print(judge.predict(["A text to judge."]))
```"""
    if folder.name == "adapter" and has_embeddings(folder):
        text += """

It adds instruction embeddings to layers of its base model, which peft, vLLM and llama.cpp do not know: only adjudge
loads it."""
    elif folder.name == "adapter" and has_head(folder):
        text += f"""

It answers with the classification head in `{HEAD_WEIGHTS}`. Tools that load the LoRA layers alone leave the
head out: what they write is no judgement."""
    elif folder.name == "adapter" and hub:
        text += """

With plain peft, for the weights alone (the prompt is in `judge.json`):

```python
from peft import AutoPeftModelForCausalLM

model = AutoPeftModelForCausalLM.from_pretrained("path/to/adapter")
```"""
    return text


def _limits(base: Mapping[str, Any]) -> str:
    lines = [
        "- It is meant for texts like those it was trained on, and for the answers named above.",
        "- The figures are of the rows named above. On other texts they will differ, and they are not a promise.",
        "- It has the biases of its base model and of its labels. Do not let it decide about people by itself.",
    ]
    if base:
        lines.append("- The licence of the base model applies to what is built on it.")
    return "\n".join(lines)


def _eval_results(specs: Sequence[TaskSpec], results: Sequence[Mapping[str, Any]]) -> list[Any]:
    from huggingface_hub import EvalResult

    return [
        EvalResult(
            task_type="text-classification",
            dataset_type=spec.on_hub[0] if spec.on_hub is not None else spec.name,
            dataset_name=spec.title,
            dataset_split=scores["split"],
            metric_type=name,
            metric_value=round(figure["value"], 4),
        )
        for spec, scores in zip(specs, results, strict=bool(results))
        for name, figure in scores["metrics"].items()
        if figure["value"] is not None
    ]


def _share(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"
