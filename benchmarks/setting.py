"""Define the pairs to compare, and make the specification that both sides of a pair get.

A specification (SPEC.json, see peers/README.md) holds prompts that adjudge's `Renderer` makes from real training rows.
They are token ids, so both sides begin from the same numbers. ``ours`` holds what only our side needs: the task, the
rows and further settings.
"""

from __future__ import annotations

import argparse
import datetime
import hashlib
import json
import os
import platform
import shlex
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from adjudge.config import Config, load_config
from adjudge.errors import AdjudgeError, ConfigError, nearest
from adjudge.system.memory import TOP_PAD_BYTES
from adjudge.tasks import load_split, load_task, spec_to_yaml, take_rows
from adjudge.tasks.spec import TaskSpec
from adjudge.types import Example

ROOT = Path(__file__).resolve().parents[1]
EVALUATION_BATCH = 32
PAPER_LR = 9e-6


@dataclass(frozen=True, slots=True)
class Pair:
    """A peer and the measurement of ours that it is compared with.

    `goal` is how many times faster ours should be; None means no goal.
    """

    peer: str
    what: str
    unit: str
    goal: float | None = None
    grouped: bool = False
    """Whether the peer answers each prompt several times. Its work then differs from ours."""


GROUPED = (
    "the work differs. The peer answers each prompt {samples} times and trains once on each answer; "
    "ours answers once and trains {update_epochs} times on each answer"
)
PAIRS = {
    "ppo-0.11": Pair("ppo-trl-0.11", "ppo", "prompts", 10),
    "ppo-1.12": Pair("ppo-trl-1.12", "ppo", "prompts", 12),
    "sft": Pair("sft-trl-1.16", "sft", "rows", 6),
    "grpo": Pair("grpo-trl-1.16", "ppo", "prompts", None, grouped=True),
    "rloo": Pair("rloo-trl-1.16", "ppo", "prompts", None, grouped=True),
    "evaluate": Pair("generate-transformers", "evaluate", "rows", 4),
}
MEMORY_GOAL = 1 / 3


