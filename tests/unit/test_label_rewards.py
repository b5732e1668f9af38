"""A reward model's values of labels, its pairs, and its answers as a judge."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from policies import trained_looking

from adjudge.config import RewardModelConfig, load_config
from adjudge.errors import DataError
from adjudge.evaluation.reward_judge import RewardJudge
from adjudge.models.policy import Policy
from adjudge.rollout.label_rewards import divergent_tokens, label_rewards, label_values
from adjudge.rollout.prompted import PromptedTask, PromptRow, prompt_rows
from adjudge.tasks import load_task
from adjudge.training.reward_pairs import learn_reward_pairs, pair_figures
from adjudge.types import Example

TEXTS = ("a warm, funny film", "dull", "a film that is slow and long and dull", "charming")


@pytest.fixture(params=["tiny_llama", "tiny_qwen2", "tiny_mpt"])
def policy(request: pytest.FixtureRequest) -> Policy:
    return trained_looking(request.getfixturevalue(request.param))


@pytest.fixture
def llama(tiny_llama: Path) -> Policy:
    return trained_looking(tiny_llama)


def task_of(policy: Policy, name: str = "glue/mnli") -> PromptedTask:
    return PromptedTask(policy, load_task(name), load_config())


def rows_of(task: PromptedTask) -> list[PromptRow]:
    words, fields = task.spec.words, task.spec.fields
    examples = [
        Example(f"t:{index}", dict.fromkeys(fields, text), words[index % len(words)])
        for index, text in enumerate(TEXTS)
    ]
    return prompt_rows(task, examples)


def values_alone(policy: Policy, prompt: Sequence[int], answer: Sequence[int]) -> torch.Tensor:
    """Return the value after each token of an answer, from a pass of transformers over the whole row."""
    ids = torch.tensor([[*prompt, *answer]])
    hidden_1TD = policy.lm(input_ids=ids, output_hidden_states=True).hidden_states[-1]
    return policy.value(hidden_1TD[0, len(prompt) :])


@torch.no_grad()
def test_the_values_are_those_after_each_token_of_a_label(policy: Policy) -> None:
    task = task_of(policy)
    prompts = [row.ids for row in rows_of(task)]
    value_BLT = label_values(task, prompts)
    for label, word in enumerate(task.spec.words):
        ids = task.end.taught_ids(word, task.spec)
        for row, prompt in enumerate(prompts):
            alone_T = values_alone(policy, prompt, ids)
            torch.testing.assert_close(value_BLT[row, label, : len(ids)], alone_T, atol=2e-4, rtol=1e-3)
            assert (value_BLT[row, label, len(ids) :] == value_BLT[row, label, len(ids) - 1]).all()
    torch.testing.assert_close(label_rewards(task, prompts), value_BLT[..., -1])


def test_pairs_differ_from_their_first_unlike_token_to_the_longer_end(llama: Policy) -> None:
    task = task_of(llama)
    answers = [task.end.taught_ids(word, task.spec) for word in task.spec.words]
    mask_PT = divergent_tokens(task, torch.tensor([0, 1]), torch.tensor([1, 1]))
    longest = max(map(len, answers[:2]))
    begin = next(at for at, (one, other) in enumerate(zip(answers[0], answers[1], strict=False)) if one != other)
    assert mask_PT[0].nonzero().flatten().tolist() == list(range(begin, longest))
    equal = mask_PT[1].nonzero().flatten().tolist()
    assert equal == []  # a label and itself


def test_the_judge_takes_the_highest_reward(llama: Policy) -> None:
    task = task_of(llama)
    rows = rows_of(task)
    reward_BL = label_rewards(task, [row.ids for row in rows])
    predictions = RewardJudge(task).judge([row.example for row in rows], probabilities=True)
    for prediction, reward_L in zip(predictions, reward_BL, strict=True):
        assert prediction.value == task.spec.words[int(reward_L.argmax())]
        shares = [prediction.probabilities[word] for word in task.spec.words]
        torch.testing.assert_close(torch.tensor(shares), reward_L.softmax(0), atol=1e-4, rtol=1e-3)


def test_the_size_of_a_pass_changes_nothing(able: Path) -> None:
    figures = []
    for size in (None, 1):
        policy = trained_looking(able)
        task = task_of(policy)
        optimizer = torch.optim.SGD([*policy.adapter_parameters(), *policy.value_head.parameters()], lr=0.1)
        config = RewardModelConfig(micro_batch_size=size)
        figures.append(
            learn_reward_pairs(task, rows_of(task), {rows_of(task)[0].example.gold: 2.0}, optimizer, config)[0]
        )
    assert figures[0] == pytest.approx(figures[1], rel=1e-3)


def test_equal_rewards_are_half_a_preference() -> None:
    reward_BL = torch.tensor([[1.0, 0.0, 1.0], [0.0, 0.0, 2.0]])
    assert pair_figures(reward_BL, [0, 1]) == {"preferred": pytest.approx(0.5), "margin": pytest.approx(-0.25)}


def test_a_row_without_a_right_answer_is_named(llama: Policy) -> None:
    task = task_of(llama)
    (row, *_) = rows_of(task)
    nameless = row._replace(example=Example("t:9", row.example.fields, None))
    with pytest.raises(DataError, match="t:9: has no gold answer"):
        learn_reward_pairs(
            task, [nameless], {}, torch.optim.SGD(llama.adapter_parameters(), lr=0.1), RewardModelConfig()
        )
