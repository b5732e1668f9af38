"""Kill runs of tiny models with SIGKILL, resume them, and compare them with runs never killed.

    python tests/kill.py --kills 300        at random moments, until each run is complete
    python tests/kill.py --positions        before each call that changes the disk, one after the other
    python tests/kill.py --pieces 2,3       again and again, after a half or a third of these calls

The results must be equal byte for byte. Each attempt is a process of its own, forked from this one. This process has
imported everything and computed nothing on several threads. Each attempt begins with other states of the global random
generators, so a run that draws from them differs too.
"""

from __future__ import annotations

import argparse
import filecmp
import gc
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import peft  # noqa: F401 (imported once, before the forks)
import scipy.stats  # noqa: F401
import sklearn.metrics  # noqa: F401
import torch
import transformers.models.bert.modeling_bert
import transformers.models.llama.modeling_llama  # noqa: F401
from conftest import save_tiny, tiny_llama_config
from fake_method import write_reviews
from running import EPOCHS_ALONE
from tqdm import tqdm
from transformers import BertConfig, BertForSequenceClassification
from writing_model import save_writing_model

import adjudge.evaluation.score
import adjudge.methods.critique_grpo
import adjudge.methods.dpo
import adjudge.methods.encoder
import adjudge.methods.exact
import adjudge.methods.floors.linear
import adjudge.methods.floors.tfidf
import adjudge.methods.grpo
import adjudge.methods.head
import adjudge.methods.ppo
import adjudge.methods.prompting.bpo
import adjudge.methods.prompting.gepa
import adjudge.methods.prompting.gepa_edits
import adjudge.methods.prompting.prp
import adjudge.methods.reinforce
import adjudge.methods.reward_model
import adjudge.methods.rloo
import adjudge.methods.setfit
import adjudge.methods.sft
import adjudge.methods.spin
import adjudge.methods.sppo
import adjudge.methods.swie
import adjudge.methods.tdpo  # noqa: F401
from adjudge.config import load_config
from adjudge.experiments.execute import execute
from adjudge.generation.generate import Order, generate, identity_of
from adjudge.generation.plan import changed, plan_for_labels
from adjudge.generation.work import Work
from adjudge.models.policy import load_policy
from adjudge.tasks import infer_task

METHODS = (
    *("sft", "ppo", "reinforce", "rloo", "grpo", "critique-grpo", "exact"),
    *("dpo", "tdpo", "spin", "sppo", "reward-model", "head", "swie", "bpo", "gepa", "gepa-edits", "prp"),
    *("encoder", "tfidf", "linear", "setfit", "multi-ppo", "multi-spin", "learned-ppo", "vine-ppo"),
    *("noisy-sft", "generate"),
)
ANALYSED: dict[str, Any] = {"prompt.analysis": "before", "answer.analysis_tokens": 4}
FORMS: dict[str, dict[str, Any]] = {
    "vine-": {**ANALYSED, "ppo.values": "vine", "ppo.vine.rollouts": 2, "ppo.vine.split": "tokens"},
}
"""Settings of the methods whose names begin so."""
SETTINGS: dict[str, Any] = {
    "runtime.device": "cpu",
    "runtime.dtype": "float32",
    "runtime.threads": 1,
    "data.train_rows": 12,
    "data.eval_rows": 8,
    "evaluation.resamples": 100,
    "lora.dropout": 0.1,
    "sft.batch_size": 4,
    "sft.micro_batch_size": 2,
    "sft.minor_beta": 0.5,
    "ppo.epochs": 2,
    "ppo.update_epochs": 2,
    "ppo.batch_size": 4,
    "ppo.mini_batch_size": 2,
    "ppo.micro_batch_size": 1,
    "ppo.optimizer.lr": 1e-3,
    "reinforce.batch_size": 4,
    "reinforce.mini_batch_size": 2,
    "reinforce.optimizer.lr": 1e-3,
    "rloo.batch_size": 4,
    "rloo.optimizer.lr": 1e-3,
    "grpo.batch_size": 4,
    "grpo.samples": 3,
    "grpo.micro_batch_size": 2,
    "grpo.optimizer.lr": 1e-3,
    "critique_grpo.batch_size": 4,
    "critique_grpo.samples": 2,
    "critique_grpo.micro_batch_size": 2,
    "critique_grpo.optimizer.lr": 1e-3,
    "exact.batch_size": 4,
    "exact.optimizer.lr": 1e-3,
    "dpo.batch_size": 4,
    "dpo.pairs": "sampled",
    "dpo.optimizer.lr": 1e-3,
    "tdpo.batch_size": 4,
    "tdpo.micro_batch_size": 2,
    "tdpo.optimizer.lr": 1e-3,
    "spin.batch_size": 4,
    "spin.optimizer.lr": 1e-3,
    "sppo.batch_size": 4,
    "sppo.optimizer.lr": 1e-3,
    "reward_model.batch_size": 4,
    "reward_model.micro_batch_size": 2,
    "reward_model.optimizer.lr": 1e-3,
    "head.batch_size": 4,
    "head.micro_batch_size": 2,
    "head.optimizer.lr": 1e-2,
    "swie.batch_size": 4,
    "swie.micro_batch_size": 2,
    "swie.optimizer.lr": 1e-2,
    "encoder.batch_size": 4,
    "setfit.iterations": 1,
    "bpo.rewrites": 2,
    "gepa.calls": 24,
    "gepa_edits.calls": 36,
    "prp.anchors": 2,
    "prp.fit_rows": 4,
    "prp.wins": "probability",
    "writer.max_tokens": 16,
    **EPOCHS_ALONE,
    "checkpoint.every_s": None,
}
"""Small batches in smaller parts: epochs end, and gradients accumulate."""
LONGEST_S = 60.0
CHANGES = ("chmod", "fsync", "link", "mkdir", "open", "remove", "rename", "replace", "rmdir", "truncate", "unlink")
"""Functions of `os` that change the disk, or sync it."""


