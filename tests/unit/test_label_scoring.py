"""Exact label probabilities against sums over plain forwards."""

from __future__ import annotations

import pytest
import torch

from adjudge.config import load_config
from adjudge.models.policy import Policy, load_policy
from adjudge.rollout.answer_end import AnswerEnd
from adjudge.rollout.label_scoring import label_logps
from adjudge.rollout.sampler import Sampling, respond

LABELS = [[7], [300, 12], [7, 9, 11, 2], [300, 13]]
"""One token, several tokens, one that begins another."""


@pytest.fixture(params=["tiny_llama", "tiny_qwen2", "tiny_mpt"])
def policy(request: pytest.FixtureRequest) -> Policy:
    folder = request.getfixturevalue(request.param)
    return load_policy(
        load_config(values={"model": str(folder), "runtime.dtype": "float32", "runtime.device": "cpu"})
    ).eval()


def prompts_of(policy: Policy) -> list[list[int]]:
    texts = ("a warm, funny film", "dull", "the plot is slow but charming")
    return [policy.tokenizer(f"Is the film Positive or Negative? {text}").input_ids for text in texts]


@torch.no_grad()
def brute_force(policy: Policy, prompt: list[int], label: list[int]) -> float:
    logp = policy.lm(input_ids=torch.tensor([[*prompt, *label]])).logits[0].float().log_softmax(-1)
    return sum(logp[len(prompt) - 1 + place, token].item() for place, token in enumerate(label))


def test_equals_the_sum_over_a_plain_forward(policy: Policy) -> None:
    prompts = prompts_of(policy)
    found = label_logps(policy, policy.prefill(prompts), LABELS)
    expected = torch.tensor([[brute_force(policy, prompt, label) for label in LABELS] for prompt in prompts])
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, expected, atol=5e-5, rtol=0)
    assert not found.requires_grad


def test_the_state_is_left_as_it_was(policy: Policy) -> None:
    prompts = prompts_of(policy)
    end = AnswerEnd(policy.tokenizer, "line", tuple(policy.end_ids), 8, 8)
    untouched = respond(policy, policy.prefill(prompts), end, Sampling())
    state = policy.prefill(prompts)
    hidden, mask = state.hidden_BD.clone(), state.mask_BT.clone()
    first = label_logps(policy, state, LABELS)
    assert torch.equal(first, label_logps(policy, state, LABELS))
    swapped = label_logps(policy, state, [LABELS[1], LABELS[0]])
    torch.testing.assert_close(first[:, [1, 0]], swapped, atol=1e-5, rtol=0)
    assert torch.equal(state.hidden_BD, hidden)
    assert torch.equal(state.mask_BT, mask)
    assert respond(policy, state, end, Sampling()).ids == untouched.ids


def test_all_one_token_labels_of_the_vocabulary_sum_to_one(policy: Policy) -> None:
    every = [[token] for token in range(policy.lm.config.vocab_size)]
    found = label_logps(policy, policy.prefill(prompts_of(policy)), every)
    torch.testing.assert_close(found.exp().sum(1), torch.ones(3), atol=1e-5, rtol=0)
