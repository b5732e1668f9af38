"""The base of an L3-style stream: what was learned of each task, and what of it serves another task.

BASE/ENTRY/entry.json              the task's card: name, answer words, method, rows
BASE/ENTRY/centroid.safetensors    the mean state of the untrained model on the task's training rows
BASE/ENTRY/adapter/                the judge, as its run left it

A task starts from the nearest entry, if it is near enough, and is judged by an ensemble of its own adapter and the near
entries with the same answer words. The details of arXiv 2311.06493 could not be established: this is a reconstruction
from its abstract.

Shapes: ``B`` rows, ``D`` width.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adjudge.config import Config
from adjudge.errors import ConfigError, RunError
from adjudge.evaluation.ensemble import EnsembleJudge, ask, fit_weights, gold_probabilities
from adjudge.experiments.evaluate import evaluate_run, load_judge
from adjudge.experiments.judging_settings import NO_EFFECT
from adjudge.experiments.rows import fingerprint, rows_for
from adjudge.runs.base import check_same_model
from adjudge.runs.folder import Run, is_unused, read_json
from adjudge.runs.portable import FILE as JUDGE
from adjudge.runs.start import model_hashes
from adjudge.runs.tasks import folder_name
from adjudge.system.console import note
from adjudge.system.files import whole_folder, write_json
from adjudge.system.memory import free_dropped
from adjudge.tasks.spec import TaskSpec
from adjudge.types import Example, Prediction

if TYPE_CHECKING:
    from torch import Tensor

    from adjudge.evaluation.predict import Judge

BASE, CARD, CENTROID, ADAPTER, ENSEMBLE = "base", "entry.json", "centroid.safetensors", "adapter", "ensemble"
SCHEMA = 1
NEAR = 0.985
"""Least cosine of two tasks' centroids at which one serves the other, unless ``l3=COSINE`` gives another."""
CENTROID_ROWS = 256
"""Most training rows that a centroid is the mean of."""
HELD_OUT_SHARE, LEAST_HELD_OUT = 0.2, 8
"""Share of a stage's training rows that the ensemble's weights are fitted on, and the least number of them."""
OWN = "own"
"""The name of a stage's own adapter among the experts."""


@dataclass(frozen=True, slots=True)
class Entry:
    """What a base knows of a task."""

    folder: Path
    task: str
    words: tuple[str, ...]
    """Its answer words; none for a task with numbers or sets of labels, whose answers are not mixed."""
    centroid_D: Tensor
    source: Path | None = None
    """The run of this stream that it is made from; None for an entry of a base that was there before."""

    @property
    def name(self) -> str:
        """Return what it is called: its folder, or ``base/`` and its folder where it was there before."""
        return f"base/{self.folder.name}" if self.source is None else self.folder.name


@dataclass(frozen=True, slots=True)
class Alone:
    """A stage as a run of its task alone."""

    config: Config
    spec: TaskSpec
    folder: Path


@dataclass(frozen=True, slots=True)
class Transfer:
    """What a stage takes from the base, and the entry that it leaves."""

    alone: Alone
    entry: Entry
    cosines: tuple[tuple[Entry, float], ...]
    """The entries that are there when it begins, each with its nearness."""
    start: Entry | None
    """The nearest entry, from which training starts; None if no entry is near."""
    experts: tuple[Entry, ...]
    """The near entries with the same answer words."""
    rows: int
    """Number of training rows, those that are held out included."""
    held_out: int
    """Number of training rows that are kept from training, to weigh the experts; 0 without any."""

    @property
    def run(self) -> Path:
        """Return the folder of its run."""
        assert self.entry.source is not None
        return self.entry.source

    @property
    def config(self) -> Config:
        """Return the settings of its run."""
        config = self.alone.config
        if self.start is not None:
            config = config.model_copy(update={"init": str(self.start.folder)})
        if self.held_out:
            data = config.data.model_copy(update={"train_rows": self.rows - self.held_out})
            config = config.model_copy(update={"data": data})
        return config

    @property
    def record(self) -> dict[str, Any]:
        """Return what matrix.json says of the stage, without the weights."""
        return {
            "task": self.entry.task,
            "similarity": {each.name: cosine for each, cosine in self.cosines},
            "warm_start": self.start.name if self.start is not None else None,
            "held_out": self.held_out,
        }

    def fill_base(self) -> None:
        """Make the entries of this stream that are there when it begins. Raises RunError."""
        for each, _ in self.cosines:
            leave(each)


def near_of(strategy: str) -> float:
    """Return the least cosine of ``l3`` or ``l3=COSINE``. Raises ConfigError for no cosine."""
    if strategy == "l3":
        return NEAR
    try:
        near = float(strategy.removeprefix("l3="))
    except ValueError:
        near = float("nan")
    if not -1 <= near <= 1:
        raise ConfigError(f"--strategy {strategy}: write l3, or l3=COSINE with a number from -1 to 1, as in l3=0.98.")
    return near


