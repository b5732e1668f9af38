"""A repeated run, compared bit by bit with the original except for the seconds."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adjudge.config import Config, change
from adjudge.errors import ConfigError, DataError, RunError
from adjudge.experiments.execute import execute
from adjudge.experiments.tracked import with_trackers
from adjudge.methods.settings import load_reward_model, reward_settings
from adjudge.runs.calibration import read_calibration
from adjudge.runs.environment import FILE, dated, differences, flat
from adjudge.runs.folder import WRITER_LOG, Run, read_json, read_jsonl
from adjudge.runs.reward_model import REWARD_MODEL
from adjudge.runs.tasks import read_tasks, result_folders
from adjudge.system.console import note, warn
from adjudge.system.files import sha256_of
from adjudge.tasks.reading.kept_rows import place_of
from adjudge.tasks.spec import Source, TableSource, TaskSpec

if TYPE_CHECKING:
    from torch import Tensor

TRAINED = ("adapter", "encoder", "regression")
"""Folders of a run with its trained weights, as safetensors."""

SHOWN = 60
"""Number of characters shown of a differing value."""


@dataclass(frozen=True, slots=True)
class Part:
    """One part of two runs, compared."""

    name: str
    equal: bool
    detail: str
    """What it contains, or where it first differs."""


def rerun(
    folder: str | Path,
    out: str | Path | None = None,
    *,
    data_dir: str | None = None,
    force: bool = False,
    reward_funcs: Sequence[str] = (),
    report_to: str | None = None,
    settings: Mapping[str, Any] | None = None,
) -> Path:
    """Repeat a complete run in `out` and return `out` (default: the folder's name with ``-rerun`` added).

    A repetition that was stopped goes on. Settings and tasks are those of the run. `data_dir` names another place of
    the same data. `reward_funcs` must repeat the run's reward functions: the code which a run folder names is not run
    on its word. `report_to` names trackers; those of the first run are not told again. `settings` are some of the
    machine, such as ``runtime.device``.

    Raises ConfigError for an unknown tracker and for other settings. Raises RunError when the run is not complete or is
    an evaluation of another run, when `out` is the run itself, or when `out` (without `force`) holds another run. Also
    raises what the run itself raises.
    """
    folder = Path(folder)
    run = Run.open(folder)
    if run.state != "complete":
        raise RunError(f"{folder} is {run.state}: only a complete run can be repeated and compared.")
    if not (folder / "training.json").is_file():
        raise RunError(
            f"{folder} holds an evaluation of another run, not a run. Give the folder of the run that made it."
        )
    whole = folder if folder.name else folder.resolve()
    target = Path(out) if out is not None else whole.with_name(f"{whole.name}-rerun")
    if target.resolve() == folder.resolve():
        raise RunError(f"{target} is the run to repeat. Name another --out.")
    if others := [key for key in settings or {} if not key.startswith("runtime.")]:
        raise ConfigError(f"{others[0]}: a repeated run may change only settings of the machine (runtime.NAME=value).")
    config = change(dated(folder, run.config), settings or {})
    reward = reward_settings(config)
    names = reward.functions if reward is not None else ()
    if tuple(reward_funcs) != names:
        raise RunError(
            f"{folder} learned from {'the reward functions ' + ', '.join(names) if names else 'no reward functions'}. "
            + (
                f"Repeating it runs their files; if you trust them, add --reward-funcs {','.join(names)}."
                if names
                else ""
            )
        )
    _check_reward_model(folder, config, specs := read_tasks(folder))
    if data_dir is not None:
        config = config.model_copy(update={"data": config.data.model_copy(update={"data_dir": data_dir})})
    config = with_trackers(config, report_to)
    _check_tables(folder, specs, config.data.data_dir)
    note(f"repeating {folder} → {target}")
    log = folder / WRITER_LOG
    if log.is_file():
        note(f"what a model wrote, or answered over an API, is taken from {log}: it is not asked again")
    answers = log if log.is_file() else None
    execute(config, specs, target, force=force, resume=not force and _is_unfinished(target), answers=answers)
    return target


def _check_reward_model(folder: Path, config: Config, specs: Sequence[TaskSpec]) -> None:
    """Raise RunError when the reward model of a run is gone, or is not as it was."""
    before = read_json(folder / "training.json").get(REWARD_MODEL)
    model = load_reward_model(config, specs)
    if before is not None and model is not None and model.files != before["sha256"]:
        raise RunError(
            f"{folder} learned from the reward model in {model.folder}, which has changed since. Put back the one it "
            "was, or train anew."
        )


def _check_tables(folder: Path, specs: Sequence[TaskSpec], data_dir: str | None) -> None:
    """Warn of a user's table that is not the file of the run.

    Raises DataError when it is gone, with the hash of the run's file.
    """
    from adjudge.tasks.reading.located import located

    recorded = read_json(folder / FILE).get("data", {}).get("tasks", {}) if _has(folder) else {}
    for spec in specs:
        digests = recorded.get(spec.name, {}).get("files", {}) if spec.source.table is not None else {}
        for name, digest in digests.items():
            file = str(place_of(Path(name), folder))
            dataset = spec.source.table.dataset if spec.source.table is not None else None
            single = spec.model_copy(update={"source": Source(table=TableSource(train=file, dataset=dataset))})
            try:
                table = located(single, data_dir).table
            except DataError as error:
                raise DataError(f"{error}\nThe run's file had the SHA-256 {digest}.") from None
            if table is not None and (now := sha256_of(Path(table.train))) != digest:
                warn(f"{table.train} is not the run's file: its SHA-256 was {digest[:12]}… and is {now[:12]}….")


def _is_unfinished(target: Path) -> bool:
    """Return whether the folder holds a run that was stopped.

    The repetition then goes on, with the same result.
    """
    return (target / "config.yaml").is_file() and Run.open(target).state != "complete"


def environment_lines(one: Path, other: Path) -> list[str]:
    """Return the differences between two environments that may make results unequal, one per line."""
    lacking = [
        f"{folder} has no {FILE}: it was made by an older version of adjudge."
        for folder in (one, other)
        if not _has(folder)
    ]
    return lacking or differences(read_json(one / FILE), read_json(other / FILE))


def compare_runs(one: Path, other: Path) -> list[Part]:
    """Compare two complete runs of the same settings part by part.

    Raises RunError for a folder that is damaged or lacks a part.
    """
    folders = list(zip(result_folders(one), result_folders(other), strict=True))
    split = Run.open(one).config.data.split
    parts = [
        _fields("rows", _rows(one), _rows(other)),
        _records("demonstrations", *_both(one, other, "demonstrations.jsonl"), ""),
        *_label_priors(one, other),
        *_instruction(one, other),
        _records("metrics.jsonl", *_both(one, other, "metrics.jsonl"), "step"),
        *_weights(one, other),
        *_calibration(one, other),
    ]
    for first, second in folders:
        task = f" of {read_tasks(first)[0].name}" if len(folders) > 1 else ""
        parts.append(_records(f"predictions{task}", *_both(first, second, f"predictions/{split}.jsonl"), "id"))
        parts.append(_fields(f"scores{task}", _scores(first), _scores(second)))
    return [part for part in parts if part is not None]


def _has(folder: Path) -> bool:
    return (folder / FILE).is_file()


def _both(one: Path, other: Path, name: str) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    return list(read_jsonl(one / name)), list(read_jsonl(other / name))


def _rows(folder: Path) -> dict[str, Any]:
    training = read_json(folder / "training.json")
    return {key: training.get(key) for key in ("rows_sha256", "train_rows")}


def _scores(folder: Path) -> dict[str, Any]:
    scores = Run.open(folder).scores()
    return dict(flat({"metrics": scores["metrics"]})) | {key: scores[key] for key in ("n", "unreadable")}


def _calibration(one: Path, other: Path) -> Iterator[Part]:
    """Compare what two runs fitted at the end of their training.

    A run that is calibrated later is no other run.
    """
    if Run.open(one).config.calibration.rows:
        yield _fields("calibration", *(dict(flat(read_calibration(folder))) for folder in (one, other)))


def _label_priors(one: Path, other: Path) -> Iterator[Part | None]:
    """Compare the label priors of two runs, order by order; nothing where neither has any."""
    paths = [folder / "label_priors.json" for folder in (one, other)]
    if any(path.is_file() for path in paths):
        first, second = ([dict(flat(prior)) for prior in read_json(path)["orders"]] for path in paths)
        yield _records("label_priors.json", first, second, "")


def _instruction(one: Path, other: Path) -> Iterator[Part]:
    """Compare the instructions that two runs found; nothing where neither searched one."""
    paths = [folder / "instruction.txt" for folder in (one, other)]
    if any(path.is_file() for path in paths):
        texts = [path.read_text(encoding="utf-8") if path.is_file() else None for path in paths]
        yield _fields("instruction.txt", *({"instruction": text} for text in texts))


def _fields(name: str, one: Mapping[str, Any], other: Mapping[str, Any]) -> Part:
    """Compare two flat mappings."""
    differing = _differing(one, other)
    if not differing:
        return Part(name, True, ", ".join(f"{key} {_value(one[key])}" for key in list(one)[:2]))
    key = differing[0]
    return Part(name, False, f"{_change(key, one, other)}{_more(len(differing), 'field')}")


def _records(name: str, one: Sequence[Mapping[str, Any]], other: Sequence[Mapping[str, Any]], key: str) -> Part | None:
    """Compare two lists of records. Return None if both are empty.

    `key` is the field by which a person finds a record.
    """
    if not one and not other:
        return None
    what = "rows" if key == "id" else "records"
    if len(one) != len(other):
        return Part(name, False, f"{len(one):,} {what} → {len(other):,}")
    pairs = [(first, second, _differing(first, second)) for first, second in zip(one, other, strict=True)]
    unequal = [(number, *pair) for number, pair in enumerate(pairs, 1) if pair[2]]
    if not unequal:
        return Part(name, True, f"{len(one):,} {what}")
    number, first, second, fields = unequal[0]
    where = f"{key if key != 'id' else 'row'} {first[key]}" if key in first else f"record {number}"
    answers = f", {sum('value' in fields for *_, fields in unequal):,} in the answer" if key == "id" else ""
    return Part(
        name,
        False,
        f"{where}: {_change(fields[0], first, second)} ({len(unequal):,} of {len(one):,} {what} differ{answers})",
    )


def _differing(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """Return the differing fields, except `seconds`.

    They are compared as JSON: a zero has a sign, and true is not 1.
    """
    keys = [key for key in dict.fromkeys([*one, *other]) if key != "seconds"]
    return [key for key in keys if (key in one) != (key in other) or _json(one.get(key)) != _json(other.get(key))]


def _weights(one: Path, other: Path) -> Iterator[Part]:
    """Compare the tensor files of either run."""
    names = {
        path.relative_to(run).as_posix()
        for run in (one, other)
        for kind in TRAINED
        for path in (run / kind).glob("*.safetensors")
    }
    for name in sorted(names):
        lacking = [run for run in (one, other) if not (run / name).is_file()]
        if lacking:
            yield Part(name, False, f"{lacking[0]} has no such file")
        else:
            yield _tensors(name, one / name, other / name)


def _tensors(name: str, one: Path, other: Path) -> Part:
    """Compare two tensor files bit by bit."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        first, second = load_file(one), load_file(other)
    except (OSError, SafetensorError) as error:
        raise RunError(f"{one} or {other}: is damaged: {error}") from None
    if odd := sorted(first.keys() ^ second.keys()):
        return Part(name, False, f"only one has the tensor {odd[0]}{_more(len(odd), 'tensor')}")
    wrong = [key for key in sorted(first) if not _same_bits(first[key], second[key])]
    if not wrong:
        return Part(name, True, f"{len(first):,} tensors")
    count = f"{len(wrong):,} of {len(first):,} tensors differ"
    for key in wrong:
        kinds = [
            f"{tensors[key].dtype} {list(tensors[key].shape)}".removeprefix("torch.") for tensors in (first, second)
        ]
        if kinds[0] != kinds[1]:
            return Part(name, False, f"{key}: {' → '.join(kinds)} ({count})")
    largest = max(float((first[key].double() - second[key].double()).abs().max()) for key in wrong)
    return Part(name, False, f"{wrong[0]} ({count}, by {largest:.3g} at most)")


def _same_bits(one: Tensor, other: Tensor) -> bool:
    """True if two tensors are the same bit by bit: not-a-number equals itself, and a zero has a sign."""
    import torch

    if one.shape != other.shape or one.dtype != other.dtype:
        return False
    return torch.equal(one.reshape(-1).view(torch.uint8), other.reshape(-1).view(torch.uint8))


def _more(count: int, what: str) -> str:
    return f" ({count:,} {what}s differ)" if count > 1 else ""


def _json(value: Any) -> str:
    return json.dumps(value, sort_keys=True)


def _change(key: str, one: Mapping[str, Any], other: Mapping[str, Any]) -> str:
    return f"{key} {' → '.join(_value(side[key]) if key in side else 'nothing' for side in (one, other))}"


def _value(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}…"