def parse_pairs(text: str | None) -> list[str]:
    """Return the names of pairs in a text such as ``"sft,grpo"``, or all names for None.

    Raises ConfigError for an unknown name, with the nearest known one.
    """
    if text is None:
        return list(PAIRS)
    names = [name.strip() for name in text.split(",") if name.strip()]
    for name in names:
        if name not in PAIRS:
            raise ConfigError(f"There is no pair '{name}'.{nearest(name, PAIRS)}")
    return names


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that all programs of this package share."""
    parser.add_argument("--data-dir", help="folder with GLUE in the official download layout")
    parser.add_argument("--task", default="glue/sst2", help="task that gives the training rows (default: %(default)s)")
    parser.add_argument(
        "--model", default="smollm2-135m", help="bundled model, folder, or random:NAME (default: %(default)s)"
    )
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument(
        "--mini-batch-size", type=int, default=8, help="rows per update; 8 in the paper (default: %(default)s)"
    )
    parser.add_argument("--update-epochs", type=int, default=4)
    parser.add_argument("--batches", type=int, default=1, help="measured batches per process, after one warm-up batch")
    parser.add_argument(
        "--samples", type=int, default=4, help="answers per prompt for GRPO and RLOO (default: %(default)s)"
    )
    parser.add_argument("--evaluation-tokens", type=int, help="token limit of the evaluation peer (default: our limit)")
    parser.add_argument("--dtype", choices=("auto", "float32", "bfloat16"), default="auto")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1, help="default: all cores (%(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="a setting of our side, e.g. answer.stop=tag"
    )
    parser.add_argument(
        "--out", type=Path, default=Path("runs/bench"), help="folder of the results (default: %(default)s)"
    )


def settings_of(options: argparse.Namespace, dtype: str) -> dict[str, Any]:
    """Return the options that affect the figures."""
    names = ("task", "model", "batch_size", "mini_batch_size", "update_epochs", "batches", "samples", "threads", "seed")
    settings = {name: getattr(options, name) for name in names}
    if Path(options.model).is_absolute():
        settings["model"] = Path(options.model).name  # the page shows the settings: no folder of this machine
    return {**settings, "dtype": dtype, "set": list(options.set)}


def resolved_dtype(dtype: str) -> str:
    """Return the dtype that adjudge uses on this machine, also for ``auto``."""
    from adjudge.config import RuntimeConfig
    from adjudge.models.sources.device import resolve_device, resolve_dtype

    runtime = RuntimeConfig(dtype=dtype)  # type: ignore[arg-type]
    return str(resolve_dtype(runtime, resolve_device(runtime))).removeprefix("torch.")


def model_folder(name: str, out: Path, dtype: str) -> Path:
    """Return the model folder that both sides load, in the layout of transformers.

    A random model is built once and saved under `out`. Raises ModelError, and ConfigError for a folder without a model.
    """
    import torch

    from adjudge.models.sources.bundled import BUNDLED, bundled_folder
    from adjudge.models.sources.loading import load_tokenizer
    from adjudge.models.sources.quiet import quiet
    from adjudge.models.sources.random_models import build_random, is_random, name_special_tokens

    if name in BUNDLED:
        return bundled_folder(name)
    if not is_random(name):
        folder = Path(name).expanduser().resolve()
        if not (folder / "config.json").is_file():
            raise ConfigError(
                f"{folder} holds no model. Give a bundled model ({', '.join(BUNDLED)}), a model folder, or random:NAME."
            )
        return folder
    folder = out.resolve() / "models" / f"{name.removeprefix('random:')}-{dtype}"
    if not (folder / "whole").is_file():
        tokenizer = load_tokenizer(name, "", {})
        model = build_random(name, getattr(torch, dtype), "cpu", "sdpa")
        name_special_tokens(model, tokenizer)
        with quiet():
            model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        (folder / "whole").touch()
    return folder


def our_config(spec: dict[str, Any]) -> Config:
    """Return the settings of our side of a specification. Raises ConfigError.

    Settings under ``ours.settings`` override the others.
    """
    lora, lr = spec["lora"], spec["lr"]
    chosen = {
        "model": spec["model"],
        "seed": spec["seed"],
        "prompt.style": "paper",
        "runtime.dtype": spec["dtype"],
        "runtime.threads": spec["threads"],
        "lora.r": lora["r"],
        "lora.alpha": lora["alpha"],
        "lora.dropout": lora["dropout"],
        "lora.rank_stabilised": lora["rank_stabilised"],
        "lora.targets": lora["targets"],
        **{
            "ppo.epochs": 1,
            "ppo.warm_start": 0.0,
            "ppo.samples": 1,
            "ppo.values": "critic",
            "ppo.reward.balance": False,
        },  # the peers' PPO
        "ppo.batch_size": spec["batch_size"],
        "ppo.mini_batch_size": spec["mini_batch_size"],
        "ppo.update_epochs": spec["update_epochs"],
        "ppo.stop_kl": None,  # make every update, as the peers do
        "ppo.optimizer.lr": lr,
        "ppo.optimizer.schedule": "constant",
        "ppo.optimizer.warmup_share": 0.0,
        "sft.batch_size": spec["batch_size"],
        "sft.optimizer.lr": lr,
        "sft.optimizer.schedule": "constant",
        "sft.optimizer.warmup_share": 0.0,
        "evaluation.batch_size": spec["evaluation_batch_size"],
    }
    written = [f"{key}={json.dumps(value)}" for key, value in chosen.items()]
    return load_config(overrides=[*written, *spec["ours"]["settings"]])


def training_rows(task: TaskSpec, data_dir: str | None, count: int, seed: int) -> list[Example]:
    """Return at most `count` training rows, drawn by the seed. Raises DataError when there is no data."""
    return take_rows(load_split(task, "train", data_dir), count, seed, "training rows")


def build_specification(
    options: argparse.Namespace, folder: Path, dtype: str, rows: Sequence[Example], task: TaskSpec
) -> dict[str, Any]:
    """Return SPEC.json for the PPO pairs; `for_pair` changes it for the others.

    Raises ConfigError when the batch is not a multiple of the mini-batch, or a row has no gold answer.
    """
    from adjudge.models.sources.loading import load_tokenizer
    from adjudge.prompts.render import Renderer
    from adjudge.rollout.answer_end import answer_end

    if options.batch_size % options.mini_batch_size:
        raise ConfigError(
            f"--batch-size {options.batch_size} is not a multiple of --mini-batch-size {options.mini_batch_size}."
        )
    spec: dict[str, Any] = {
        "model": str(folder),
        "dtype": dtype,
        "threads": options.threads,
        "batch_size": options.batch_size,
        "mini_batch_size": options.mini_batch_size,
        "update_epochs": options.update_epochs,
        "evaluation_batch_size": EVALUATION_BATCH,
        "samples": options.samples,
        "max_new_tokens": 32,  # the paper's code draws 12 to 32 tokens and never stops at the answer
        "min_new_tokens": 12,
        # No dropout on either side: our PPO has none, and dropout would only slow the peers down.
        "lora": {"r": 16, "alpha": 32, "dropout": 0.0, "rank_stabilised": True, "targets": _targets(folder)},
        "lr": PAPER_LR,
        "warmup_batches": 1,
        "batches": options.batches,
        "seed": options.seed,
        "ours": {
            "task": spec_to_yaml(task),
            "settings": list(options.set),
            "rows": [_row(example) for example in rows],
        },
    }
    config = our_config(spec)
    tokenizer = load_tokenizer(str(folder), str(folder), {})
    renderer = Renderer(tokenizer, task, config.prompt)
    end = answer_end(tokenizer, _end_ids(folder, tokenizer), task, config.answer)
    golds = [example.gold for example in rows if example.gold is not None]
    if len(golds) != len(rows):
        raise ConfigError(f"{task.name}: a row without a gold answer cannot be trained on.")
    return spec | {
        "prompts": [renderer.text(example) for example in rows],
        "prompt_ids": [list(prompt.ids) for prompt in renderer.prompts(rows)],
        "golds": [str(gold) for gold in golds],
        "answer_ids": [end.taught_ids(gold, task) for gold in golds],
        "evaluation_tokens": options.evaluation_tokens or end.max_tokens,
    }


def for_pair(spec: dict[str, Any], what: str) -> dict[str, Any]:
    """Return the specification of one pair; evaluation is limited to ``evaluation_tokens``."""
    pair_spec = {key: value for key, value in spec.items() if key != "evaluation_tokens"}
    if what == "evaluate":
        pair_spec |= {"max_new_tokens": spec["evaluation_tokens"], "min_new_tokens": 1}
    return pair_spec


def rows_needed(options: argparse.Namespace) -> int:
    """Return the number of rows of the longest run, with its warm-up."""
    return (1 + int(options.batches)) * max(int(options.batch_size), EVALUATION_BATCH)


def prepare(options: argparse.Namespace) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the specification and the settings for the options.

    Loads data and tokenizer. Fetches or builds a missing model.
    """
    task = load_task(options.task)
    dtype = resolved_dtype(options.dtype)
    rows = training_rows(task, options.data_dir, rows_needed(options), options.seed)
    folder = model_folder(options.model, options.out, dtype)
    return build_specification(options, folder, dtype, rows, task), settings_of(options, dtype)