def read_base(folder: Path, config: Config) -> list[Entry]:
    """Return the entries of a base. Raises RunError for one that is incomplete, or made on another model."""
    if not folder.is_dir():
        raise RunError(f"--base {folder}: there is no such folder.")
    entries = [_read_entry(path, config) for path in sorted(folder.iterdir()) if _is_entry(path)]
    if not entries:
        raise RunError(f"--base {folder}: holds no entry. A base is the folder base/ of an L3-style stream.")
    return entries


def _is_entry(path: Path) -> bool:
    return path.is_dir() and not path.name.startswith(".")


def _read_entry(folder: Path, config: Config) -> Entry:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    for part in (CARD, CENTROID, f"{ADAPTER}/{JUDGE}", f"{ADAPTER}/adapter_config.json"):
        if not (folder / part).is_file():
            raise RunError(f"{folder}: {part} is missing. Copy the whole entry again, or remove the folder.")
    card, judge = read_json(folder / CARD), read_json(folder / ADAPTER / JUDGE)
    try:
        if card["schema"] > SCHEMA:
            raise RunError(f"{folder / CARD} was written by a newer adjudge. Update adjudge.")
        centroid_D = load_file(folder / CENTROID)["centroid"]
        entry = Entry(folder, str(card["task"]), tuple(map(str, card["words"])), centroid_D)
    except (KeyError, TypeError, SafetensorError) as error:
        raise RunError(f"{folder}: is no entry of a base, or is damaged: {error}") from None
    check_same_model(folder, judge.get("base") or {}, config.model)
    return entry


def plan_transfers(
    stages: Sequence[Alone], near: float, place: Path, centroids: Path, before: Sequence[Entry]
) -> list[Transfer]:
    """Return what each stage of a stream takes and leaves, which the untrained model's states decide.

    `stages` are those of adapters apart. A stage that takes something has a run folder of its own in `place`, where the
    base is, too. `centroids` keeps what was computed, and `before` are entries of another base. Raises ConfigError when
    there are too few rows to hold some out.
    """
    transfers: list[Transfer] = []
    known = list(before)
    for index, stage in enumerate(stages, 1):
        name = folder_name(stage.spec.name)
        rows = training_rows(stage.config, stage.spec)
        centroid_D = centroid(stage.config, stage.spec, rows, centroids / name / f"seed-{stage.config.seed}")
        words = () if stage.spec.several else tuple(stage.spec.words)
        entry = Entry(place / BASE / f"{index}-{name}", stage.spec.name, words, centroid_D)
        cosines = tuple((each, cosine(each, entry)) for each in known)
        near_ones = sorted((pair for pair in cosines if pair[1] >= near), key=lambda pair: pair[1])
        experts = tuple(each for each, _ in near_ones if _same_words(each, entry))
        entry = replace(entry, source=place / f"stage-{index}-{name}" if near_ones else stage.folder)
        start = near_ones[-1][0] if near_ones else None
        held_out = _held_out(stage.spec, len(rows)) if experts else 0
        transfers.append(Transfer(stage, entry, cosines, start, experts, len(rows), held_out))
        known.append(entry)
    return transfers


def training_rows(config: Config, spec: TaskSpec) -> list[Example]:
    """Return the training rows of a task, as a run of it alone draws them."""
    return list(rows_for(config, [spec]).parts[0].rows)


def _held_out(spec: TaskSpec, rows: int) -> int:
    held_out = max(LEAST_HELD_OUT, round(HELD_OUT_SHARE * rows))
    if 2 * held_out > rows:
        raise ConfigError(
            f"{spec.name}: l3 weighs its experts on {held_out} held-out training rows, and there are {rows} rows in "
            f"all. Give at least {2 * LEAST_HELD_OUT} with --train-rows."
        )
    return held_out


def cosine(one: Entry, other: Entry) -> float:
    """Return the cosine of two centroids. Raises RunError for models of different widths."""
    import torch

    if one.centroid_D.shape != other.centroid_D.shape:
        raise RunError(
            f"{one.folder}: its centroid has {one.centroid_D.numel()} numbers, and this model's states have "
            f"{other.centroid_D.numel()}: it was made on another model."
        )
    return float(torch.nn.functional.cosine_similarity(one.centroid_D, other.centroid_D, dim=0))


def centroid(config: Config, spec: TaskSpec, rows: Sequence[Example], folder: Path) -> Tensor:
    """Return the mean of the untrained model's last states after the rows' prompts, ``[D]``.

    Each state is scaled to length 1. The mean is kept in `folder`, and computed again when the rows or the model are
    others.
    """
    from safetensors import safe_open
    from safetensors.torch import save_file

    rows = rows[:CENTROID_ROWS]
    made_of = {"rows_sha256": fingerprint(rows), "model": config.model}
    if (folder / CENTROID).is_file():
        with safe_open(folder / CENTROID, "pt") as kept:
            if kept.metadata() == made_of:
                tensor: Tensor = kept.get_tensor("centroid")
                return tensor
    centroid_D = _centroid(config, spec, rows)
    free_dropped()  # the stages are trained in other processes, which need the memory of the model
    with whole_folder(folder) as temporary:
        save_file({"centroid": centroid_D}, temporary / CENTROID, metadata=made_of)
    return centroid_D