def make_models(folder: Path) -> dict[str, str]:
    """Create a tiny Llama and a tiny BERT with random weights, and return their folders."""
    save_tiny(tiny_llama_config(), folder / "llama")
    shutil.copytree(folder / "llama", folder / "bert", ignore=shutil.ignore_patterns("config.json", "*.safetensors"))
    bert = BertConfig(
        vocab_size=400, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4, pad_token_id=2
    )
    torch.manual_seed(0)
    BertForSequenceClassification(bert).save_pretrained(folder / "bert")
    bert_of = {f"{group}.model": str(folder / "bert") for group in ("encoder", "linear", "setfit")}
    return {"model": str(folder / "llama"), **bert_of}


def work(method: str, models: dict[str, str], data: Path, folder: Path) -> None:
    """Train and judge, continuing from the state of the folder: the action to kill."""
    if method == "generate":
        return write_rows(data.parent / "writing", folder / "rows.csv")
    spec = infer_task(data, ["text"], "label")
    specs = [spec, spec.model_copy(update={"name": "second"})] if method.startswith("multi-") else [spec]
    values = {**SETTINGS, **models, "method": method.removeprefix("learned-").removeprefix("noisy-")}
    for form, settings in FORMS.items():
        if method.startswith(form):
            values |= {**settings, "method": method.removeprefix(form)}
    if method.startswith("noisy-"):
        del values["sft.minor_beta"]
        values |= {"sft.label_smoothing": 0.15, "sft.temporal_ensembling.every": 1}
    if method.startswith("learned-"):
        group = f"{values['method']}.reward"
        values |= {f"{group}.kind": "mixed", f"{group}.model": str(data.parent / "reward-model")}
    execute(load_config(values=values), specs, folder, resume=True)


def write_rows(model: Path, out: Path) -> None:
    """Write rows with a tiny model, going on with the texts that are there."""
    settings = {
        "model": str(model),
        "runtime.device": "cpu",
        "runtime.threads": 1,
        "evaluation.batch_size": 2,
        "seed": 3,
    }
    config = load_config(values=settings)
    plan = changed(plan_for_labels(["Good", "Bad"]), {"max_tokens": 8})
    order = Order(plan, rows=6, oversample=2)
    generate(load_policy(config), config, order, out, Work(out, identity_of(order, config)))


def make_reward_model(models: dict[str, str], data: Path) -> None:
    """Train the reward model of the methods called ``learned-…``, and let it be good enough."""
    folder = data.parent / "reward-model"
    finish(lambda: work("reward-model", models, data, folder), data.parent / "reward-model.log")
    training = json.loads((folder / "training.json").read_text(encoding="utf-8"))
    (folder / "training.json").write_text(json.dumps({**training, "pair_accuracy": 1.0}), encoding="utf-8")


