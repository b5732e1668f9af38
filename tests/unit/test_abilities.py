"""Abilities of the forward pass: tried in order, and the first with the model's own logits is used."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import save_tiny
from policies import trained_looking
from torch import Tensor
from transformers import Lfm2Config

from adjudge.config import RuntimeConfig
from adjudge.errors import ModelError
from adjudge.models.engine.abilities import candidates
from adjudge.models.engine.attention import ATTENTION
from adjudge.models.engine.forward import Engine, build_engine
from adjudge.models.sources.loading import load_causal_lm


def loaded(folder: Path) -> Any:
    return load_causal_lm(str(folder), RuntimeConfig(device="cpu", dtype="float32"))[0]


@pytest.mark.parametrize(
    ("family", "expected"),
    [
        ("tiny_llama", [(True, True), (False, True), (False, False)]),
        ("tiny_mpt", [(False, True), (False, False)]),
    ],
)
def test_candidates_are_ordered_fastest_first(family: str, expected: list, request: pytest.FixtureRequest) -> None:
    model = loaded(request.getfixturevalue(family))
    ordered = candidates(getattr(model, model.base_model_prefix), trims_last_layer=False)
    assert [(abilities.packs, abilities.shares_prefix) for abilities in ordered] == expected


def test_first_candidate_with_the_models_logits_is_used(
    tiny_llama: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A packed pass that fails and a shared prefix that gives other logits leave the plain pass."""

    def fails(self: Engine, *args: Any, **named: Any) -> Any:
        raise RuntimeError("no packed pass")

    def wrong(self: Engine, prefix_C: Tensor) -> Any:
        return prefix_cache(self, prefix_C + 1)

    prefix_cache = Engine.prefix_cache
    monkeypatch.setattr(Engine, "_run_packed", fails)
    engine = build_engine(loaded(tiny_llama), "mine")
    assert (engine.abilities.packs, engine.abilities.shares_prefix) == (False, True)
    assert engine.decoder.config._attn_implementation == "sdpa"
    assert "cannot run without padding here (RuntimeError: no packed pass)" in capsys.readouterr().err
    monkeypatch.setattr(Engine, "prefix_cache", wrong)
    engine = build_engine(loaded(tiny_llama), "mine")
    assert (engine.abilities.packs, engine.abilities.shares_prefix) == (False, False)
    assert "mine: the prompts' common beginning cannot be computed once" in capsys.readouterr().err


def test_model_without_a_fitting_candidate_is_refused(tiny_llama: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Engine, "logits", lambda self, hidden: self.model.get_output_embeddings()(hidden) + 1.0)
    with pytest.raises(ModelError, match="mine: the logits computed here differ from the model's own"):
        build_engine(loaded(tiny_llama), "mine")


def test_a_model_whose_state_cannot_be_divided_into_rows_is_refused(tmp_path: Path) -> None:
    """Convolutions beside attention: the first pass is right, and its rows cannot be picked from."""
    own = {"layer_types": ["conv", "full_attention", "conv"], "conv_L_cache": 3, "num_hidden_layers": 3}
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 4, "num_key_value_heads": 2}
    folder = save_tiny(Lfm2Config(vocab_size=400, **sizes, **own), tmp_path / "hybrid")
    with pytest.raises(ModelError, match=r"computed row by row, so it cannot be used \(AttributeError"):
        build_engine(loaded(folder), "mine")


def test_error_of_the_last_candidate_is_reported(tiny_llama: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(self: Engine, *args: Any, **named: Any) -> Any:
        raise TypeError("no such pass")

    monkeypatch.setattr(Engine, "prefill", broken)
    with pytest.raises(ModelError, match=r"mine: .*cannot be used \(TypeError: no such pass\)"):
        build_engine(loaded(tiny_llama), "mine")


def test_merged_policy_is_the_engines_model(tiny_llama: Path) -> None:
    policy = trained_looking(tiny_llama)
    policy.merge()
    assert policy.lm is policy.engine.model
    assert torch.isfinite(policy.prefill([[5, 6, 7]]).hidden_BD).all()
    assert policy.engine.decoder.config._attn_implementation == ATTENTION
