"""A batch as one sequence without padding: which models pack, and that no figure changes."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from policies import trained_looking

from adjudge.models.engine.attention import ATTENTION
from adjudge.models.engine.batch import branch, build_batch
from adjudge.models.engine.packing import Packing
from adjudge.models.policy import Policy
from adjudge.rollout.forward import token_figures

PROMPTS = [[7, 8, 9, 10, *rest] for rest in ([11], [12, 13, 14, 15, 16, 17], [18, 19, 20], [21, 22])]
RESPONSES = [[30, 31, 32], [2], [33, 2], [34]]


def changed(folder: Path, to: Path, **settings) -> Path:
    """Copy the model of `folder` with other entries in its config.json."""
    shutil.copytree(folder, to)
    config = json.loads((to / "config.json").read_text(encoding="utf-8"))
    (to / "config.json").write_text(json.dumps(config | settings), encoding="utf-8")
    return to


def figures(policy: Policy) -> list[torch.Tensor]:
    """Return log-probabilities, values, and every gradient of both."""
    policy.zero_grad()
    logp, value, _ = token_figures(policy, PROMPTS, RESPONSES, 1.0)
    (logp.sum() + value.square().sum()).backward()
    trained = [*policy.adapter_parameters(), *policy.value_head.parameters()]
    return [logp.detach(), value.detach(), *(parameter.grad.clone() for parameter in trained)]


def padded(policy: Policy) -> Policy:
    policy.use(replace(policy.abilities, packs=False))
    return policy


@pytest.mark.parametrize(("family", "packs"), [("tiny_llama", True), ("tiny_qwen2", True), ("tiny_mpt", False)])
def test_which_families_pack(family: str, packs: bool, request: pytest.FixtureRequest) -> None:
    policy = trained_looking(request.getfixturevalue(family))
    assert policy.packs == packs
    assert policy.abilities.shares_prefix


@pytest.mark.parametrize("share", [True, False])
@pytest.mark.parametrize("family", ["tiny_llama", "tiny_qwen2"])
def test_packed_and_padded_agree_in_figures_and_gradients(
    family: str, share: bool, request: pytest.FixtureRequest
) -> None:
    packed, plain = (
        trained_looking(request.getfixturevalue(family)),
        padded(trained_looking(request.getfixturevalue(family))),
    )
    for policy in (packed, plain):
        policy.use(replace(policy.abilities, shares_prefix=share))
    assert packed.packs and not plain.packs
    for one, other in zip(figures(packed), figures(plain), strict=True):
        torch.testing.assert_close(one, other, atol=1e-5 * max(20.0, float(other.abs().max())), rtol=1e-4)
    torch.testing.assert_close(figures(packed)[0], figures(plain)[0], atol=2e-5, rtol=0)


@pytest.mark.parametrize("grad", [True, False])
@pytest.mark.parametrize("family", ["tiny_llama", "tiny_qwen2"])
def test_sampling_from_a_packed_prefill_gives_the_same_states(
    family: str, grad: bool, request: pytest.FixtureRequest
) -> None:
    fed = torch.tensor([[40], [41], [42], [43]])
    states = []
    for policy in (
        trained_looking(request.getfixturevalue(family)),
        padded(trained_looking(request.getfixturevalue(family))),
    ):
        state = policy.prefill(PROMPTS, grad=grad)
        first = state.hidden_BD
        second, state = policy.extend(state, fed)
        third, state = policy.extend(state.keep(torch.tensor([1, 3])), fed[:2])
        states.append((first, second, third, state.mask_BT.sum(1), state.position_B))
        assert first.requires_grad == third.requires_grad == grad
    for one, other in zip(*states, strict=True):
        torch.testing.assert_close(one, other, atol=5e-5, rtol=0)


def test_no_padding_reaches_the_layers(tiny_llama: Path) -> None:
    policy = trained_looking(tiny_llama)
    seen: list[int] = []
    policy.engine.decoder.register_forward_pre_hook(
        lambda _m, _i, named: seen.append(named["input_ids"].numel()), with_kwargs=True
    )
    figures(policy)
    needed = 4 + sum(len(prompt) - 4 + len(response) - 1 for prompt, response in zip(PROMPTS, RESPONSES, strict=True))
    assert seen == [needed]
    seen.clear()
    policy.zero_grad()
    with torch.no_grad():
        token_figures(policy, PROMPTS, RESPONSES, 1.0)
        token_figures(policy, PROMPTS, RESPONSES, 1.0)
    assert seen == [4, needed - 4, needed - 4], "the prefix runs once while the weights stay"


@pytest.mark.parametrize("side", ["left", "right"])
def test_layout_of_a_packing(side: str) -> None:
    batch = build_batch([[5, 6], [5, 7, 8, 9], [5, 4, 3]], [[], [], []], side=side)
    packing = Packing.of(batch, torch.tensor([0, 2]), batch.answer_BR[[0, 2], 0])
    assert packing.wanted_K.tolist() == [0, 5]
    assert packing.ids_M.tolist() == [6, 7, 8, 9, 4, 3]
    assert packing.position_M.tolist() == [1, 1, 2, 3, 1, 2]
    assert packing.grid_BT.tolist() == [[0, 0, 0], [1, 2, 3], [4, 5, 5]]
    assert packing.real_M.tolist() == [0, 3, 4, 5, 6, 7]
    ids_BT = packing.ids_M[packing.grid_BT]
    assert ids_BT[packing.is_real_BT].tolist() == batch.ids_BT[batch.mask_BT].tolist() == packing.ids_M.tolist()
    assert packing.mask_BTS[1].tolist() == [[True, True, False, False], [True, True, True, False], [True] * 4]


def test_prompts_beyond_the_window_are_padded(tiny_qwen2: Path, tmp_path: Path) -> None:
    settings = {"use_sliding_window": True, "max_window_layers": 0, "sliding_window": 8, "layer_types": None}
    policy = trained_looking(changed(tiny_qwen2, tmp_path / "window", **settings))
    short, long = [[5, 6, 7], [5, 8]], [list(range(5, 15)), [5, 6, 40, 41, 42, 43, 44, 45, 46, 47, 48]]
    for prompts in (short, long):
        with torch.no_grad():
            hidden = policy.prefill(prompts).hidden_BD
            for row, prompt in enumerate(prompts):
                expected = policy.lm(input_ids=torch.tensor([prompt])).logits[0, -1]
                torch.testing.assert_close(policy.logits(hidden[row]), expected, atol=5e-5, rtol=0)


@pytest.mark.parametrize("packs", [True, False])
@pytest.mark.parametrize("expected_answers", [[], [[20, 21, 2]], [[30, 31, 2]]], ids=["fed", "expected", "strayed"])
def test_answers_fed_across_the_window_do_not_depend_on_the_longest_row(
    packs: bool, expected_answers: list, tiny_qwen2: Path, tmp_path: Path
) -> None:
    """A gap between the shared beginning and a short row's rest would count against the window."""
    settings = {"use_sliding_window": True, "max_window_layers": 0, "sliding_window": 10, "layer_types": None}
    policy = trained_looking(changed(tiny_qwen2, tmp_path / "window", **settings))
    policy = policy if packs else padded(policy)
    prompts, fed = [[5, 6, 7, 8], [5, 6, 7, 9, 10, 11, 12]], [20, 21, 22, 23, 24]
    with torch.no_grad():
        state = policy.prefill(prompts, expected=expected_answers)
        for token in fed:
            hidden, state = policy.extend(state, torch.tensor([[token]] * 2))
        for row, prompt in enumerate(prompts):
            expected = policy.lm(input_ids=torch.tensor([[*prompt, *fed]])).logits[0, -1]
            torch.testing.assert_close(policy.logits(hidden[row, -1]), expected, atol=5e-5, rtol=0)


