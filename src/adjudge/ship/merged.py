"""A model folder with the adapter added to the weights, for plain transformers, vLLM and other tools."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from adjudge.config import Config
from adjudge.errors import RunError
from adjudge.evaluation.predict import PromptedJudge
from adjudge.methods.passes import asked_in_passes
from adjudge.methods.registry import ASKED, get_entry
from adjudge.models.engine.forward import build_engine
from adjudge.models.policy import Policy
from adjudge.models.sources.loading import load_causal_lm
from adjudge.models.sources.quiet import no_future_warnings, quiet
from adjudge.models.sources.untrusted import ADAPTER_CONFIG, check_adapter, has_embeddings
from adjudge.rollout.prompted import PromptedTask
from adjudge.runs.base import with_model
from adjudge.runs.card import write_card
from adjudge.runs.folder import Run
from adjudge.runs.portable import FILE, base_of, judge_record
from adjudge.runs.tasks import result_folders
from adjudge.system.files import write_json
from adjudge.tasks.passes import asked_task
from adjudge.tasks.spec import TaskSpec
from adjudge.types import Example, Prediction

DTYPES = ("float32", "bfloat16", "float16")


def write(run: Run, specs: Sequence[TaskSpec], folder: Path, dtype: str) -> Any:
    """Write model, tokenizer, judge.json and card into `folder`; return the judge of what was written."""
    model, tokenizer = merged_model(run)
    with quiet():
        model.to(getattr(torch, dtype)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    del model  # another copy is judged with
    write_json(folder / FILE, merged_record(run, specs, "merged"))
    if (run.folder / "config.yaml").is_file():
        parts = result_folders(run.folder)
        judged = all((part / "scores.json").is_file() for part in parts)
        results = [Run.open(part).scores() for part in parts] if judged else []
        write_card(folder, run, specs, results, base_of(run))
    again = with_model(run.config, "model", str(folder))  # its own code, if it has any, is that of the trusted base
    return judging(again, *load_causal_lm(str(folder), again.runtime))


def merged_record(run: Run, specs: Sequence[TaskSpec], kind: str) -> dict[str, Any]:
    """Return the judge.json of an export without adapter: the model lies beside it and is asked as it is."""
    record = judge_record(run, specs)
    return record | {"format": kind, "settings": record["settings"] | {"method": ASKED}}


def merged_model(run: Run) -> tuple[Any, Any]:
    """Return the run's model with the adapter added, in float32 and in the machine's memory, and its tokenizer.

    Raises RunError without an adapter, and for one that cannot be added. Adding in float32 matters: rounding the sum to
    bfloat16 first would change answers.
    """
    from peft import PeftModel

    entry = get_entry(run.config.method)
    if entry.rates_labels and (run.part("adapter") / ADAPTER_CONFIG).is_file():
        raise RunError(
            f"{run.folder} is a {run.config.method}: it rates answers with a head, which a language model has no place "
            "for, and writes none. Take it elsewhere as it is: its adapter folder, with judge.json."
        )
    adapter = run.part("adapter")
    check_adapter(adapter)
    if has_embeddings(adapter):
        raise RunError(
            f"{run.folder} adds instruction embeddings to its layers, for which a plain model has no place. Take it "
            "elsewhere as it is: its adapter folder, which adjudge loads."
        )
    if run.config.runtime.quantization != "none":
        raise RunError(
            f"{run.folder} was trained on weights of {run.config.runtime.quantization}, to which an adapter cannot be "
            "added without changing it. Serve base and adapter apart."
        )
    runtime = run.config.runtime.model_copy(update={"dtype": "float32"})
    model, tokenizer = load_causal_lm(run.config.model, runtime, on_cpu=True)
    with no_future_warnings():
        model = PeftModel.from_pretrained(model, str(adapter), torch_device="cpu").merge_and_unload(safe_merge=True)
    return model, tokenizer


def judging(config: Config, model: Any, tokenizer: Any) -> Any:
    """Return a function (task, rows) → answers of a model asked as it is."""
    policy = Policy(model, tokenizer, config.model, build_engine(model, config.model))

    def judge(spec: TaskSpec, rows: Sequence[Example]) -> list[Prediction]:
        judge = asked_in_passes(PromptedJudge(PromptedTask(policy, asked_task(spec), config)), spec)
        return judge.judge(rows, title="judging again")

    return judge
