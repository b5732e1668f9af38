"""Values inside an analysis: where steps begin, what is continued from there, and what the continuations are worth."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest
import torch
from policies import Scripted, trained_looking
from specs import label_task
from transformers import AutoTokenizer

from adjudge.config import RewardConfig, VineConfig, load_config
from adjudge.rollout.answer_end import AnalysisEnd
from adjudge.rollout.collect import Rollout, sample
from adjudge.rollout.prompted import PromptedTask, PromptRow, prompt_rows
from adjudge.rollout.sampler import Sampling
from adjudge.rollout.vine import Vine, step_cuts
from adjudge.types import Example, Judgement

END = 2
LABELS = label_task("Negative", "Positive")
SETTINGS = {"prompt.analysis": "before", "answer.analysis_tokens": 8, "answer.max_tokens": 4}
REWARD = RewardConfig(balance=False)


@pytest.fixture
def tokenizer(tiny_llama: Path) -> Any:
    return AutoTokenizer.from_pretrained(tiny_llama)


def ids_of(tokenizer: Any, text: str) -> list[int]:
    return list(tokenizer(text, add_special_tokens=False).input_ids)


def pieces(tokenizer: Any, text: str, limit: int = 200, **values: Any) -> list[str]:
    """Return the steps of an analysis as texts."""
    ids = ids_of(tokenizer, text)
    cuts = step_cuts(AnalysisEnd(tokenizer, (END,), limit), ids, VineConfig(**{"steps": 9, **values}))
    bounds = [0, *cuts, len(ids)]
    return [tokenizer.decode(ids[begin:end]) for begin, end in itertools.pairwise(bounds) if begin < end]


@pytest.mark.parametrize(
    ("text", "steps"),
    [
        ("It is slow. I was bored! Why?", ["It is slow.", " I was bored!", " Why?"]),
        ("It is slow.\nI was bored.\n\nWell", ["It is slow.", "\nI was bored.", "\n\nWell"]),
        ('He said "no." And left', ['He said "no."', " And left"]),
        ("3.5 of 5 stars... and so on", ["3.5 of 5 stars...", " and so on"]),
        ("It is slow.</Analysis>", ["It is slow.", "</Analysis>"]),
        ("It is slow.</Ana", ["It is slow.", "</Ana"]),
        ("no end at all", ["no end at all"]),
        ("...", ["..."]),
        ("", []),
    ],
)
def test_steps_are_sentences(tokenizer: Any, text: str, steps: list[str]) -> None:
    assert pieces(tokenizer, text) == steps


def test_there_are_at_most_so_many_and_they_are_spread_evenly(tokenizer: Any) -> None:
    text = "One. Two. Three. Four. Five. Six"
    assert pieces(tokenizer, text, steps=2) == ["One. Two.", " Three. Four.", " Five. Six"]
    assert pieces(tokenizer, text, steps=1) == ["One. Two. Three.", " Four. Five. Six"]
    assert pieces(tokenizer, text, steps=0) == [text]
    assert len(pieces(tokenizer, text, steps=5)) == 6


def test_nothing_begins_at_the_token_limit(tokenizer: Any) -> None:
    text = "It is slow."
    limit = len(ids_of(tokenizer, text))
    end, config = AnalysisEnd(tokenizer, (END,), limit), VineConfig()
    assert step_cuts(end, ids_of(tokenizer, text), config) == []
    assert step_cuts(AnalysisEnd(tokenizer, (END,), limit + 1), ids_of(tokenizer, text), config) == [limit]


def test_places_at_equal_distances_avoid_the_closing_tag(tokenizer: Any) -> None:
    ids = ids_of(tokenizer, "no end at all</Analysis>")
    plain = len(ids_of(tokenizer, "no end at all"))
    cuts = step_cuts(AnalysisEnd(tokenizer, (END,), 200), ids, VineConfig(split="tokens", steps=99))
    assert cuts == list(range(1, plain + 1))
    distances = step_cuts(AnalysisEnd(tokenizer, (END,), 200), [5] * 19, VineConfig(split="tokens", steps=3))
    assert distances == [5, 10, 15]


class Script(Scripted):
    """A `Scripted` policy on no device in particular."""

    device = torch.device("cpu")


def test_values_by_hand(tokenizer: Any) -> None:
    """Two answers to one prompt share its first state; every continuation of a state says what the script says."""
    analyses = ["It is slow. So", "It is good. And"]
    prompt, spans, responses = tuple(ids_of(tokenizer, "Well?")), [], []
    for text in analyses:
        tags = ids_of(tokenizer, "</Analysis>\n<Judgement>")
        kept = ids_of(tokenizer, text)
        spans.append(range(len(kept), len(kept) + len(tags)))
        responses.append([*kept, *tags, *ids_of(tokenizer, "Positive")])
    mask_BR = torch.ones(2, max(len(ids) for ids in responses), dtype=torch.bool)
    gold = Example("t:0", {"text": "x"}, "Positive")
    rollout = Rollout(
        prompts=[prompt] * 2,
        golds=["Positive"] * 2,
        responses=responses,
        judgements=[Judgement("Positive", "Positive")] * 2,
        logp_BR=torch.zeros(mask_BR.shape),
        value_BR=torch.zeros(mask_BR.shape),
        mask_BR=mask_BR,
        template_spans=spans,
        sampled_with_grad=None,
        samples=2,
        examples=[gold] * 2,
    )
    ends = ["Good. Positive", " dull", " warm"]  # after the prompt, and after the first sentence of each answer
    said = ["Positive", "Negative", "Positive", "???", "Positive", "Positive"]  # two each
    policy = Script(tokenizer, ends, said)
    task = PromptedTask(policy, LABELS, load_config(values={**SETTINGS, "answer.analysis_tokens": 99}))  # type: ignore[arg-type]
    vine = Vine(task, VineConfig(rollouts=2), REWARD, Sampling())
    found = vine.step_values(rollout)
    # +1 and −1; +1 and −3 for an unreadable judgement; +1 and +1.
    assert found.value_BS.tolist() == [[0.0, -1.0], [0.0, 1.0]] and found.steps_B.tolist() == [2, 2]
    for answer, text in enumerate(("It is slow.", "It is good.")):
        own = len(ids_of(tokenizer, text))
        assert found.step_BR[answer].tolist() == [int(token >= own) for token in range(mask_BR.shape[1])]
    assert policy.prompts[0] == ["Well?", "Well?It is slow.", "Well?It is good."]
    assert policy.prompts[1][2] == "Well?It is slow. dull</Analysis>\n<Judgement>"
    sampled = sum(len(ids_of(tokenizer, text)) + 1 for text in ends) * 2
    assert found.figures["extra_tokens"] == sampled + sum(len(ids_of(tokenizer, word)) + 1 for word in said[:3]) + min(
        4, len(ids_of(tokenizer, "???")) + 1
    ) + sum(len(ids_of(tokenizer, word)) + 1 for word in said[4:])
    assert found.figures["value_states"] == 3 and found.figures["steps"] == 2 and found.figures["split"] == 1
    assert found.figures["value_variance"] == pytest.approx(2 / 3)
    assert found.figures["value_noise"] == pytest.approx((2 / 2 + 8 / 2 + 0) / 3)


def task_and_rows(folder: Path) -> tuple[PromptedTask, list[PromptRow]]:
    task = PromptedTask(trained_looking(folder), LABELS, load_config(values=SETTINGS))
    texts = ("a warm, funny film", "dull", "slow and long and dull")
    rows = [Example(f"t:{at}", {"text": text}, LABELS.words[at % 2]) for at, text in enumerate(texts)]
    return task, prompt_rows(task, rows)


def drawn(seed: int, temperature: float = 1.0) -> Sampling:
    return Sampling(torch.Generator().manual_seed(seed), temperature)


@pytest.mark.parametrize("folder", ["tiny_llama", "tiny_mpt"])
def test_continuations_change_nothing_of_what_is_sampled(folder: str, request: pytest.FixtureRequest) -> None:
    """The sampler's generator stays where it was, and each value depends on the generator of the values."""
    task, rows = task_and_rows(request.getfixturevalue(folder))
    main = drawn(0)
    rollout = sample(task, rows, main, samples=2)
    assert main.generator is not None
    before = main.generator.get_state()
    config = VineConfig(rollouts=3, split="tokens", steps=2)
    one, same = (Vine(task, config, REWARD, drawn(5)).step_values(rollout) for _ in range(2))
    assert torch.equal(main.generator.get_state(), before)
    assert torch.equal(one.value_BS, same.value_BS) and one.figures == same.figures
    again = sample(task, rows, drawn(0), samples=2)
    assert again.responses == rollout.responses
    assert one.figures["value_states"] <= len(rows) + 4 * len(rows), "the prompts are valued once"
    assert one.figures["extra_tokens"] > 0


