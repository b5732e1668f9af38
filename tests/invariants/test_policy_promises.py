"""Promises 3 and 4: the first ratio is 1, the first KL is 0, and lr 0 changes nothing.

Padding, batch size, micro-batches and a shared prefix change nothing either.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from policies import padded_with, trained_looking
from running import PLAIN_PPO

from adjudge.config import PpoConfig, load_config
from adjudge.evaluation.predict import PromptedJudge
from adjudge.methods.ppo import PpoBatch, collect_batch, right_answers
from adjudge.models.engine.batch import build_batch
from adjudge.models.policy import Policy, load_policy
from adjudge.rollout import collect
from adjudge.rollout.forward import token_figures
from adjudge.rollout.prompted import PromptedTask, PromptRow, prompt_rows, taught_row
from adjudge.rollout.sampler import Sampling, respond
from adjudge.tasks import load_task
from adjudge.training.optim import build_optimizer
from adjudge.training.updates import RightAnswers, UpdateSize, clipped_updates
from adjudge.types import Example

TOLERANCE = 5e-5
"""Largest difference in float32 that counts as rounding, for log-probabilities of a 2-layer model.

Processors differ: the libraries of one with AMX leave 3e-5.
"""

FAMILIES = ("tiny_llama", "tiny_qwen2", "tiny_mpt")
TEXTS = (
    "a warm, funny film",
    "dull",
    "the plot is slow but the scene at the last is a charming surprise",
    "nobody should pay for this",
)


@pytest.fixture(params=FAMILIES)
def policy(request: pytest.FixtureRequest) -> Policy:
    return trained_looking(request.getfixturevalue(request.param))


def rows(policy: Policy) -> tuple[list[list[int]], list[list[int]]]:
    instruction = policy.tokenizer("Is the sentiment of the movie review Positive or Negative?").input_ids
    prompts = [[*instruction, *policy.tokenizer(text).input_ids] for text in TEXTS]
    responses = [
        [7, 8, 9],
        [2],
        [300, 2],
        [11, 12, 13, 14],
    ]  # pad = end of turn = 2 in these tokenizers, and a real token here
    return prompts, responses


def figures(policy: Policy, *, share: bool, side: str = "right", pad_id: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    prompts, responses = rows(policy)
    batch = padded_with(build_batch(prompts, responses, share_prefix=share, side=side), pad_id)
    hidden = policy.hidden(batch)
    logp = policy.logits(hidden).log_softmax(-1).gather(1, batch.response_BR[batch.response_mask_BR][:, None])[:, 0]
    return logp, policy.value(hidden)


def gradients(policy: Policy, logp: torch.Tensor, value: torch.Tensor) -> list[torch.Tensor]:
    policy.zero_grad()
    (logp.sum() + value.square().sum()).backward()
    return [parameter.grad.clone() for parameter in [*policy.adapter_parameters(), *policy.value_head.parameters()]]


@pytest.mark.parametrize(("side", "pad_id"), [("left", 0), ("right", 2), ("left", 2)])
def test_padding_changes_nothing(policy: Policy, side: str, pad_id: int) -> None:
    plain = figures(policy, share=False)
    padded = figures(policy, share=False, side=side, pad_id=pad_id)
    for one, other in zip(plain, padded, strict=True):
        torch.testing.assert_close(one, other, atol=TOLERANCE, rtol=0)


def test_batch_size_changes_nothing(policy: Policy) -> None:
    prompts, responses = rows(policy)
    together = token_figures(policy, prompts, responses, 1.0)
    for row in range(len(prompts)):
        alone = token_figures(policy, prompts[row : row + 1], responses[row : row + 1], 1.0)
        for one, other in zip(together, alone, strict=True):
            torch.testing.assert_close(one[row, : len(responses[row])], other[0], atol=TOLERANCE, rtol=0)


def test_shared_prefix_gives_the_same_figures_and_gradients(policy: Policy) -> None:
    prompts, _ = rows(policy)
    assert len(build_batch(prompts, [[]] * 4, side="left").prefix_C) > 5, "the rows share a prefix"
    shared, plain = figures(policy, share=True), figures(policy, share=False)
    for one, other in zip(shared, plain, strict=True):
        torch.testing.assert_close(one, other, atol=TOLERANCE, rtol=0)
    ones, others = gradients(policy, *figures(policy, share=True)), gradients(policy, *plain)
    largest = max(float(other.abs().max()) for other in others)
    for one, other in zip(ones, others, strict=True):
        torch.testing.assert_close(one, other, atol=1e-4 * largest, rtol=1e-4)
        assert other.abs().max() > 0


def test_sampled_logp_and_values_equal_those_of_the_update(policy: Policy) -> None:
    prompts, _ = rows(policy)
    end = ending(policy)
    sampled = respond(policy, policy.prefill(prompts), end, Sampling(torch.Generator().manual_seed(0)))
    logp_BR, value_BR, _ = token_figures(policy, prompts, sampled.ids, 1.0)
    torch.testing.assert_close(sampled.logp_BR, logp_BR.detach(), atol=TOLERANCE, rtol=0)
    torch.testing.assert_close(sampled.value_BR, value_BR.detach(), atol=TOLERANCE, rtol=0)
    assert sampled.mask_BR.sum(1).tolist() == [len(ids) for ids in sampled.ids]


def ending(policy: Policy):
    return judge_for(policy).task.end


def judge_for(policy: Policy, **values) -> PromptedJudge:
    return PromptedJudge(PromptedTask(policy, load_task("glue/sst2"), load_config(values={**PLAIN_PPO, **values})))


def training_rows(judge: PromptedJudge, count: int = 8) -> list[PromptRow]:
    words = judge.task.spec.words
    examples = [Example(str(i), {"sentence": TEXTS[i % 4]}, words[i % 2]) for i in range(count)]
    return prompt_rows(judge.task, examples)


def ppo_batch(judge: PromptedJudge, config: PpoConfig, beta: float = 0.1, **options: Any) -> PpoBatch:
    sampling = Sampling.of(config, torch.Generator().manual_seed(0))
    return collect_batch(judge.task, training_rows(judge), config, beta, sampling, **options)


def updated(
    policy: Policy,
    batch: PpoBatch,
    config: PpoConfig,
    optimizer: torch.optim.Optimizer,
    beside: RightAnswers | None = None,
) -> dict[str, Any]:
    order = torch.Generator().manual_seed(0)
    rollout, advantage_BR = batch.rollout, batch.advantage_BR
    return clipped_updates(policy, optimizer, rollout, advantage_BR, config, order, batch.critic, batch.penalty, beside)


@pytest.mark.parametrize(
    ("dtype", "tolerance", "analysis"),
    [
        *(("float32", TOLERANCE, analysis) for analysis in (False, True, "before")),
        ("bfloat16", 0.05, "before"),
    ],
)
@pytest.mark.parametrize("family", FAMILIES)
def test_first_ratio_is_one_and_first_kl_is_zero(
    family: str, analysis: bool | str, dtype: str, tolerance: float, request: pytest.FixtureRequest
) -> None:
    values = {"prompt.analysis": analysis, "answer.analysis_tokens": 5, "runtime.dtype": dtype}
    config = load_config(values={"model": str(request.getfixturevalue(family)), **values})
    policy = load_policy(config, adapter=True).eval()
    judge = PromptedJudge(PromptedTask(policy, load_task("glue/sst2"), config))
    batch = ppo_batch(judge, config.ppo)
    rollout = batch.rollout
    assert batch.kl_B.abs().max() < tolerance * rollout.mask_BR.shape[1]
    assert (rollout.template_spans is not None) == (analysis == "before")
    logp_BR, _, _ = token_figures(
        policy, rollout.prompts, rollout.responses, config.ppo.temperature, rollout.template_spans
    )
    ratio_BR = (logp_BR.detach() - rollout.logp_BR).exp()
    torch.testing.assert_close(ratio_BR, torch.ones_like(ratio_BR), atol=tolerance, rtol=0)


def stepped(
    folder: Path, lr: float, *, micro: int | None = None, plain: bool = False, **more: Any
) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """Weights before and after one PPO step; `more` are settings."""
    values = {
        "ppo.optimizer.lr": lr,
        "ppo.value_lr": lr or None,
        "ppo.micro_batch_size": micro,
        "ppo.mini_batch_size": 8,
        **more,
    }
    if lr == 0:
        values["ppo.optimizer.weight_decay"] = 0.0
    policy = trained_looking(folder)
    judge = judge_for(policy, **values)
    config = judge.task.config.ppo
    groups = [{"params": policy.adapter_parameters()}, {"params": list(policy.value_head.parameters()), "lr": lr}]
    optimizer = torch.optim.SGD(groups, lr=lr) if plain else build_optimizer(groups, config.optimizer, 1)[0]
    before = [parameter.detach().clone() for parameter in policy.parameters()]
    rows, batch = training_rows(judge), ppo_batch(judge, config)
    beside = right_answers(judge.task, rows, batch.rollout, config.sft_weight or 0.0, config)
    updated(policy, batch, config, optimizer, beside)
    return before, [parameter.detach().clone() for parameter in policy.parameters()]


def test_lr_zero_changes_no_weight(tiny_llama: Path) -> None:
    for before, after in zip(*stepped(tiny_llama, 0.0), strict=True):
        assert torch.equal(before, after)


def test_step_changes_adapters_and_value_head_only(tiny_llama: Path) -> None:
    before, after = stepped(tiny_llama, 1e-3)
    names = [name for name, _ in trained_looking(tiny_llama).named_parameters()]
    changed = {name for name, one, other in zip(names, before, after, strict=True) if not torch.equal(one, other)}
    assert changed
    assert all("lora_" in name or name.startswith("value_head") for name in changed)


@pytest.mark.parametrize(("micro", "analysis"), [(1, False), (8, False), (3, "before")])
def test_micro_batches_accumulate_to_the_same_step(tiny_llama: Path, micro: int, analysis: bool | str) -> None:
    # Plain SGD moves each weight by its gradient, where Adam would enlarge the rounding of tiny ones.
    settings = {"prompt.analysis": analysis, "answer.analysis_tokens": 5}
    before, whole = stepped(tiny_llama, 1e-2, plain=True, **settings)
    _, parts = stepped(tiny_llama, 1e-2, micro=micro, plain=True, **settings)
    assert any(not torch.equal(one, other) for one, other in zip(before, whole, strict=True))
    for one, other in zip(whole, parts, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=0)


ONE_UPDATE = {"ppo.update_epochs": 1, "ppo.optimizer.max_grad_norm": 1e9}


def test_right_answers_beside_the_sampled_ones_add_their_own_gradient(tiny_llama: Path) -> None:
    lr, weight = 1e-2, 3.0
    _, without = stepped(tiny_llama, lr, plain=True, **ONE_UPDATE)
    _, both = stepped(tiny_llama, lr, plain=True, **ONE_UPDATE, **{"ppo.sft_weight": weight, "ppo.sft_rows": "all"})
    policy = trained_looking(tiny_llama)
    judge = judge_for(policy)
    rows = [taught_row(judge.task, row) for row in training_rows(judge)]
    logp_BR = token_figures(policy, [row.given for row in rows], [row.taught for row in rows], 1.0).logp_BR
    length_B = torch.tensor([len(row.taught) for row in rows])
    (-(logp_BR.sum(1) / length_B).mean()).backward()
    for one, other, parameter in zip(without, both, policy.parameters(), strict=True):
        step = -lr * weight * (parameter.grad if parameter.grad is not None else torch.zeros_like(parameter))
        torch.testing.assert_close(other - one, step, atol=2e-6, rtol=1e-3)


def test_right_answers_are_taught_where_no_sample_is_right(tiny_llama: Path) -> None:
    policy = trained_looking(tiny_llama)
    judge = judge_for(policy, **{"ppo.samples": 2})
    config, rows = judge.task.config.ppo, training_rows(judge)
    rollout = ppo_batch(judge, config).rollout
    assert rollout.missed == list(range(8)), "the model of the tests writes no label"
    judgements = list(rollout.judgements)
    for answer in (0, 1, 7):  # both samples of row 0, one of row 3
        judgements[answer] = replace(judgements[answer], value=rollout.golds[answer])
    judgements[4] = replace(judgements[4], value=rollout.golds[2])  # another row's answer is not right
    seen = replace(rollout, judgements=judgements)
    missed = right_answers(judge.task, rows, seen, 2.0, config)
    assert missed is not None and list(missed.rows) == [1, 2, 4, 5, 6, 7]
    every = right_answers(judge.task, rows, seen, 2.0, config.model_copy(update={"sft_rows": "all"}))
    assert every is not None and list(every.rows) == list(range(8))
    assert right_answers(judge.task, rows, seen, 0.0, config) is None
    size = UpdateSize(tokens=16, prompts=8)
    loss, figures = missed.loss(policy, range(8), 1.0, size)
    alone = [every.loss(policy, [row], 1.0, size)[0] for row in missed.rows]
    torch.testing.assert_close(loss, sum(alone), atol=TOLERANCE, rtol=0)
    torch.testing.assert_close(2.0 * figures["sft_loss"], loss.detach())
    assert missed.loss(policy, [0, 3], 1.0, size) == (0.0, {"sft_loss": 0.0})


@pytest.mark.parametrize("micro", [1, 3])
def test_right_answers_weigh_the_same_in_every_micro_batch(tiny_llama: Path, micro: int) -> None:
    settings = {**ONE_UPDATE, "ppo.sft_weight": 2.0, "ppo.sft_rows": "all"}
    _, whole = stepped(tiny_llama, 1e-2, plain=True, **settings)
    _, parts = stepped(tiny_llama, 1e-2, plain=True, micro=micro, **settings)
    for one, other in zip(whole, parts, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=0)


def test_a_loss_by_answers_is_the_same_in_mini_batches(tiny_llama: Path) -> None:
    """With weights that add up over the whole rollout, a mini-batch of short answers must not weigh more."""
    losses = []
    for size in (8, 2):
        policy = trained_looking(tiny_llama)
        judge = judge_for(policy, **{"ppo.mini_batch_size": size, "ppo.update_epochs": 1, "answer.min_tokens": 1})
        config = judge.task.config.ppo
        rollout = ppo_batch(judge, config).rollout
        assert len(set(rollout.mask_BR.sum(1).tolist())) > 1, "answers of unequal length"
        advantage_BR = torch.randn(rollout.mask_BR.shape, generator=torch.Generator().manual_seed(1))
        optimizer = torch.optim.SGD(policy.adapter_parameters(), lr=0.0)
        given = (policy, optimizer, rollout, advantage_BR * rollout.mask_BR, config, torch.Generator().manual_seed(0))
        losses.append(clipped_updates(*given, by_answers=True)["policy_loss"])
    assert losses[0] == pytest.approx(losses[1], abs=1e-5)


def test_only_tokens_of_analysis_and_judgement_get_credit(tiny_llama: Path) -> None:
    """The template's tags between them are not actions: no reward, no advantage, no part in the loss."""
    policy = trained_looking(tiny_llama)
    judge = judge_for(
        policy, **{"prompt.analysis": "before", "answer.analysis_tokens": 5, "ppo.gamma": 0.9, "ppo.lam": 0.8}
    )
    config = judge.task.config.ppo.model_copy(update={"whiten_advantages": False})
    batch = ppo_batch(judge, config, beta=0.3)
    rollout = batch.rollout
    assert rollout.template_spans is not None
    with torch.no_grad(), policy.reference():
        every_BR, _, _ = token_figures(policy, rollout.prompts, rollout.responses, 1.0)
    for row, (ids, written) in enumerate(zip(rollout.responses, rollout.template_spans, strict=True)):
        assert policy.tokenizer.decode(ids[written.start : written.stop]).endswith("\n<Judgement>")
        own = [place for place in range(len(ids)) if place not in written]
        assert int(rollout.mask_BR[row].sum()) == len(own)
        logp, value = rollout.logp_BR[row, : len(own)].tolist(), rollout.value_BR[row, : len(own)].tolist()
        reward = [-0.3 * (one - other) for one, other in zip(logp, every_BR[row, own].tolist(), strict=True)]
        reward[-1] += float(batch.score_B[row])
        advantage, following = 0.0, 0.0
        for step in reversed(range(len(own))):
            advantage = reward[step] + 0.9 * following - value[step] + 0.9 * 0.8 * advantage
            following = value[step]
            assert batch.advantage_BR[row, step].item() == pytest.approx(advantage, abs=1e-4)


