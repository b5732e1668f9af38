"""Train one task after another, and judge all tasks after every stage.

sequential    one adapter is carried on from task to task
replay=SHARE  the same, and each stage repeats this share of every earlier task's rows
separate      an adapter per task: what is learned stays, and nothing is carried on
multi         one adapter on all tasks at once: what a stream could reach at best
l3            L3-style: a task starts from the nearest one before it, and near ones help to judge it

OUT/untrained/TASK/                              the untrained model on every task
OUT/single/TASK/seed-N/                          a task alone: stage 1, and the stages of `separate`
OUT/STRATEGY/order-A-B-C/seed-N/stage-I-TASK/    a later stage; an ordinary run folder, as all of these
OUT/…/after/TASK/                                its answers to the other tasks, within a stage's folder
OUT/l3/order-A-B-C/seed-N/base/                  of an L3-style stream (`adjudge.experiments.lifelong`)
OUT/matrix.json, matrix.md, report.html
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from adjudge.config import Config
from adjudge.errors import ConfigError
from adjudge.evaluation.forgetting import summary
from adjudge.experiments.compare import Runner
from adjudge.experiments.evaluate import evaluate_run, loading_once
from adjudge.experiments.judging import ensure_model, score_line
from adjudge.experiments.lifelong import BASE, Alone, Entry, Transfer, answers, near_of, plan_transfers, read_base
from adjudge.experiments.process import CellProcesses
from adjudge.experiments.rows import load_pools
from adjudge.methods.registry import ASKED, check_names, get_entry
from adjudge.runs.folder import Run, is_unused
from adjudge.runs.names import shown_name
from adjudge.runs.tasks import folder_name, task_folder
from adjudge.system.console import note
from adjudge.system.files import Lock, write_json
from adjudge.system.memory import free_dropped
from adjudge.tasks.spec import TaskSpec
from adjudge.types import Prediction

STRATEGIES = ("sequential", "replay=SHARE", "separate", "multi", "l3")
REPLAY, L3 = "replay=", "l3"


@dataclass(frozen=True, slots=True)
class Stage:
    """One run of a stream."""

    title: str
    folder: Path
    config: Config
    specs: tuple[TaskSpec, ...]
    transfer: Transfer | None = None
    """Of an L3-style stream: what the stage takes from its base, and leaves in it."""


@dataclass(frozen=True, slots=True)
class Stream:
    """The stages of one strategy, order and seed."""

    strategy: str
    specs: tuple[TaskSpec, ...]
    """The tasks in their order."""
    seed: int
    stages: tuple[Stage, ...]

    @property
    def carries_on(self) -> bool:
        """True if a stage judges the other tasks, too. An adapter of its own task is never asked about them."""
        return self.strategy != "separate" and not is_l3(self.strategy)


def is_l3(strategy: str) -> bool:
    """Return whether a strategy is L3-style: ``l3``, or ``l3=COSINE``."""
    return strategy == L3 or strategy.startswith(f"{L3}=")


def plan_streams(
    config: Config,
    specs: Sequence[TaskSpec],
    strategies: Sequence[str],
    orders: Sequence[Sequence[str]],
    seeds: Sequence[int],
    out: Path,
) -> list[Stream]:
    """Return the streams, one per strategy, order and seed.

    Raises ConfigError for what makes no stream: one task, a task twice, an unknown strategy.
    """
    names = [spec.name for spec in specs]
    if repeated := next((name for name in names if names.count(name) > 1), None):
        raise ConfigError(f"{repeated} is twice in the stream: a stage per task. Name each task once.")
    if len(names) < 2:
        raise ConfigError("A stream has at least two tasks: --tasks a,b.")
    folders = [folder_name(name) for name in names]
    if repeated := next((name for name in folders if folders.count(name) > 1), None):
        raise ConfigError(f"Two tasks of the stream would share the folder {repeated}: rename one of them.")
    for key, value in (("data.folds", config.data.folds), ("data.hold_out", config.data.hold_out)):
        if value is not None:
            raise ConfigError(f"{key} has no place in a stream: every stage is judged on the same rows of each task.")
    if config.data.train_rows is None and any(each.startswith(REPLAY) or is_l3(each) for each in strategies):
        raise ConfigError("replay and l3 count rows: give --train-rows, the rows of each task.")
    by_name = {spec.name: spec for spec in specs}
    sizes: dict[str, int] = {}
    if config.data.train_rows is not None and any(each == "multi" or each.startswith(REPLAY) for each in strategies):
        # A task with fewer rows than are asked for takes part in a mixture with all of them.
        sizes = {spec.name: load_pools(config, [spec]).draw(config).train_count for spec in specs}
    streams = []
    for strategy in strategies:
        share = share_of(strategy)
        for order in orders or [names]:
            if sorted(order) != sorted(names):
                raise ConfigError(f"--order {','.join(order)}: name each of {', '.join(names)} once.")
            for seed in seeds:
                stages = _stages(config, [by_name[name] for name in order], strategy, share, seed, out, sizes)
                streams.append(Stream(strategy, tuple(by_name[name] for name in order), seed, tuple(stages)))
    return streams


def share_of(strategy: str) -> float:
    """Return the share of earlier rows that a stage repeats. Raises ConfigError for an unknown strategy."""
    if is_l3(strategy):
        near_of(strategy)
    if strategy in ("sequential", "separate", "multi") or is_l3(strategy):
        return 0.0
    try:
        share = float(strategy.removeprefix(REPLAY)) if strategy.startswith(REPLAY) else -1.0
    except ValueError:
        share = -1.0
    if not 0 <= share <= 1:
        raise ConfigError(
            f"There is no strategy '{strategy}'; there are {', '.join(STRATEGIES)} (a share from 0 to 1, as in "
            "replay=0.1)."
        )
    return share


def _stages(
    config: Config,
    specs: Sequence[TaskSpec],
    strategy: str,
    share: float,
    seed: int,
    out: Path,
    sizes: Mapping[str, int],
) -> Iterator[Stage]:
    config = config.model_copy(update={"seed": seed})
    if strategy == "multi":
        joint = sorted(specs, key=lambda spec: spec.name)  # one run for all orders
        counts = [sizes[spec.name] for spec in joint] if sizes else []
        mixture = ("equal" if len(set(counts)) == 1 else _rows(counts)) if counts else "proportional"
        yield _stage(config, joint, out / "multi" / f"seed-{seed}", None, sum(counts) or None, mixture)
        return
    before: Path | None = None
    order = "-".join(folder_name(spec.name) for spec in specs)
    for index, spec in enumerate(specs):
        name = folder_name(spec.name)
        if index == 0 or strategy == "separate" or is_l3(strategy):  # what l3 takes is known once the model was asked
            folder = out / "single" / name / f"seed-{seed}"
            stage = _stage(config, [spec], folder, None, config.data.train_rows, None)
        else:
            folder = out / ("sequential" if not share else strategy.replace("=", "-")) / f"order-{order}"
            folder = folder / f"seed-{seed}" / f"stage-{index + 1}-{name}"
            rows = config.data.train_rows
            repeated = round(share * rows) if share and rows is not None else 0
            if repeated:
                counts = [sizes[spec.name], *[min(repeated, sizes[each.name]) for each in specs[:index]]]
                stage = _stage(config, [spec, *specs[:index]], folder, before, sum(counts), _rows(counts))
            else:
                stage = _stage(config, [spec], folder, before, rows, None)
        yield stage
        before = folder


def _rows(counts: Sequence[int]) -> str:
    """Return the mixture of so many rows of each task."""
    return f"rows={','.join(map(str, counts))}"


def _stage(
    config: Config,
    specs: Sequence[TaskSpec],
    folder: Path,
    before: Path | None,
    train_rows: int | None,
    mixture: str | None,
) -> Stage:
    data = config.data.model_copy(update={"train_rows": train_rows, "mixture": mixture})
    settings = config.model_copy(
        update={"data": data, "init": str(before) if before is not None else config.init, "task": specs[0].name}
    )
    title = f"{shown_name(config.method, len(specs))} on {', '.join(spec.name for spec in specs)}, seed {config.seed}"
    return Stage(title, folder, settings, tuple(specs))


def with_base(stream: Stream, out: Path, before: Sequence[Entry]) -> Stream:
    """Return an L3-style stream with what its stages take from its base, which already knows `before`.

    A stage that takes nothing is the run of its task alone. Raises what reading the rows and the model raises.
    """
    order = "-".join(folder_name(spec.name) for spec in stream.specs)
    folder = out / stream.strategy.replace("=", "-") / f"order-{order}" / f"seed-{stream.seed}"
    if any(entry.folder.parent.resolve() == (folder / BASE).resolve() for entry in before):
        raise ConfigError(f"--base {folder / BASE} is this stream's own: a base is only read. Name another --out.")
    alone = [Alone(stage.config, stage.specs[0], stage.folder) for stage in stream.stages]
    transfers = plan_transfers(alone, near_of(stream.strategy), folder, out / "centroids", before)
    stages = [
        replace(stage, folder=transfer.run, config=transfer.config, transfer=transfer)
        for stage, transfer in zip(stream.stages, transfers, strict=True)
    ]
    return replace(stream, stages=tuple(stages))


def run_streams(
    config: Config,
    streams: Sequence[Stream],
    out: Path,
    *,
    base: Path | None = None,
    command: str = "",
    runner: Runner | None = None,
) -> dict[str, Any]:
    """Run every stage that is not finished, judge, write matrix.json, and return its content.

    Given again, it goes on where it was. `base` is an L3 base of an earlier stream, which is only read. By default
    `runner` is one process per stage. Raises what a run raises, and KeyboardInterrupt with the incomplete folder.
    """
    lock = Lock(out)
    out.mkdir(parents=True, exist_ok=True)
    lock.acquire()
    try:
        ensure_model(config)
        streams = _with_bases(config, streams, out, base)
        stages = list({stage.folder: stage for stream in streams for stage in stream.stages}.values())
        with CellProcesses() as processes:
            run = runner or processes
            untrained = _judge_untrained(config, streams[0].specs, out, run)
            for number, stage in enumerate(stages, 1):
                note(f"[{number}/{len(stages)}] {stage.title} → {stage.folder}")
                if stage.transfer is not None:
                    stage.transfer.fill_base()
                scores = run(stage.config, stage.specs, stage.folder, resume=not is_unused(stage.folder))
                note(f"    {score_line(scores)}")
        results = [_matrix(config, stream, untrained) for stream in streams]
        matrix = {**results[0], "command": command, "runs": results}
        write_json(out / "matrix.json", matrix)
        return matrix
    finally:
        lock.release()


def _with_bases(config: Config, streams: Sequence[Stream], out: Path, base: Path | None) -> list[Stream]:
    """Settle the L3-style streams. Raises ConfigError for a base without such a stream."""
    if base is not None and not any(is_l3(stream.strategy) for stream in streams):
        raise ConfigError("--base is what an L3-style stream begins with: use it with --strategy l3.")
    before = [] if base is None else read_base(base, config)
    return [with_base(stream, out, before) if is_l3(stream.strategy) else stream for stream in streams]


def _judge_untrained(config: Config, specs: Sequence[TaskSpec], out: Path, run: Runner) -> dict[str, list[Prediction]]:
    """Return the untrained model's predictions of each task, by its name."""
    predictions = {}
    for spec in specs:
        folder = out / "untrained" / folder_name(spec.name)
        settings = config.model_copy(update={"method": ASKED, "task": spec.name, "init": None})
        run(settings, [spec], folder, resume=not is_unused(folder))
        predictions[spec.name] = Run.open(folder).predictions(config.data.split)
    return predictions


