"""REINFORCE++ is PPO without a critic, with gamma = lam = 1 and a fixed beta."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from fake_method import reviews
from running import EPOCHS_ALONE, logged
from safetensors.torch import load_file

from adjudge.config import load_config
from adjudge.experiments.execute import execute
from adjudge.runs.folder import Run

SHARED = {
    "warm_start": 0.0,
    "samples": 1,
    "batch_size": 8,
    "update_epochs": 1,
    "optimizer.lr": 1e-3,
    "epochs": 2,
}
AS_REINFORCE = {
    "ppo.values": "critic",
    "ppo.gamma": 1.0,
    "ppo.lam": 1.0,
    "ppo.value_coef": 0.0,
    "ppo.kl_target": None,
    "ppo.kl_init": 0.3,
}


def trained(
    method: str, model: Path, folder: Path, **values: Any
) -> tuple[dict[str, torch.Tensor], list[dict[str, Any]]]:
    settings = {
        **EPOCHS_ALONE,
        "method": method,
        "model": str(model),
        "runtime.dtype": "float32",
        "runtime.device": "cpu",
        "data.train_rows": 24,
        "data.eval_rows": 4,
        "evaluation.resamples": 100,
        "reinforce.kl": 0.3,
        **{f"{method}.{key}": value for key, value in SHARED.items()},
        **{f"{method}.{key.replace('__', '.')}": value for key, value in values.items()},
    }
    overrides = [f"{key}={'null' if value is None else value}" for key, value in AS_REINFORCE.items()]
    folder.mkdir()
    execute(load_config(values=settings, overrides=overrides), reviews(folder), folder / "run")
    run = Run.open(folder / "run")
    return load_file(run.folder / "adapter" / "adapter_model.safetensors"), logged(run)


def test_reinforce_is_ppo_without_a_critic(tiny_llama: Path, tmp_path: Path) -> None:
    size = {"mini_batch_size": 4}
    ours, our_log = trained("reinforce", tiny_llama, tmp_path / "reinforce", **size)
    theirs, their_log = trained("ppo", tiny_llama, tmp_path / "ppo", **size)
    assert len(our_log) == len(their_log) == 6
    assert any((tensor != 0).any() for name, tensor in ours.items() if "lora_B" in name)
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    for one, other in zip(our_log, their_log, strict=True):
        assert one == {key: value for key, value in other.items() if key in one}


def test_the_weight_of_the_kl_matters(tiny_llama: Path, tmp_path: Path) -> None:
    """Without it the equality above could hold for any beta."""
    weak, _ = trained("reinforce", tiny_llama, tmp_path / "weak", kl=0.0)
    strong, _ = trained("reinforce", tiny_llama, tmp_path / "strong", kl=0.3)
    assert any(not torch.equal(weak[name], strong[name]) for name in weak)
