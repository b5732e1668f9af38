"""Sampling: what is drawn, where it stops, and what is known about it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from adjudge.config import load_config
from adjudge.errors import NotFiniteError
from adjudge.models.policy import Policy, load_policy
from adjudge.rollout.answer_end import AnswerEnd
from adjudge.rollout.sampler import Sampling, by_length, respond

FAMILIES = ("tiny_llama", "tiny_qwen2", "tiny_mpt")
TEXTS = (
    "a warm, funny film",
    "dull",
    "the plot is slow but the scene at the last is a charming surprise",
    "nobody should",
)
LENGTH = 12


@pytest.fixture(params=FAMILIES)
def policy(request: pytest.FixtureRequest) -> Policy:
    return policy_of(request.getfixturevalue(request.param))


def policy_of(folder: Path) -> Policy:
    return load_policy(
        load_config(values={"model": str(folder), "runtime.dtype": "float32", "runtime.device": "cpu"})
    ).eval()


def prompts_of(policy: Policy) -> list[list[int]]:
    head = policy.tokenizer("Is the sentiment Positive or Negative? ").input_ids
    return [[*head, *policy.tokenizer(text).input_ids] for text in TEXTS]


def ending(policy, most: int = LENGTH, least: int | None = None, stop: str = "line") -> AnswerEnd:
    return AnswerEnd(policy.tokenizer, stop, tuple(policy.end_ids), most, least or most)


def draw(policy, end: AnswerEnd, seed: int = 0, **settings):
    sampling = Sampling(torch.Generator().manual_seed(seed), **settings)
    return respond(policy, policy.prefill(prompts_of(policy)), end, sampling)


@torch.no_grad()
def alone(policy: Policy, prompt: list[int], response: list[int], temperature: float = 1.0) -> torch.Tensor:
    """Log-probability of each response token, from one plain forward over the whole row."""
    logits = policy.lm(input_ids=torch.tensor([[*prompt, *response]])).logits[0].float() / temperature
    logp = logits.log_softmax(-1)[len(prompt) - 1 : -1]
    return logp.gather(1, torch.tensor(response)[:, None]).squeeze(1)


class Scripted:
    """A stand-in for a policy: row r answers `scripts[r]`, or draws from `logits` without a script."""

    end_ids = (2,)
    grad = keeps_for_nothing = False

    def __init__(self, tokenizer, scripts=None, logits=None, rows: int = 0) -> None:
        self.tokenizer, self.scripts, self.fixed = tokenizer, scripts, logits
        row_B = torch.arange(rows or len(scripts), dtype=torch.float32)
        self.hidden_BD = torch.stack([torch.zeros_like(row_B), row_B], dim=1)  # the step, and the number of the script
        self.fed: list[int] = []

    def logits(self, hidden_BD: torch.Tensor) -> torch.Tensor:
        if self.fixed is not None:
            return self.fixed.expand(len(hidden_BD), -1)
        scripts = [(int(step), self.scripts[int(row)]) for step, row in hidden_BD.tolist()]
        wanted = torch.tensor([script[min(step, len(script) - 1)] for step, script in scripts])
        return 30.0 * torch.nn.functional.one_hot(wanted, 400).float()

    def value(self, hidden_BD: torch.Tensor) -> torch.Tensor:
        return hidden_BD[:, 0] + 0.5

    def extend(self, state, ids_BT: torch.Tensor):
        state.hidden_BD = state.hidden_BD + torch.tensor([1.0, 0.0])
        self.fed.append(len(ids_BT))
        return state.hidden_BD[:, None], state

    def keep(self, rows_B: torch.Tensor):
        self.hidden_BD = self.hidden_BD[rows_B]
        return self


def script(tokenizer, *texts: str) -> list[list[int]]:
    return [tokenizer(text, add_special_tokens=False).input_ids for text in texts]


def test_greedy_equals_transformers_generate(policy: Policy) -> None:
    prompts = prompts_of(policy)
    ours = respond(policy, policy.prefill(prompts), ending(policy), Sampling())
    width = max(map(len, prompts))
    padded = torch.tensor([[0] * (width - len(prompt)) + prompt for prompt in prompts])
    mask = torch.tensor([[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts])
    theirs = policy.lm.generate(padded, attention_mask=mask, do_sample=False, max_new_tokens=LENGTH, pad_token_id=0)
    for row, ids in enumerate(ours.ids):
        assert ids == theirs[row, width : width + len(ids)].tolist()
        assert len(ids) == LENGTH or ending(policy).ended(ids)
    assert max(map(len, ours.ids)) > 1


def test_each_row_stops_at_its_own_end(tiny_llama: Path) -> None:
    tokenizer = policy_of(tiny_llama).tokenizer
    scripts = script(
        tokenizer,
        "Positive<|im_end|>xxxx",
        "No\nNo\nNo",
        "Yes</Judgement>xxxxxxxx",
        "the plot is dull and slow",
        "\n\n\n",
    )
    fake = Scripted(tokenizer, scripts)
    found = respond(fake, fake, ending(fake, 8), Sampling())
    assert found.texts[:3] == ["Positive", "No\n", "Yes</Judgement>"]
    assert found.texts[4].startswith("\n")
    assert found.ids[0][-1] == 2
    assert found.ids[3] == scripts[3][:8]  # cut by the limit
    assert [len(ids) for ids in found.ids] == found.mask_BR.sum(1).tolist()
    for row, ids in enumerate(found.ids):
        assert ids == scripts[row][: len(ids)]
        assert found.mask_BR[row, : len(ids)].all()
    for tensor in (found.logp_BR, found.value_BR):
        assert tensor.dtype == torch.float32
        assert (tensor[~found.mask_BR] == 0).all()
    assert found.value_BR[3].tolist() == [step + 0.5 for step in range(8)]
    assert (found.logp_BR.abs() < 1e-3).all()


def test_rows_that_have_ended_leave_the_batch(tiny_llama: Path) -> None:
    tokenizer = policy_of(tiny_llama).tokenizer
    scripts = script(tokenizer, "No\n", "the plot is dull and slow and long", "Yes\n", "No\n", "Yes\n", "a warm film")
    fake = Scripted(tokenizer, scripts)
    found = respond(fake, fake, ending(fake, 8), Sampling())
    assert [len(ids) for ids in found.ids] == found.mask_BR.sum(1).tolist()
    for row, ids in enumerate(found.ids):
        assert ids[: len(scripts[row])] == scripts[row][: len(ids)]
    assert fake.fed[0] == 6, "the first token of every row is fed"
    assert fake.fed[-1] == sum(len(ids) == 8 for ids in found.ids) < 6


def test_leaving_rows_change_nothing_for_those_that_go_on(policy: Policy) -> None:
    """With random ends, rows leave early; each row's figures equal a separate forward pass of it."""
    found = draw(policy, ending(policy, LENGTH, 1, stop="tag"))
    assert len({len(ids) for ids in found.ids}) > 1
    for row, (prompt, ids) in enumerate(zip(prompts_of(policy), found.ids, strict=True)):
        torch.testing.assert_close(found.logp_BR[row, : len(ids)], alone(policy, prompt, ids, 1.0), atol=5e-5, rtol=0)