def _matrix(config: Config, stream: Stream, untrained: Mapping[str, Sequence[Prediction]]) -> dict[str, Any]:
    """Return one stream's matrix and figures."""
    by_stage: list[Mapping[str, Sequence[Prediction]]] = [untrained]
    learned: list[dict[str, Any]] = []
    for stage in stream.stages:
        if stage.transfer is not None:
            predictions, weights = answers(stage.transfer)
            by_stage.append({**by_stage[-1], stage.transfer.entry.task: predictions})
            learned.append({**stage.transfer.record, "weights": weights})
        elif stream.carries_on:
            by_stage.append(_judge_all(stage, stream.specs))
        else:
            (stage_spec,) = stage.specs
            by_stage.append({**by_stage[-1], stage_spec.name: Run.open(stage.folder).predictions(config.data.split)})
    names = [spec.name for spec in stream.specs]
    resamples = config.evaluation.resamples
    by_accuracy = len({spec.primary for spec in stream.specs}) > 1 and not any(s.is_number for s in stream.specs)
    return {
        "tasks": names,
        "stages": ["untrained", *(["all"] if stream.strategy == "multi" else names)],
        "method": config.method,
        "model": config.model,
        "strategy": stream.strategy,
        "seed": stream.seed,
        "metrics": {spec.name: spec.primary for spec in stream.specs},
        **summary(stream.specs, by_stage, resamples),
        "by_accuracy": summary(stream.specs, by_stage, resamples, "accuracy") if by_accuracy else None,
        "unreadable": [[_unreadable(stage[name]) for name in names] for stage in by_stage],
        "folders": [str(stage.folder) for stage in stream.stages],
        **({"l3": learned} if learned else {}),
    }