def child_variables(threads: int) -> dict[str, str]:
    """Return the environment variables of every measured process, on both sides.

    They set the number of threads and an allocator that keeps its memory. `adjudge.system.memory` would set the same
    allocator variables, unless the environment already does.
    """
    return {
        "OMP_NUM_THREADS": str(threads),
        "MALLOC_MMAP_MAX_": "0",
        "MALLOC_TRIM_THRESHOLD_": str(2**31 - 1),
        "MALLOC_TOP_PAD_": str(TOP_PAD_BYTES),
        "THP_MEM_ALLOC_ENABLE": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "HF_HUB_OFFLINE": "1",
    }


def machine() -> dict[str, Any]:
    """Return device, processor, cores, system and versions."""
    import torch

    from benchmarks.peers import common

    name = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        processors = [
            line.partition(":")[2].strip() for line in cpuinfo.read_text().splitlines() if line.startswith("model name")
        ]
        name = processors[0] if processors else name
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else name
    return {
        "device": device,
        "cpu": name,
        "cores": os.cpu_count(),
        "system": platform.system(),
        "versions": common.versions(),
    }


def digest(*parts: Any) -> str:
    """Return the SHA-256 of files and of values that JSON can hold."""
    sha256 = hashlib.sha256()
    for part in parts:
        sha256.update(part.read_bytes() if isinstance(part, Path) else json.dumps(part, sort_keys=True).encode())
    return sha256.hexdigest()


def provenance(program: str, settings: dict[str, Any], arguments: Sequence[str]) -> dict[str, Any]:
    """Return the origin of the figures: settings, machine, date and command."""
    command = f"python -m benchmarks.{program} {shareable(arguments)}".strip()
    return {"settings": settings, "machine": machine(), "date": datetime.date.today().isoformat(), "command": command}


def shareable(arguments: Sequence[str]) -> str:
    """Return the arguments for a page, with a word such as ``DIR`` for a folder of this machine."""
    placeholders = {"--data-dir": "DIR", "--out": "OUT", "--model": "MODEL"}
    shown, before = [], ""
    for word in arguments:
        name, equals, value = word.partition("=")
        option, folder = (name, value) if equals and name in placeholders else (before, word)
        if option == "--data-dir" or (option in placeholders and Path(folder).is_absolute()):
            placeholder = placeholders[option]
            word = f"{option}={placeholder}" if equals and name in placeholders else placeholder  # noqa: PLW2901
        shown.append(word)
        before = word
    return shlex.join(shown)


def run_program(main: Callable[[], int]) -> NoReturn:
    """Run a program and exit with its status; an AdjudgeError is printed in one line, with status 1."""
    try:
        sys.exit(main())
    except AdjudgeError as error:
        sys.exit(f"error: {error}")


def _row(example: Example) -> dict[str, Any]:
    return {"id": example.id, "fields": dict(example.fields), "gold": example.gold}


def _targets(folder: Path) -> list[str]:
    from adjudge.models.sources.loading import lora_targets

    return lora_targets(empty_model(folder))


def empty_model(folder: Path) -> Any:
    """Return the model of a folder on the meta device: shapes without memory."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(str(folder)))


def _end_ids(folder: Path, tokenizer: Any) -> list[int]:
    """Return the same ids as `Policy.end_ids`, without loading weights.

    `benchmarks.ours` checks the answers in the specification against the loaded policy.
    """
    path = folder / "generation_config.json"
    configured = json.loads(path.read_text(encoding="utf-8")).get("eos_token_id") if path.is_file() else None
    end_ids = [tokenizer.eos_token_id, *(configured if isinstance(configured, list) else [configured])]
    return list(dict.fromkeys(token for token in end_ids if token is not None))