def fork(action: Callable[[], None], log: Path) -> int:
    """Run an action in a process of its own, with its output in a file, and return the process id."""
    pid = os.fork()
    if pid:
        return pid
    code = 1
    for disturb in (random.seed, torch.manual_seed, np.random.seed):
        disturb(os.getpid())
    try:
        with log.open("a", encoding="utf-8") as said:
            os.dup2(said.fileno(), 1)
            os.dup2(said.fileno(), 2)
            action()
            code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def ended(pid: int, within_s: float) -> int | None:
    """Return the exit status of a process, or None when it has not ended within some seconds."""
    until = time.monotonic() + within_s
    while True:
        found, status = os.waitpid(pid, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() >= until:
            return None
        time.sleep(0.002)


def results(folder: Path) -> list[Path]:
    """Return the files of a run that must be equal: those without times, paths and processes."""
    names = {
        "metrics.jsonl",
        "adapter_model.safetensors",
        "instruction_embeddings.safetensors",
        "value_head.safetensors",
        "classification_head.safetensors",
        "model.safetensors",
        "validation.jsonl",
        "rows.csv",
        "rows.json",
        "instruction.txt",
        "comparisons.json",
        "search.json",
        "trials.jsonl",
        "writer.jsonl",
    }
    return sorted(
        path.relative_to(folder)
        for path in folder.rglob("*")
        if path.name in names or path.parent.name == "predictions"
    )


def differing(one: Path, other: Path) -> list[str]:
    """Return the results that differ byte for byte, and those in only one of the two."""
    files = results(one)
    if not files or files != results(other):
        return [f"other files: {sorted(map(str, set(files) ^ set(results(other))))}"]
    wrong = [str(path) for path in files if not filecmp.cmp(one / path, other / path, shallow=False)]
    left = [str(path) for path in other.rglob("*") if path.name.startswith(".") and path.name != ".adjudge.lock"]
    return wrong + left + [str(path) for path in other.rglob("checkpoints")]


def finish(action: Callable[[], None], log: Path) -> None:
    """Run an action to its end. Raises SystemExit with its output when it fails."""
    code = ended(fork(action, log), LONGEST_S)
    if code != 0:
        raise SystemExit(f"exit code {code} of a run that was resumed:\n{log.read_text(encoding='utf-8')[-4000:]}")


def check(whole: Path, folder: Path, how: str) -> None:
    """Compare a killed run with one never killed. Raises SystemExit when they differ."""
    if wrong := differing(whole, folder):
        raise SystemExit(f"{how}: differs from the run that was never killed in {', '.join(wrong)} ({folder})")


def at_random(method: str, action: Callable[[Path], None], place: Path, kills: int, seed: int) -> tuple[int, int]:
    """Kill runs at random moments, `kills` times in all, and return the kills and the runs.

    Each run is killed until it is complete.
    """
    draw, done, runs = random.Random(seed), 0, 0
    began = time.monotonic()
    finish(lambda: action(place / "whole"), place / "whole.log")
    whole_s = time.monotonic() - began
    while done < kills:
        runs += 1
        folder, log = place / f"run-{runs}", place / f"run-{runs}.log"
        longest_s = whole_s
        while True:
            pid = fork(lambda: action(folder), log)  # noqa: B023 (called at once)
            code = ended(pid, draw.uniform(0, longest_s))
            longest_s *= 1.1  # the machine may be busier than before: each run must come to its end
            if code is None:
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
                done += 1
            elif code:
                raise SystemExit(f"{method}: exit code {code}:\n{log.read_text(encoding='utf-8')[-4000:]}")
            else:
                break
        check(place / "whole", folder, f"{method}, run {runs}")
        shutil.rmtree(folder)
    return done, runs


def die_at(number: int, action: Callable[[], None], count_file: Path | None = None) -> Callable[[], None]:
    """Return the action in a process that kills itself before its `number`th call of one of `CHANGES`.

    If it lives, it writes the number of its calls to `count_file`.
    """

    def dying() -> None:
        calls = [0]
        for name in CHANGES:
            real = getattr(os, name)

            def counted(*given: Any, _real: Any = real, **named: Any) -> Any:
                calls[0] += 1
                if calls[0] == number:
                    os.kill(os.getpid(), signal.SIGKILL)
                return _real(*given, **named)

            setattr(os, name, counted)
        action()
        if count_file is not None:
            count_file.write_text(str(calls[0]), encoding="utf-8")

    return dying


def killed_at(number: int, method: str, action: Callable[[], None], log: Path) -> bool:
    """Return whether an action was killed before its `number`th call; False when it came to its end before.

    Raises SystemExit with its output when it fails.
    """
    code = ended(fork(die_at(number, action), log), LONGEST_S)
    if code not in (0, -signal.SIGKILL):
        raise SystemExit(f"{method}, call {number}: exit code {code}:\n{log.read_text(encoding='utf-8')[-4000:]}")
    return code != 0


def in_pieces(method: str, action: Callable[[Path], None], place: Path, pieces: list[int]) -> int:
    """Kill one run per number of `pieces` again and again, until it is complete, and return the kills.

    Each attempt of a run dies after the calls of a run that is never killed, divided by the number.
    """
    count_file = place / "calls"
    finish(die_at(sys.maxsize, lambda: action(place / "whole"), count_file), place / "whole.log")
    calls, killed = int(count_file.read_text(encoding="utf-8")), 0
    for parts in pieces:
        folder, log = place / f"pieces-{parts}", place / f"pieces-{parts}.log"
        number = calls / parts
        while killed_at(round(number), method, lambda: action(folder), log):  # noqa: B023 (called at once)
            killed += 1
            number *= 1.5  # it may end before its first checkpoint, and each run must come to its end
        check(place / "whole", folder, f"{method}, killed after each {parts}th part of its calls")
        shutil.rmtree(folder)
    return killed


def at_positions(method: str, action: Callable[[Path], None], place: Path, stride: int) -> int:
    """Kill runs before every `stride`th call that changes the disk, resume each once, and count the kills."""
    finish(lambda: action(place / "whole"), place / "whole.log")
    killed = 0
    for number in range(1, sys.maxsize, stride):
        folder, log = place / f"call-{number}", place / f"call-{number}.log"
        if not killed_at(number, method, lambda: action(folder), log):  # noqa: B023 (called at once)
            return killed
        killed += 1
        finish(lambda: action(folder), log)  # noqa: B023
        check(place / "whole", folder, f"{method}, killed before call {number}")
        shutil.rmtree(folder)
    return killed


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--methods", default=",".join(METHODS))
    parser.add_argument("--kills", type=int, default=0, help="kills at random moments, of all methods together")
    parser.add_argument("--positions", action="store_true", help="kill before each call that changes the disk")
    parser.add_argument("--pieces", default="", help="kill after a 2nd, 3rd, … of these calls, again and again: 2,3")
    parser.add_argument("--stride", type=int, default=1, help="only before every so many calls")
    parser.add_argument("--every-steps", type=int, default=2, help="steps between two checkpoints")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    SETTINGS["checkpoint.every_steps"] = given.every_steps
    methods = given.methods.split(",")
    torch.set_num_threads(1)  # before anything computes: threads do not survive a fork
    gc.freeze()
    # tqdm's own lock is shared between processes: a run killed while it holds the lock would block all later ones.
    tqdm.set_lock(threading.RLock())
    with tempfile.TemporaryDirectory(prefix="kill-") as made:
        models = make_models(Path(made) / "models")
        data = write_reviews(Path(made) / "reviews.csv", 40)
        if any(method.startswith("learned-") for method in methods):
            make_reward_model(models, data)
        if "setfit" in methods:
            import setfit  # noqa: F401 (once, before the forks: it takes seconds)
        if "generate" in methods:
            save_writing_model(data.parent / "writing")
        for place, method in enumerate(methods):
            began = time.monotonic()

            def action(folder: Path, method: str = method) -> None:
                work(method, models, data, folder)

            if given.kills:
                (Path(made) / f"{method}-random").mkdir()
                share = given.kills // len(methods) + (place < given.kills % len(methods))
                kills, runs = at_random(method, action, Path(made) / f"{method}-random", share, given.seed)
                print(
                    f"{method}: {kills} kills in {runs} runs, {time.monotonic() - began:.0f} s: all equal", flush=True
                )
            if given.pieces:
                (Path(made) / f"{method}-pieces").mkdir()
                pieces = list(map(int, given.pieces.split(",")))
                kills = in_pieces(method, action, Path(made) / f"{method}-pieces", pieces)
                print(f"{method}: {kills} kills in {len(pieces)} runs, in pieces: all equal", flush=True)
            if given.positions:
                (Path(made) / f"{method}-positions").mkdir()
                killed = at_positions(method, action, Path(made) / f"{method}-positions", given.stride)
                print(
                    f"{method}: killed before each of {killed} calls, {time.monotonic() - began:.0f} s: all equal",
                    flush=True,
                )


if __name__ == "__main__":
    main()
