"""Captured passes on a real GPU: the same figures as usual passes, through all that happens in a run."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from test_graphs import OTHERS, PROMPTS, RESPONSES, assert_equal, figures

from adjudge.config import LoraConfig, load_config
from adjudge.models.engine import graphs
from adjudge.models.policy import Policy, load_policy
from adjudge.rollout.forward import token_figures

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU here")


def on_gpu(folder: Path, *, replays: bool) -> Policy:
    settings = {"model": str(folder), "runtime.dtype": "float32", "runtime.device": "cuda"}
    policy = load_policy(load_config(values=settings | {"runtime.cuda_graphs": replays}))
    policy.add_adapter(LoraConfig(r=4))
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in [*policy.adapter_parameters(), *policy.value_head.parameters()]:
            parameter.copy_(0.2 * torch.randn(parameter.shape, generator=generator))
    return policy.eval()


@pytest.mark.parametrize("family", ["tiny_llama", "tiny_qwen2"])
def test_replays_are_usual_passes(family: str, request: pytest.FixtureRequest) -> None:
    policy, usual = (on_gpu(request.getfixturevalue(family), replays=replays) for replays in (True, False))
    assert policy.packs and policy.replays and not usual.replays
    for prompts in (PROMPTS, OTHERS, PROMPTS):
        assert_equal(figures(policy, prompts), figures(usual, prompts))
    assert policy.engine.graphs is not None and policy.engine.graphs.replayed == 2


def test_a_new_reference_is_captured_after_the_old_passes_are_gone(tiny_llama: Path) -> None:
    policy = on_gpu(tiny_llama, replays=True)
    for _ in range(3):
        figures(policy)
    policy.freeze_reference()
    for _ in range(3):
        figures(policy)
    with torch.no_grad(), policy.reference():
        references = [token_figures(policy, PROMPTS, RESPONSES, 1.0).logp_BR for _ in range(3)]
    with torch.no_grad():
        own = token_figures(policy, PROMPTS, RESPONSES, 1.0).logp_BR
    assert policy.replays
    assert_equal(references, [own] * 3)


def test_random_numbers_go_on_after_a_capture_that_failed(tiny_llama: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def waits(self: object, shape: object, indices: torch.Tensor) -> torch.Tensor:
        indices.sum().item()  # not allowed while capturing
        raise AssertionError

    policy = on_gpu(tiny_llama, replays=True)
    figures(policy)
    usual = type(policy.engine).run_fixed
    monkeypatch.setattr(graphs._Captured, "_run_with_gradient", lambda self: waits(self, self.shape, self.indices))
    figures(policy)
    assert not policy.replays
    monkeypatch.undo()
    assert type(policy.engine).run_fixed is usual
    assert torch.rand(4, device="cuda").isfinite().all()
    figures(policy)