def test_reference_stays_fixed_while_the_policy_changes(tiny_qwen2: Path) -> None:
    """Qwen2 has biases: trained ones would stay in the reference (defect 2 of the paper's code)."""
    policy = trained_looking(tiny_qwen2)
    prompts, responses = rows(policy)

    def reference() -> torch.Tensor:
        with torch.no_grad(), policy.reference():
            return token_figures(policy, prompts, responses, 1.0)[0]

    before = reference()
    optimizer = torch.optim.AdamW(policy.adapter_parameters(), lr=0.1)
    logp, _, _ = token_figures(policy, prompts, responses, 1.0)
    (-logp.sum()).backward()
    optimizer.step()
    assert torch.equal(before, reference())
    assert not torch.allclose(logp, token_figures(policy, prompts, responses, 1.0)[0])


def learned(policy: Policy, monkeypatch: pytest.MonkeyPatch, grad_tokens: int) -> tuple[list[torch.Tensor], dict]:
    """Weights after two update epochs, the first with the sampled graph or with a forward pass of its own."""
    monkeypatch.setattr(collect, "MAX_GRAD_TOKENS", grad_tokens)
    judge = judge_for(policy, **{"ppo.mini_batch_size": 8, "answer.max_tokens": 4})
    groups = [{"params": policy.adapter_parameters()}, {"params": list(policy.value_head.parameters())}]
    config = judge.task.config.ppo
    batch = ppo_batch(judge, config)
    rollout = batch.rollout
    assert (rollout.sampled_with_grad is not None) == (grad_tokens > 0)
    figures = updated(policy, batch, config, torch.optim.SGD(groups, lr=1e-2))
    assert figures["updates"] > 0
    tensors = (rollout.logp_BR, rollout.value_BR, batch.advantage_BR, batch.critic.return_BR)
    assert not any(tensor.requires_grad for tensor in tensors)
    return [parameter.detach().clone() for parameter in policy.parameters()], figures


