"""Captured passes on a real GPU: the same figures as usual passes, through all that happens in a run."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from test_graphs import OTHERS, PROMPTS, RESPONSES, assert_equal, figures

from adjudge.config import LoraConfig, load_config
from adjudge.models.engine import graphs
from adjudge.models.engine.graphs import drop_captured
from adjudge.models.policy import Policy, load_policy
from adjudge.rollout.forward import token_figures
from adjudge.system.memory import free_dropped

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU here")


def on_gpu(folder: Path, *, replays: bool, device: str = "cuda") -> Policy:
    settings = {"model": str(folder), "runtime.dtype": "float32", "runtime.device": device}
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


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="there is no second GPU here")
def test_replays_on_a_gpu_that_is_not_the_current_one(tiny_llama: Path) -> None:
    usual = on_gpu(tiny_llama, replays=False)
    for device in ("cuda:0", "cuda:1"):
        policy = on_gpu(tiny_llama, replays=True, device=device)
        for prompts in (PROMPTS, OTHERS, PROMPTS):
            assert_equal(*([each.cpu() for each in figures(one, prompts)] for one in (policy, usual)))
        assert policy.replays and policy.engine.graphs is not None and policy.engine.graphs.replayed == 2


def test_a_thread_that_has_run_nothing_yet_can_capture(tiny_llama: Path) -> None:
    policy, usual = (on_gpu(tiny_llama, replays=replays) for replays in (True, False))
    figures(policy)
    with ThreadPoolExecutor(1) as other:
        assert_equal(other.submit(figures, policy).result(), figures(usual))
    assert policy.engine.graphs is not None and policy.engine.graphs.replayed == 1


def test_dropped_captures_give_their_memory_back(tiny_llama: Path) -> None:
    policy = on_gpu(tiny_llama, replays=True)
    left = []
    for _ in range(2):
        for _ in range(2):
            figures(policy)
        free_dropped()
        held = torch.cuda.memory_reserved()
        assert drop_captured()
        left.append(torch.cuda.memory_reserved())
        assert left[-1] < held
    assert left[1] <= left[0]
    assert policy.replays


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