@pytest.mark.parametrize("fed", [[20, 21], [20, 22], [23, 24]])
def test_answers_that_reach_beyond_the_window_do_not_branch_off(tiny_qwen2: Path, tmp_path: Path, fed: list) -> None:
    settings = {"use_sliding_window": True, "max_window_layers": 0, "sliding_window": 8, "layer_types": None}
    policy = trained_looking(changed(tiny_qwen2, tmp_path / "window", **settings))
    tree, _ = branch([[20, 21, 2]])
    assert not policy.can_branch([[5, 6, 7, 9, 10, 11, 12], [5, 8]], [tree])
    prompts = [[5, 6, 7], [5, 8]]
    assert policy.can_branch(prompts, [tree])
    with torch.no_grad():
        state = policy.prefill(prompts, expected=[[20, 21, 2]])
        for token in fed:
            hidden, state = policy.extend(state, torch.tensor([[token]] * 2))
        for row, prompt in enumerate(prompts):
            expected = policy.lm(input_ids=torch.tensor([[*prompt, *fed]])).logits[0, -1]
            torch.testing.assert_close(policy.logits(hidden[row, -1]), expected, atol=5e-5, rtol=0)


def test_attention_dropout_is_not_packed(tiny_llama: Path, tmp_path: Path) -> None:
    policy = trained_looking(changed(tiny_llama, tmp_path / "dropout", attention_dropout=0.1))
    assert not policy.packs
    figures(policy.train())


def test_model_still_answers_by_itself(tiny_llama: Path) -> None:
    """The attention is registered under our name; calls without a packing get transformers' own."""
    policy = trained_looking(tiny_llama)
    assert policy.engine.decoder.config._attn_implementation == ATTENTION
    ids, mask = torch.tensor([[0, 5, 6, 7], [5, 6, 7, 8]]), torch.tensor([[0, 1, 1, 1], [1, 1, 1, 1]])
    ours = policy.lm.generate(ids, attention_mask=mask, do_sample=False, max_new_tokens=4, pad_token_id=0)
    theirs = padded(policy).lm.generate(ids, attention_mask=mask, do_sample=False, max_new_tokens=4, pad_token_id=0)
    assert torch.equal(ours, theirs)


def test_last_layer_runs_only_for_requested_tokens(tiny_llama: Path) -> None:
    policy = trained_looking(tiny_llama)
    seen: list[int] = []
    first, last = (layer.mlp.down_proj for layer in (policy.engine.decoder.layers[0], policy.engine.decoder.layers[-1]))
    for module in (first, last):
        module.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].shape[1]))
    with torch.no_grad():
        hidden = policy.hidden(policy.batch(PROMPTS, RESPONSES))
    tokens = sum(map(len, PROMPTS)) + sum(len(response) - 1 for response in RESPONSES)
    common = len(policy.batch(PROMPTS, RESPONSES).prefix_C)
    assert seen[-2:] == [tokens - common * len(PROMPTS), sum(map(len, RESPONSES))]
    policy.use(replace(policy.abilities, trims_last_layer=False))
    with torch.no_grad():
        torch.testing.assert_close(policy.hidden(policy.batch(PROMPTS, RESPONSES)), hidden, atol=1e-6, rtol=1e-5)