def test_a_tag_answer_goes_on_over_line_and_turn(tiny_llama: Path) -> None:
    tokenizer = policy_of(tiny_llama).tokenizer
    fake = Scripted(
        tokenizer, script(tokenizer, "No\n<|im_end|>ab</Judgement>rest", "No\nand on and on and on and on and on")
    )
    found = respond(fake, fake, ending(fake, 14, stop="tag"), Sampling())
    assert found.texts[0] == "No\n<|im_end|>ab</Judgement>"
    assert len(found.ids[1]) == 14


def test_one_token_at_most(tiny_llama: Path) -> None:
    policy = policy_of(tiny_llama)
    found = draw(policy, ending(policy, 1))
    assert [len(ids) for ids in found.ids] == [1] * 4
    assert found.logp_BR.shape == found.value_BR.shape == found.mask_BR.shape == (4, 1)


@pytest.mark.parametrize("settings", [{"top_k": 1}, {"top_p": 1e-6}, {"temperature": 1e-4}])
def test_the_narrowest_sampling_is_greedy(policy: Policy, settings: dict[str, float]) -> None:
    greedy = respond(policy, policy.prefill(prompts_of(policy)), ending(policy), Sampling())
    assert draw(policy, ending(policy), **settings).ids == greedy.ids


def test_the_seed_decides(policy: Policy) -> None:
    one, same, other = (draw(policy, ending(policy), seed) for seed in (3, 3, 4))
    assert one.ids == same.ids
    assert torch.equal(one.logp_BR, same.logp_BR)
    assert torch.equal(one.value_BR, same.value_BR)
    assert one.ids != other.ids


