"""Several answers per prompt from one pass, exact label probabilities, and a reference frozen while training."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from policies import trained_looking

from adjudge.config import load_config
from adjudge.errors import ConfigError
from adjudge.methods.ppo import collect_batch
from adjudge.models.engine import forward
from adjudge.models.policy import Policy
from adjudge.rl.losses import label_objective
from adjudge.rollout.collect import Rollout, sample
from adjudge.rollout.forward import rollout_figures, taught_loss, token_figures
from adjudge.rollout.label_scoring import label_logps, labels_of
from adjudge.rollout.prompted import PromptedTask, PromptRow, prompt_rows, taught_row
from adjudge.rollout.sampler import Responses, Sampling, respond
from adjudge.rollout.several import respond_several, several_figures
from adjudge.tasks import load_task
from adjudge.types import Example

TEXTS = ("a warm, funny film", "dull", "a film that is slow and long and dull", "charming")
FAMILIES = ["tiny_llama", "tiny_qwen2", "tiny_mpt"]


@pytest.fixture(params=FAMILIES)
def policy(request: pytest.FixtureRequest) -> Policy:
    return trained_looking(request.getfixturevalue(request.param))


def task_of(policy: Policy) -> PromptedTask:
    return PromptedTask(policy, load_task("glue/sst2"), load_config())


def rows_of(task: PromptedTask) -> list[PromptRow]:
    words = task.spec.words
    examples = [Example(str(i), {"sentence": text}, words[i % 2]) for i, text in enumerate(TEXTS)]
    return prompt_rows(task, examples)


def rollout_of(policy: Policy, samples: int = 5, *, grad: bool = False) -> Rollout:
    task = task_of(policy)
    sampling = Sampling(torch.Generator().manual_seed(3))
    return sample(task, rows_of(task), sampling, samples=samples, score_labels=True, grad=grad)


def gradient(policy: Policy, loss: torch.Tensor) -> torch.Tensor:
    parts = torch.autograd.grad(loss, policy.adapter_parameters(), allow_unused=True)
    return torch.cat([torch.zeros(1) if part is None else part.flatten() for part in parts])


def test_answers_of_a_prompt_are_adjacent_and_differ(policy: Policy) -> None:
    rollout = rollout_of(policy)
    assert len(rollout.responses) == len(rollout.golds) == len(rollout.judgements) == 20
    assert len(set(rollout.prompts[:5])) == 1
    assert rollout.golds[:6] == [*["Negative"] * 5, "Positive"] or rollout.golds[:6] == [*["Positive"] * 5, "Negative"]
    assert rollout.mask_BR.sum(1).tolist() == [len(ids) for ids in rollout.responses]
    assert len({tuple(ids) for ids in rollout.responses[:5]}) > 1, "the answers are drawn one by one"


@pytest.mark.parametrize("grad", [False, True])
def test_figures_equal_those_of_answers_run_one_by_one(policy: Policy, grad: bool) -> None:
    rollout = rollout_of(policy, grad=grad)
    alone = token_figures(policy, rollout.prompts, rollout.responses, 1.0)
    together = rollout_figures(policy, rollout, range(20), 1.0)
    sampled = (rollout.logp_BR, rollout.value_BR)
    for one, other in zip(alone, together, strict=True):
        torch.testing.assert_close(one, other, atol=2e-4, rtol=0)
    for one, other in zip(alone, sampled, strict=False):
        torch.testing.assert_close(one.detach(), other, atol=2e-4, rtol=0)
    weight_BR = torch.linspace(-1, 1, alone.logp_BR.numel()).reshape(alone.logp_BR.shape)
    expected = gradient(policy, (alone.logp_BR * weight_BR).sum())
    found = [gradient(policy, (together.logp_BR * weight_BR).sum())]
    if rollout.sampled_with_grad is not None:
        found.append(gradient(policy, (rollout.sampled_with_grad.logp_BR * weight_BR).sum()))
    for other in found:
        assert (other - expected).norm() < 1e-3 * expected.norm()


def test_some_rows_of_a_rollout_have_their_own_figures(policy: Policy) -> None:
    rollout = rollout_of(policy)
    rows = [3, 17, 9]
    some, every = rollout_figures(policy, rollout, rows, 1.0), rollout_figures(policy, rollout, range(20), 1.0)
    width = some.logp_BR.shape[1]
    torch.testing.assert_close(some.logp_BR, every.logp_BR[rows, :width], atol=2e-4, rtol=0)


def test_label_probabilities_are_those_of_the_written_labels(policy: Policy) -> None:
    task, rollout = task_of(policy), rollout_of(policy)
    prompts = [row.ids for row in rows_of(task)]
    for label, word in enumerate(task.spec.words):
        ids = [task.end.taught_ids(word, task.spec)] * len(prompts)
        expected_P = token_figures(policy, prompts, ids, 1.0).logp_BR.sum(1)
        torch.testing.assert_close(rollout.label_logp_PL[:, label], expected_P.detach(), atol=2e-4, rtol=0)


@pytest.mark.parametrize("score_labels", [False, True])
def test_one_answer_per_prompt_is_drawn_as_ever(policy: Policy, score_labels: bool) -> None:
    """The same answers as without labels that run with the prompts."""
    task = task_of(policy)
    rows = rows_of(task)
    drawn, expected = (Sampling(torch.Generator().manual_seed(5)) for _ in range(2))
    rollout = sample(task, rows, drawn, score_labels=score_labels)
    alone = respond(policy, policy.prefill([row.ids for row in rows]), task.end, expected)
    assert rollout.responses == alone.ids
    assert (rollout.label_logp_PL is not None) == score_labels
    for name in ("logp_BR", "value_BR", "mask_BR"):
        torch.testing.assert_close(getattr(rollout, name), getattr(alone, name), atol=1e-5, rtol=0)


@pytest.mark.parametrize("family", ["tiny_llama", "tiny_qwen2"])
def test_answers_that_branch_off_their_prompt_have_the_figures_of_those_fed_after_it(
    family: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    policy = trained_looking(request.getfixturevalue(family))
    prompts = [[5, 6, 7, 8, 9], [5, 6, 7, 11], [5, 6, 7, 12, 13, 14]]
    pairs = [
        (prompt, answer) for prompt in prompts for answer in ([30, 31, 32, 2], [30, 31, 2], [33, 2], [34], [33, 2])
    ]
    given, answers = [prompt for prompt, _ in pairs[2:]], [answer for _, answer in pairs[2:]]

    def run() -> list[torch.Tensor]:
        logp, value, spread = several_figures(policy, given, answers, 1.3)
        weight = torch.linspace(-1, 1, logp.numel()).view(logp.shape)
        return [logp, value, spread, gradient(policy, (logp * weight).sum())]

    seen: list[int] = []
    branched = policy.engine.branched
    monkeypatch.setattr(policy.engine, "branched", lambda *given: seen.append(1) or branched(*given))
    together = run()
    assert seen == [1]
    monkeypatch.setattr(forward, "MOST_NODES", 0)
    for one, other in zip(together, run(), strict=True):
        torch.testing.assert_close(one, other, atol=2e-4 * max(1.0, float(other.detach().abs().max())), rtol=0)
    assert seen == [1]


@pytest.mark.parametrize("expected", ["all", "some", "none of most"])
@pytest.mark.parametrize("samples", [1, 5])
def test_answers_drawn_are_the_same_whatever_was_expected(policy: Policy, samples: int, expected: str) -> None:
    task = task_of(policy)
    prompts = [row.ids for row in rows_of(task)]

    def draw(answers: list[list[int]]) -> Responses:
        sampling = Sampling(torch.Generator().manual_seed(5))
        state = policy.prefill(prompts, grad=True, expected=answers)
        if samples == 1:
            return respond(policy, state, task.end, sampling)
        return respond_several(policy, state, task.end, sampling, samples)

    plain = draw([])
    every = {"all": plain.ids, "some": plain.ids[samples:], "none of most": [plain.ids[0]]}[expected]
    found = draw(every)
    assert found.ids == plain.ids
    for name in ("logp_BR", "value_BR", "entropy_BR", "mask_BR"):
        torch.testing.assert_close(getattr(found, name), getattr(plain, name), atol=2e-4, rtol=0)
    one, other = (gradient(policy, drawn.logp_BR.sum()) for drawn in (found, plain))
    assert (one - other).norm() < 1e-3 * other.norm()


def test_a_state_with_expected_answers_can_be_continued_twice(policy: Policy) -> None:
    task = task_of(policy)
    prompts = [row.ids for row in rows_of(task)]
    answers = [[30, 31, 2], [30, 32, 2], [33, 2]]
    state = policy.prefill(prompts, expected=answers)
    others = [[30, 31, 34, 2], [35, 36, 2], [30, 2]]
    for asked in (answers, others, answers):
        found, plain = (label_logps(policy, each, asked) for each in (state, policy.prefill(prompts)))
        torch.testing.assert_close(found, plain, atol=2e-4, rtol=0)


@pytest.mark.parametrize("temperature", [1.0, 1.5])
def test_the_exact_gradient_is_that_of_the_models_own_probabilities(policy: Policy, temperature: float) -> None:
    """Σ p r + u r_unreadable, with each p from a pass of the plain network over one prompt and one label."""
    task = task_of(policy)
    rows = rows_of(task)
    reward = {True: 1.0, False: -1.0}
    logp_BL = labels_of(task, rows, temperature, grad=True)
    reward_BL = torch.tensor([[reward[word == row.example.gold] for word in task.spec.words] for row in rows])
    objective = label_objective(logp_BL, reward_BL, -3.0, "p").mean()
    total = torch.zeros(())
    for row in rows:
        other = torch.ones(())
        for word in task.spec.words:
            ids = task.end.taught_ids(word, task.spec)
            logits = policy.lm(input_ids=torch.tensor([[*row.ids, *ids]])).logits[0, len(row.ids) - 1 : -1]
            logp = (logits / temperature).log_softmax(-1)
            probability = logp[torch.arange(len(ids)), torch.tensor(ids)].sum().exp()
            total, other = total + probability * reward[word == row.example.gold], other - probability
        total = total - 3 * other
    assert objective.item() == pytest.approx(total.item() / len(rows), abs=1e-5)
    exact, expected = gradient(policy, objective), gradient(policy, total / len(rows))
    assert expected.norm() > 0
    assert (exact - expected).norm() < 2e-3 * expected.norm()


def test_the_log_transform_has_the_gradient_of_sft(tiny_llama: Path) -> None:
    policy = trained_looking(tiny_llama)
    task = task_of(policy)
    rows = rows_of(task)
    label_ids = [task.end.taught_ids(word, task.spec) for word in task.spec.words]
    logp_BL = label_logps(policy, policy.prefill([row.ids for row in rows], grad=True), label_ids)
    reward_BL = torch.tensor([[1.0 if word == row.example.gold else -1.0 for word in task.spec.words] for row in rows])
    exact = gradient(policy, -label_objective(logp_BL, reward_BL, -3.0, "log").sum())
    taught = [taught_row(task, row) for row in rows]
    tokens = sum(len(row.taught) for row in taught)
    sft = tokens * gradient(policy, taught_loss(policy, taught, tokens)[0])
    assert (exact - sft).norm() < 1e-3 * sft.norm()


def test_exact_values_need_no_critic(tiny_llama: Path) -> None:
    policy = trained_looking(tiny_llama)
    task, config = task_of(policy), load_config().ppo
    batch = collect_batch(task, rows_of(task), config, 0.0, Sampling(torch.Generator().manual_seed(0)))
    assert batch.critic is None
    # Almost all answers of a random model are unreadable, and so is the expected reward: nothing to learn.
    assert batch.score_B.tolist() == [-3.0] * 16
    torch.testing.assert_close(batch.advantage_BR, torch.zeros_like(batch.advantage_BR), atol=1e-3, rtol=0)


def test_the_frozen_reference_stays_and_can_be_carried(policy: Policy) -> None:
    prompts = [[5, 6, 7, 8], [5, 9]]

    def hidden() -> torch.Tensor:
        with torch.no_grad():
            return policy.prefill(prompts).hidden_BD

    def reference() -> torch.Tensor:
        with policy.reference():
            return hidden()

    assert policy.reference_state() == {}
    assert not torch.allclose(hidden(), reference())
    policy.freeze_reference()
    frozen, trained = reference(), len(policy.adapter_parameters())
    torch.testing.assert_close(hidden(), frozen)
    with torch.no_grad():
        for parameter in policy.adapter_parameters():
            parameter.add_(0.1)
    policy.forget_prefix()
    assert not torch.allclose(hidden(), frozen)
    assert torch.equal(reference(), frozen)
    state = {name: weight.clone() for name, weight in policy.reference_state().items()}
    policy.freeze_reference()
    assert not torch.allclose(reference(), frozen)
    policy.load_reference_state(state)
    torch.testing.assert_close(reference(), frozen)
    assert len(policy.adapter_parameters()) == trained, "the reference is never trained"


@pytest.mark.parametrize("setting", ["rloo.samples", "grpo.samples"])
def test_a_group_has_at_least_two_answers(setting: str) -> None:
    with pytest.raises(ConfigError, match=setting):
        load_config(values={setting: 1})