def _centroid(config: Config, spec: TaskSpec, rows: Sequence[Example]) -> Tensor:
    import torch

    from adjudge.models.policy import load_policy
    from adjudge.rollout.prompted import PromptedTask, prompt_rows
    from adjudge.rollout.sampler import by_length

    note(f"{spec.name}: the untrained model reads {len(rows)} training rows.")
    policy = load_policy(config).eval()
    prompts = [row.ids for row in prompt_rows(PromptedTask(policy, spec, config), rows)]
    states = []
    with torch.no_grad():
        for batch in by_length(prompts, config.evaluation.batch_size):
            states.append(policy.prefill([prompts[row] for row in batch]).hidden_BD.float())
    return torch.nn.functional.normalize(torch.cat(states), dim=1).mean(0).cpu()


def leave(entry: Entry) -> None:
    """Copy what the entry's run learned into the base, unless it is there.

    Raises RunError when the run has no adapter.
    """
    from safetensors.torch import save_file

    if entry.source is None:
        return
    trained = entry.source / ADAPTER
    if not (trained / JUDGE).is_file():
        raise RunError(f"{entry.source} holds no trained adapter for the base: is it complete?")
    if entry.folder.is_dir() and model_hashes(entry.folder / ADAPTER) == model_hashes(trained):
        return
    run = Run.open(entry.source)
    with whole_folder(entry.folder) as temporary:
        shutil.copytree(trained, temporary / ADAPTER)
        save_file({"centroid": entry.centroid_D}, temporary / CENTROID)
        card = {"schema": SCHEMA, "task": entry.task, "words": list(entry.words), "method": run.config.method}
        rows = read_json(entry.source / "training.json")["train_rows"]
        write_json(temporary / CARD, {**card, "seed": run.config.seed, "train_rows": rows})


def answers(transfer: Transfer) -> tuple[list[Prediction], dict[str, float]]:
    """Return the answers to a stage's task and its experts' weights by name; add its entry to the base.

    The answers are those of its run alone where no entry is an expert, or none has weight.
    """
    leave(transfer.entry)
    run, spec, split = transfer.run, transfer.alone.spec, transfer.alone.config.data.split
    weights = _weights(transfer) if transfer.experts else {OWN: 1.0}
    kept = {name: weight for name, weight in weights.items() if weight}
    if list(kept) == [OWN]:
        return Run.open(run).predictions(split), weights
    folder = run / ENSEMBLE
    if is_unused(folder) or Run.open(folder).state != "complete":
        loaders = _loaders(transfer)
        judge = EnsembleJudge(spec, {name: loaders[name] for name in kept}, list(kept.values()))
        note(f"    {run} judges {spec.name} with its experts: {', '.join(kept)}")
        evaluate_run(run, out=folder, force=True, decode="labels", load=lambda *_: judge)
    return Run.open(folder).predictions(split), weights


def _weights(transfer: Transfer) -> dict[str, float]:
    """Return the weight of each expert, fitted on the held-out rows; kept in the stage's folder."""
    path = transfer.run / f"{ENSEMBLE}.json"
    if path.is_file():
        kept = read_json(path)
        if {**kept, "weights": None} == {**transfer.record, "weights": None}:
            return dict(kept["weights"])
    spec = transfer.alone.spec
    learned = {row.id for row in training_rows(transfer.config, spec)}
    held_out = [row for row in training_rows(transfer.alone.config, spec) if row.id not in learned]
    loaders = _loaders(transfer)
    parts = [ask(load, held_out, f"held-out rows, {name}") for name, load in loaders.items()]
    weights = dict(zip(loaders, fit_weights(gold_probabilities(parts)).tolist(), strict=True))
    shutil.rmtree(transfer.run / ENSEMBLE, ignore_errors=True)  # answers by other weights
    write_json(path, {**transfer.record, "weights": weights})
    return weights


def _loaders(transfer: Transfer) -> dict[str, Callable[[], Judge]]:
    """Return the function that loads each expert, by its name."""
    spec, config = transfer.alone.spec, transfer.alone.config
    loaders: dict[str, Callable[[], Judge]] = {OWN: partial(_expert, transfer.run, spec, config)}
    return loaders | {each.name: partial(_expert, each.folder / ADAPTER, spec, config) for each in transfer.experts}


def _expert(folder: Path, spec: TaskSpec, config: Config) -> Judge:
    runtime = {f"runtime.{name}": value for name, value in config.runtime.model_dump().items()}
    settings = {name: value for name, value in runtime.items() if name not in NO_EFFECT}
    settings["evaluation.batch_size"] = config.evaluation.batch_size
    return load_judge(folder, spec=spec, decode="labels", model=config.model, settings=settings)[2]


def _same_words(one: Entry, other: Entry) -> bool:
    return bool(one.words) and set(one.words) == set(other.words)