def _judge_all(stage: Stage, specs: Sequence[TaskSpec]) -> dict[str, list[Prediction]]:
    """Return the answers of a stage's run to all tasks.

    Those to tasks it was not trained on are judged once.
    """
    split = stage.config.data.split
    load = loading_once(specs)
    answers = {}
    for spec in specs:
        trained = spec.name in [each.name for each in stage.specs]
        if trained:
            folder = stage.folder if len(stage.specs) == 1 else task_folder(stage.folder, spec.name)
        else:
            folder = stage.folder / "after" / folder_name(spec.name)
            if is_unused(folder) or Run.open(folder).state != "complete":
                note(f"    {stage.folder} judges {spec.name}")
                evaluate_run(stage.folder, spec=spec, out=folder, force=True, load=load)
        answers[spec.name] = Run.open(folder).predictions(split)
    del load  # and with it the judges, before those of the next stage are loaded
    free_dropped()
    return answers


def _unreadable(predictions: Sequence[Prediction]) -> float:
    return sum(prediction.value is None for prediction in predictions) / max(1, len(predictions))


def check_method(name: str) -> str:
    """Return a method that a stream can train. Raises ConfigError for another."""
    (name,) = check_names([name])
    if not get_entry(name).trains_adapter:
        raise ConfigError(f"{name} has no adapter to carry from task to task. Take one that trains it, such as sft.")
    return name
