"""Pairs of answers with analyses, their values, and ratings of sampled ones."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from policies import trained_looking

from adjudge.config import load_config
from adjudge.rollout import collect
from adjudge.rollout.analysed_pairs import AnalysedPairs, answer_values
from adjudge.rollout.answer_ratings import AnswerRatings
from adjudge.rollout.prompted import PromptedTask, PromptRow, prompt_rows
from adjudge.tasks import load_task
from adjudge.tasks.spec import TaskSpec
from adjudge.types import Example, Judgement


@pytest.fixture
def readable(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every answer of a random model be read as one of the labels, by its length."""

    def read(text: str, spec: TaskSpec, stop: str) -> Judgement:
        return Judgement(text, spec.words[len(text) % len(spec.words)])

    monkeypatch.setattr(collect, "read_answer", read)


def task_and_rows(folder: Path) -> tuple[PromptedTask, list[PromptRow]]:
    settings = {"prompt.analysis": "before", "answer.analysis_tokens": 6, "answer.max_tokens": 4}
    task = PromptedTask(trained_looking(folder), load_task("glue/sst2"), load_config(values=settings))
    words, fields = task.spec.words, task.spec.fields
    texts = ("a warm, funny film", "dull", "slow and long and dull")
    return task, prompt_rows(
        task, [Example(f"t:{at}", dict.fromkeys(fields, text), words[at % 2]) for at, text in enumerate(texts)]
    )


def test_label_pairs_end_in_a_right_and_a_wrong_label(tiny_llama: Path, readable: None) -> None:
    task, rows = task_and_rows(tiny_llama)
    pairs = AnalysedPairs("label", 4)
    pairs.build([task], [rows], torch.Generator().manual_seed(0))
    for row, pair in zip(rows, pairs.of(0, rows), strict=True):
        assert pair is not None
        right = task.end.taught_ids(str(row.example.gold), task.spec)
        (other,) = (word for word in task.spec.words if word != row.example.gold)
        wrong = task.end.taught_ids(other, task.spec)
        assert pair.chosen[-len(right) :] == right and pair.rejected[-len(wrong) :] == wrong
        assert pair.swapped == (pair.chosen[: -len(right)] == pair.rejected[: -len(wrong)])
    again = AnalysedPairs("label", 4)
    again.load_state_dict(json.loads(json.dumps(pairs.state_dict())))
    assert again.of(0, rows) == pairs.of(0, rows)


@torch.no_grad()
def test_answers_are_rated_as_they_are_alone(tiny_llama: Path) -> None:
    task, rows = task_and_rows(tiny_llama)
    answers = [[5, 6, 7, 8], [9], [10, 11]]
    value_NT = answer_values(task.policy, [row.ids for row in rows], answers)
    for row, answer, value_T in zip(rows, answers, value_NT, strict=True):
        hidden = task.policy.lm(input_ids=torch.tensor([[*row.ids, *answer]]), output_hidden_states=True)
        alone_T = task.policy.value(hidden.hidden_states[-1][0, len(row.ids) :])
        torch.testing.assert_close(value_T[: len(answer)], alone_T, atol=2e-4, rtol=1e-3)
        assert (value_T[len(answer) :] == value_T[len(answer) - 1]).all()


def test_ratings_are_standardised_by_all_so_far(tiny_llama: Path) -> None:
    task, rows = task_and_rows(tiny_llama)
    examples = [row.example for row in rows]
    judgements = [Judgement("", word) for word in (*task.spec.words, None)]
    openings: list[list[int]] = [[5, 6], [7], []]
    ratings = AnswerRatings(task, rates_labels=True)
    first = ratings.of_answers(examples, judgements, openings)
    assert first[2] is None and sorted(each for each in first if each is not None) == pytest.approx([-1, 1], abs=1e-3)
    again = AnswerRatings(task, rates_labels=True)
    again.load_state_dict(ratings.state_dict())
    assert again.of_answers(examples, judgements, openings) == ratings.of_answers(examples, judgements, openings)
    assert AnswerRatings(task, rates_labels=True).of_answers(examples[:1], judgements[:1], openings[:1]) == [0.0]
    assert AnswerRatings(task, rates_labels=True).of_answers(examples[:1], judgements[2:], openings[:1]) == [None]
