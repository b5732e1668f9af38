"""Prune a model to a smaller ordinary model folder.

The groups with the lowest scores go, per layer; every layer keeps as many, so that plain transformers loads the result.
With ``padded``, layers lose different numbers of groups, and those that lose more are filled with zeros.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from adjudge.compress.cut import check_settings, cut_groups, zero_groups
from adjudge.compress.groups import KINDS, NAMES, Kind, kinds_of, layers_of
from adjudge.compress.importance import CRITERIA, Criterion, Scores, score_groups
from adjudge.compress.score import keep_best, removed_per_layer
from adjudge.config import RuntimeConfig
from adjudge.errors import ConfigError, ModelError, RunError, nearest
from adjudge.models.sources.bundled import published_name
from adjudge.models.sources.device import DTYPES
from adjudge.models.sources.loading import load_causal_lm
from adjudge.models.sources.quiet import quiet
from adjudge.models.sources.random_models import is_random
from adjudge.system.console import warn
from adjudge.system.files import whole_folder, write_json
from adjudge.version import __version__

FILE = "pruning.json"
MOST_CHECKED = 64
"""Tokens of a row on which the written model is compared with the one in memory."""


@dataclass(frozen=True, slots=True)
class Pruning:
    """What is pruned, and how groups are scored."""

    ratios: Mapping[str, float]
    """Share of the groups that go, per kind."""
    criterion: Criterion = "taylor"
    elementwise: bool = True
    second_order: bool = False
    padded: bool = False
    seed: int = 0
    dtype: str = "float32"


@dataclass(frozen=True, slots=True)
class Calibration:
    """The text on which gradients are taken."""

    rows: Sequence[Sequence[int]] = ()
    """Token ids."""
    about: Mapping[str, Any] = field(default_factory=dict)
    """Where the rows come from, for the record."""


@dataclass(frozen=True, slots=True)
class Pruned:
    """What became of a model."""

    folder: Path
    parameters_before: int
    parameters: int
    widths: Mapping[str, tuple[int, int]]
    """Groups per layer before and after, per kind."""

    @property
    def share(self) -> float:
        """Return the share of parameters that are gone."""
        return 1 - self.parameters / self.parameters_before


def parse_ratios(text: str, kinds: Sequence[str]) -> dict[str, float]:
    """Parse ``"0.25"`` or ``"mlp=0.25,heads=0.34"``. Raises ConfigError."""
    for kind in kinds:
        if kind not in KINDS:
            raise ConfigError(f"--kinds: there is no '{kind}'; there are {', '.join(KINDS)}.{nearest(kind, KINDS)}")
    if "=" not in text:
        return {kind: _ratio(text, kind) for kind in kinds}
    ratios: dict[str, float] = {}
    for part in text.split(","):
        kind, _, number = part.partition("=")
        if kind.strip() not in kinds:
            raise ConfigError(f"--ratio '{text}': '{kind.strip()}' is not among --kinds {','.join(kinds)}.")
        ratios[kind.strip()] = _ratio(number, kind.strip())
    if missing := [kind for kind in kinds if kind not in ratios]:
        raise ConfigError(f"--ratio '{text}' names no ratio for {', '.join(missing)}: leave it out of --kinds.")
    return ratios


def _ratio(text: str, kind: str) -> float:
    try:
        ratio = float(text)
    except ValueError:
        ratio = -1.0
    if not 0 <= ratio < 1:
        raise ConfigError(f"--ratio: '{text.strip()}' for {kind} is no share from 0 to below 1, such as 0.25.")
    return ratio


def check_pruning(pruning: Pruning, name: str, out: Path) -> None:
    """Raise ConfigError or RunError for what can be refused before a model is loaded."""
    if out.exists():
        raise RunError(f"{out} is there already. Name another --out.")
    if pruning.criterion not in CRITERIA:
        known = ", ".join(CRITERIA)
        hint = nearest(pruning.criterion, CRITERIA)
        raise ConfigError(f"There is no criterion '{pruning.criterion}'; there are {known}.{hint}")
    if pruning.dtype not in DTYPES:
        raise ConfigError(f"There is no dtype '{pruning.dtype}'; there are {', '.join(DTYPES)}.")
    if pruning.padded and pruning.criterion != "saap":
        raise ConfigError("--padded is for layers of different budgets, which --criterion saap gives.")
    if is_random(name):
        raise ConfigError(f"{name} has random weights: there is nothing to keep. Name a real model.")


def prune(model: Any, tokenizer: Any, name: str, pruning: Pruning, calibration: Calibration, out: str | Path) -> Pruned:
    """Score the groups of `model`, cut it in memory, and write it to folder `out`, with ``pruning.json``.

    The folder is loaded again and compared with the model in memory before it appears. `model` is float32 and not
    fused (see `load_for_pruning`). Raises ConfigError for a ratio that leaves no group, or numbers that the family does
    not accept; ModelError for an unknown family or a folder that computes other logits.
    """
    out = Path(out)
    check_pruning(pruning, name, out)
    kinds = kinds_of(model.config, list(pruning.ratios))
    for kind in kinds:
        kept_count(kind, pruning.ratios[kind.name])
    if not pruning.padded:
        check_settings(model.config, {kind.name: kept_count(kind, pruning.ratios[kind.name]) for kind in kinds})
    if pruning.criterion in ("taylor", "saap") and not calibration.rows:
        raise ConfigError(f"--criterion {pruning.criterion} needs calibration text: --task, --data or --corpus.")
    before = sum(parameter.numel() for parameter in model.parameters())
    scores = score_groups(
        model,
        kinds,
        calibration.rows,
        pruning.criterion,
        elementwise=pruning.elementwise,
        second_order=pruning.second_order,
        seed=pruning.seed,
    )
    kept = {kind.name: kept_groups(kind, scores[kind.name], pruning) for kind in kinds}
    layout = _laid_out(model, kinds, kept)
    check_settings(model.config, {name: len(groups[0]) for name, groups in layout.items()})
    cut_groups(model, kinds, layout)
    pruned = Pruned(
        out,
        before,
        sum(parameter.numel() for parameter in model.parameters()),
        {kind.name: (kind.count, len(layout[kind.name][0])) for kind in kinds},
    )
    _write(model, tokenizer, pruned, pruning, calibration, _record(name, pruned, kept, layout, pruning, calibration))
    return pruned


def load_for_pruning(name: str, runtime: RuntimeConfig) -> tuple[Any, Any]:
    """Load a model in float32 and its tokenizer.

    Raises ModelError as `load_causal_lm`, and for quantized weights.
    """
    if runtime.quantization != "none":
        raise ModelError("Quantized weights cannot be pruned: leave runtime.quantization out.")
    return load_causal_lm(name, runtime.model_copy(update={"dtype": "float32"}))


def kept_count(kind: Kind, ratio: float) -> int:
    """Return how many groups a layer keeps. Raises ConfigError when none is left."""
    kept = round((1 - ratio) * kind.count)
    if kept == 0:
        raise ConfigError(
            f"--ratio {ratio:g} leaves none of the {kind.count} {NAMES[kind.name]} of a layer; "
            f"up to {1 - 1 / kind.count:.2g} leaves one."
        )
    return kept


def kept_groups(kind: Kind, scores: Scores, pruning: Pruning) -> list[Tensor]:
    """Return the indices of the groups that every layer keeps."""
    ratio, layers = pruning.ratios[kind.name], len(scores.score_NG)
    counts = [kept_count(kind, ratio)] * layers
    if pruning.padded:
        assert scores.fluctuation_N is not None
        removed = removed_per_layer(scores.fluctuation_N, kind.count, ratio)
        if sum(removed) < round(ratio * layers * kind.count):
            share = sum(removed) / (layers * kind.count)
            warn(f"{kind.name}: no layer loses more than nine tenths, so {share:.1%} are removed, not {ratio:.1%}.")
        counts = [kind.count - lost for lost in removed]
    return [keep_best(score_G, count) for score_G, count in zip(scores.score_NG, counts, strict=True)]


def _laid_out(model: Any, kinds: Sequence[Kind], kept: Mapping[str, Sequence[Tensor]]) -> dict[str, list[Tensor]]:
    """Return the groups that stay in the weights: as many in every layer.

    Those that only fill a layer up are set to zero.
    """
    layout = {}
    for kind in kinds:
        widest = max(len(groups) for groups in kept[kind.name])
        everyone = torch.arange(kind.count)
        removed = [everyone[~torch.isin(everyone, groups)] for groups in kept[kind.name]]
        if any(len(groups) < widest for groups in kept[kind.name]):
            zero_groups(model, kind, removed)
        layout[kind.name] = [
            torch.cat([groups, lost[: widest - len(groups)]]).sort().values
            for groups, lost in zip(kept[kind.name], removed, strict=True)
        ]
    return layout


def _record(
    name: str,
    pruned: Pruned,
    kept: Mapping[str, Sequence[Tensor]],
    layout: Mapping[str, Sequence[Tensor]],
    pruning: Pruning,
    calibration: Calibration,
) -> dict[str, Any]:
    return {
        "adjudge": __version__,
        "model": published_name(name),
        **asdict(pruning),
        "calibration": {
            "rows": len(calibration.rows),
            "tokens": sum(map(len, calibration.rows)),
            **calibration.about,
        },
        "parameters": {"before": pruned.parameters_before, "after": pruned.parameters},
        "widths": {kind: {"before": before, "after": after} for kind, (before, after) in pruned.widths.items()},
        "kept": {kind: [groups.tolist() for groups in layers] for kind, layers in kept.items()},
        "zeros": {
            kind: [len(all_groups) - len(groups) for all_groups, groups in zip(layout[kind], layers, strict=True)]
            for kind, layers in kept.items()
        },
    }


def _write(
    model: Any,
    tokenizer: Any,
    pruned: Pruned,
    pruning: Pruning,
    calibration: Calibration,
    record: Mapping[str, Any],
) -> None:
    pruned.folder.parent.mkdir(parents=True, exist_ok=True)
    for parameter in model.parameters():  # not model.to: it would round the rotary frequencies, too
        parameter.data = parameter.data.to(DTYPES[pruning.dtype])
    with whole_folder(pruned.folder) as temporary:
        with quiet():
            model.save_pretrained(temporary)
        tokenizer.save_pretrained(temporary)
        write_json(temporary / FILE, record)
        row = list(calibration.rows[0][:MOST_CHECKED]) if calibration.rows else list(range(3, 19))
        runtime = RuntimeConfig(device=str(model.device), dtype=pruning.dtype)  # type: ignore[arg-type]
        again, _ = load_causal_lm(str(temporary), runtime)
        expected, actual = _logits(model, row), _logits(again, row)
        if not torch.equal(expected.isfinite(), actual.isfinite()) or not torch.allclose(
            expected, actual, rtol=1e-4, atol=1e-4 * float(expected.abs().max())
        ):
            raise ModelError(
                f"The pruned model that was written computes other logits than the one in memory (up to "
                f"{float((expected - actual).abs().max()):.2g}). Nothing was written."
            )


@torch.inference_mode()
def _logits(model: Any, row: Sequence[int]) -> Tensor:
    logits: Tensor = model(input_ids=torch.tensor([list(row)], device=model.device)).logits
    return logits.float()


def describe(model: Any) -> str:
    """Return ``30 layers, 1,536 MLP channels and 3 key-value groups each``.

    Raises ModelError for an unknown family.
    """
    counts = " and ".join(f"{kind.count:,} {NAMES[kind.name]}" for kind in kinds_of(model.config, KINDS))
    return f"{len(layers_of(model))} layers, {counts} each"