def test_where_all_rewards_are_equal_the_values_are_exactly_these(tiny_llama: Path) -> None:
    """A random model's judgements are unreadable, and the mean of seven equal rewards may be rounded."""
    task, rows = task_and_rows(tiny_llama)
    rollout = sample(task, rows, drawn(0))
    assert all(judgement.value is None for judgement in rollout.judgements)
    reward = RewardConfig(balance=False, unreadable=-0.3)
    found = Vine(task, VineConfig(rollouts=7, split="tokens", steps=1), reward, drawn(5)).step_values(rollout)
    assert (found.value_BS[found.value_BS != 0] == torch.tensor(-0.3)).all()
    assert max(found.figures["value_variance"], found.figures["value_noise"]) < 1e-12


def test_the_value_after_an_analysis_is_the_exact_expected_reward(tiny_llama: Path) -> None:
    task, rows = task_and_rows(tiny_llama)
    rollout = sample(task, rows, drawn(0, 0.7))
    vine = Vine(task, VineConfig(rollouts=2, split="tokens", steps=1), REWARD, drawn(5, 0.7), labels=True)
    found = vine.step_values(rollout)
    assert rollout.template_spans is not None
    for answer, (row, span) in enumerate(zip(rows, rollout.template_spans, strict=True)):
        opened, expected, rest = [*row.ids, *rollout.responses[answer][: span.stop]], 0.0, 1.0
        for word in LABELS.words:
            ids = task.end.taught_ids(word, LABELS)
            with torch.no_grad():
                logits = task.policy.lm(input_ids=torch.tensor([[*opened, *ids]])).logits[0].float() / 0.7
            logp = logits.log_softmax(-1)[range(len(opened) - 1, len(opened) + len(ids) - 1), ids].sum()
            expected += float(logp.exp()) * (1 if word == row.example.gold else -1)
            rest -= float(logp.exp())
        last = int(found.steps_B[answer]) - 1
        assert float(found.value_BS[answer, last]) == pytest.approx(expected - 3 * rest, abs=1e-4)
        assert int(found.step_BR[answer, span.start]) == last, "the judgement is the last step"
    assert found.figures["split"] == 1


def test_continuations_of_every_size_of_a_part_are_the_same(tiny_llama: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With greedy continuations nothing is drawn, so parts that fit into memory cannot change them."""
    task, rows = task_and_rows(tiny_llama)
    rollout = sample(task, rows, drawn(0), samples=2)
    config = VineConfig(rollouts=1, split="tokens", steps=2)
    whole = Vine(task, config, REWARD, Sampling()).step_values(rollout)
    monkeypatch.setattr("adjudge.rollout.vine.MOST_COPIES", 2)
    parts = Vine(task, config, REWARD, Sampling()).step_values(rollout)
    assert torch.equal(whole.value_BS, parts.value_BS) and whole.figures == parts.figures
    assert whole.figures["value_noise"] is None