@pytest.mark.parametrize(
    ("temperature", "settings"), [(1.0, {}), (0.7, {}), (2.0, {}), (1.0, {"top_k": 3}), (0.5, {"top_p": 0.6})]
)
def test_logp_equals_an_independent_forward(policy: Policy, temperature: float, settings: dict[str, float]) -> None:
    """Also under top-k and top-p: the log-probability is that of the whole tempered distribution."""
    found = draw(policy, ending(policy), temperature=temperature, **settings)
    for row, (prompt, ids) in enumerate(zip(prompts_of(policy), found.ids, strict=True)):
        expected = alone(policy, prompt, ids, temperature)
        torch.testing.assert_close(found.logp_BR[row, : len(ids)], expected, atol=5e-5, rtol=0)


LOGITS = torch.tensor([0.5, 0.3, 0.15, 0.05]).log()


def shares(tokenizer, **settings) -> list[float]:
    fake = Scripted(tokenizer, logits=LOGITS, rows=20_000)
    end = AnswerEnd(tokenizer, "tag", (), 1, 1)
    found = respond(fake, fake, end, Sampling(torch.Generator().manual_seed(0), **settings))
    drawn = torch.tensor(found.ids)[:, 0]
    return [(drawn == token).float().mean().item() for token in range(4)]


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, [0.5, 0.3, 0.15, 0.05]),
        ({"top_k": 2}, [0.625, 0.375, 0, 0]),
        ({"top_k": 99}, [0.5, 0.3, 0.15, 0.05]),
        ({"top_p": 0.5}, [1, 0, 0, 0]),
        ({"top_p": 0.7}, [0.625, 0.375, 0, 0]),
        ({"top_p": 0.81}, [0.5 / 0.95, 0.3 / 0.95, 0.15 / 0.95, 0]),
        ({"temperature": 0.5}, [0.25 / 0.365, 0.09 / 0.365, 0.0225 / 0.365, 0.0025 / 0.365]),
    ],
)
def test_tokens_are_drawn_with_their_probabilities(
    tiny_llama: Path, settings: dict[str, float], expected: list[float]
) -> None:
    found = shares(policy_of(tiny_llama).tokenizer, **settings)
    assert found == pytest.approx(expected, abs=0.015)
    assert [share == 0 for share in found] == [share == 0 for share in expected]


def test_lengths_are_drawn_between_the_limits(tiny_llama: Path) -> None:
    tokenizer = policy_of(tiny_llama).tokenizer
    fake = Scripted(tokenizer, script(tokenizer, *["a b c d e f g h i"] * 200))
    end = ending(fake, 6, 3)
    found = respond(fake, fake, end, Sampling(torch.Generator().manual_seed(0)))
    assert {len(ids) for ids in found.ids} == {3, 4, 5, 6}
    fake = Scripted(tokenizer, fake.scripts)
    assert {len(ids) for ids in respond(fake, fake, end, Sampling()).ids} == {6}, "evaluation is not cut at random"


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
@pytest.mark.parametrize("greedy", [True, False])
def test_logits_that_are_not_finite_stop_it(tiny_llama: Path, bad: float, greedy: bool) -> None:
    fake = Scripted(policy_of(tiny_llama).tokenizer, logits=torch.tensor([0.0, bad, 0.0]), rows=2)
    with pytest.raises(NotFiniteError):
        respond(fake, fake, ending(fake), Sampling(None if greedy else torch.Generator()))


def test_tokens_that_cannot_be_drawn_are_no_fault(tiny_llama: Path) -> None:
    fake = Scripted(policy_of(tiny_llama).tokenizer, logits=torch.tensor([0.0, -torch.inf, 0.0]), rows=50)
    found = respond(fake, fake, ending(fake, 2, stop="tag"), Sampling(torch.Generator().manual_seed(0)))
    assert {token for ids in found.ids for token in ids} == {0, 2}
    assert torch.isfinite(found.logp_BR).all()


def test_batches_hold_every_prompt_once_and_alike_in_length() -> None:
    prompts = [[0] * length for length in (5, 1, 9, 5, 2, 7)]
    batches = by_length(prompts, 2)
    assert batches == [[1, 4], [0, 3], [5, 2]]
    assert by_length(prompts, 64) == [[1, 4, 0, 3, 5, 2]]
    assert by_length([], 4) == []