@pytest.mark.parametrize("family", FAMILIES)
def test_sampled_graph_gives_the_same_first_update(
    family: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = request.getfixturevalue(family)
    (sampled, figures), (anew, expected) = (learned(trained_looking(folder), monkeypatch, tokens) for tokens in (4, 0))
    for one, other in zip(sampled, anew, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=0)
    for name in ("policy_loss", "value_loss", "entropy", "grad_norm", "explained_variance"):
        assert figures[name] == pytest.approx(expected[name], rel=1e-3, abs=1e-5)


def test_kept_prefix_is_dropped_when_the_weights_change(policy: Policy) -> None:
    """Without gradient the prefix is computed once, until an optimizer or a merge changes the weights."""
    prompts, responses = rows(policy)

    def logp() -> torch.Tensor:
        with torch.no_grad():
            return token_figures(policy, prompts, responses, 1.0)[0]

    def anew() -> torch.Tensor:
        policy.forget_prefix(reference=True)
        return logp()

    first = logp()
    assert torch.equal(first, logp()), "with the kept prefix as without"
    for optimizer in (
        torch.optim.AdamW(policy.adapter_parameters(), lr=0.1, fused=True),
        torch.optim.SGD(policy.lm.parameters(), lr=0.1),
    ):
        token_figures(policy, prompts, responses, 1.0)[0].sum().backward()
        logp()  # between the backward pass and the step
        optimizer.step()
        optimizer.zero_grad()
        kept = logp()
        assert not torch.allclose(kept, first)
        torch.testing.assert_close(kept, anew(), atol=0, rtol=0)
        first = kept
    with policy.reference():
        reference = logp()
    assert not torch.allclose(reference, first)
    assert torch.equal(logp(), first), "the reference has a prefix of its own"
    policy.merge()
    torch.testing.assert_close(logp(), first, atol=TOLERANCE, rtol=0)


def test_other_prefix_of_the_same_prompts_is_cut_or_continued(policy: Policy) -> None:
    prompts, _ = rows(policy)
    for chosen in (prompts, prompts[:1], prompts[1:], [prompt[3:] for prompt in prompts], prompts):
        with torch.no_grad():
            hidden = policy.prefill(chosen).hidden_BD
            for row, prompt in enumerate(chosen):
                expected = policy.lm(input_ids=torch.tensor([prompt])).logits[0, -1]
                torch.testing.assert_close(policy.logits(hidden[row]), expected, atol=5e-5, rtol=0)


@pytest.mark.parametrize("size", [1.0, 2.0, 12.5])
def test_common_scale_divides_the_rewards_and_changes_nothing_else(tiny_llama: Path, size: float) -> None:
    values = {"ppo.reward.right": size, "ppo.reward.wrong": -size}
    judge = judge_for(trained_looking(tiny_llama), **values)
    config = judge.task.config.ppo
    plain, scaled = (ppo_batch(judge, config, common_scale=common_scale) for common_scale in (False, True))
    assert len(scaled.score_B) == len(training_rows(judge))
    assert torch.equal(scaled.score_B, plain.score_B / size)
    assert plain.rollout.responses == scaled.rollout.responses
    assert torch.equal(plain.rollout.logp_BR, scaled.rollout.logp_BR)
    assert torch.equal(plain.advantage_BR, scaled.advantage_BR) == (size == 1.0)


def test_kept_prefix_is_computed_again_to_the_last_bit(tiny_llama: Path) -> None:
    """The tokens that a prefix was computed with show in the last bits of all that continues from it."""
    policy, again = (
        load_policy(load_config(values={"model": str(tiny_llama), "runtime.dtype": "float32"})) for _ in range(2)
    )
    policy.eval()
    again.eval()
    prompts = [[*range(10, 40), 50, 51], [*range(10, 40), 60]]
    with torch.no_grad(), policy.reference():
        first = policy.hidden(policy.batch(prompts, [[7], [8]]))
        shorter = policy.hidden(policy.batch([prompt[:20] for prompt in prompts], [[7], [8, 9]]))
    assert policy.kept_prefixes() == {"reference": list(range(10, 40))}, "the shorter prefix is part of it"
    again.keep_prefixes(policy.kept_prefixes())
    assert again.kept_prefixes() == policy.kept_prefixes()
    with torch.no_grad(), again.reference():
        assert torch.equal(again.hidden(again.batch([prompt[:20] for prompt in prompts], [[7], [8, 9]])), shorter)
        assert torch.equal(again.hidden(again.batch(prompts, [[7], [8]])), first)
    kept, copy = (each.engine.prefixes._kept["reference"].cache for each in (policy, again))
    for one, other in zip(kept.layers, copy.layers, strict=True):
        assert torch.equal(one.keys, other.keys)
        assert torch.equal(one.values, other.values)


def test_forgetting_the_policys_prefix_keeps_the_references(tiny_llama: Path) -> None:
    policy = trained_looking(tiny_llama)
    prompts, _ = rows(policy)
    policy.prefill(prompts)
    with policy.reference():
        policy.prefill(prompts)
    assert set(policy.kept_prefixes()) == {"policy", "reference"}
    policy.forget_prefix()
    assert set(policy.kept_prefixes()) == {"reference"}
    policy.forget_prefix(reference=True)
    assert policy.kept_prefixes() == {}


def test_restored_weights_invalidate_kept_prefixes(tiny_llama: Path) -> None:
    policy = trained_looking(tiny_llama)
    policy.prefill(rows(policy)[0])
    assert policy.kept_prefixes()
    with torch.no_grad():
        policy.adapter_parameters()[0].mul_(2)
    assert policy.kept_prefixes() == {}
