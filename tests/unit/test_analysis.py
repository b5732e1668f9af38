"""Test analysis followed by judgement: the text between them, and which tokens the policy chose."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from policies import Scripted, trained_looking
from specs import label_task
from transformers import AutoTokenizer

from adjudge.config import AnswerConfig
from adjudge.models.policy import Policy
from adjudge.prompts.answers import read_answer
from adjudge.rollout.analysis import open_next, respond_after_analysis
from adjudge.rollout.answer_end import AnalysisEnd, AnswerEnd, answer_end
from adjudge.rollout.forward import token_figures
from adjudge.rollout.sampler import Sampling

END = 2
LABELS = label_task("Negative", "Positive")
TEXTS = (
    "a warm, funny film",
    "dull",
    "the plot is slow but the scene at the last is a charming surprise",
    "nobody should",
)


@pytest.fixture
def tokenizer(tiny_llama: Path):
    return AutoTokenizer.from_pretrained(tiny_llama)


@pytest.fixture(params=["tiny_llama", "tiny_qwen2", "tiny_mpt"])
def policy(request: pytest.FixtureRequest) -> Policy:
    return trained_looking(request.getfixturevalue(request.param))


def ids_of(tokenizer, text: str) -> list[int]:
    return tokenizer(text, add_special_tokens=False).input_ids


def answers(tokenizer, stop: str = "line") -> AnswerEnd:
    return answer_end(tokenizer, [END], LABELS, AnswerConfig(stop=stop))


@pytest.mark.parametrize("analysis", ["It is slow.", "It is slow.</Analysis>", "It is slow.</Ana", "It is slow.<"])
@pytest.mark.parametrize("turn", [[], [END]])
def test_after_an_analysis_the_judgement_is_opened_once(tokenizer, analysis: str, turn: list[int]) -> None:
    """Whatever of the tags the model wrote itself, and wherever the limit cut them."""
    asked = [ids_of(tokenizer, "Review.\n<Analysis>")] * 2
    opened = open_next(AnalysisEnd(tokenizer, (END,), 40), asked, [[*ids_of(tokenizer, analysis), *turn], [END]])
    assert opened.texts == ["It is slow.</Analysis>\n<Judgement>", "</Analysis>\n<Judgement>"]
    for prompt, text in zip(opened.prompts, opened.texts, strict=True):
        assert tokenizer.decode(prompt) == f"Review.\n<Analysis>{text}"
    for prompt, kept, written in zip(opened.prompts, opened.kept, opened.template, strict=True):
        assert len(prompt) == len(asked[0]) + kept + written
    assert opened.kept == [len(ids_of(tokenizer, analysis)), 0]


@pytest.mark.parametrize("answer", ["Positive", "Positive\n", "Positive</Judgement>", "Positive</Judge"])
def test_after_a_judgement_the_analysis_is_opened_once(tokenizer, answer: str) -> None:
    opened = open_next(answers(tokenizer), [ids_of(tokenizer, "<Judgement>")], [ids_of(tokenizer, answer)])
    assert opened.texts == ["Positive</Judgement>\n<Analysis>"]
    assert tokenizer.decode(opened.prompts[0]) == "<Judgement>Positive</Judgement>\n<Analysis>"


def test_an_analysis_may_speak_of_judgements(tokenizer) -> None:
    said = "<Judgement>Negative</Judgement>?\nNo: <Judgement>"
    opened = open_next(AnalysisEnd(tokenizer, (END,), 40), [[5]], [ids_of(tokenizer, said)])
    assert opened.texts == [f"{said}</Analysis>\n<Judgement>"]


def test_the_judgement_alone_is_the_text_of_a_response(tokenizer) -> None:
    analyses = ["</Judgement> Negative</Analysis> beyond", "so so", ""]
    fake = Scripted(tokenizer, analyses, ["Positive", "Negative</Judgement>", "\nPositive"])
    prompts = [ids_of(tokenizer, "Well?")] * 3
    found = respond_after_analysis(fake, prompts, AnalysisEnd(tokenizer, (END,), 40), answers(tokenizer), Sampling())
    assert [read_answer(text, LABELS, "line").value for text in found.texts] == ["Positive", "Negative", None]
    assert fake.prompts[1] == [
        "Well?</Judgement> Negative</Analysis>\n<Judgement>",
        "Well?so so</Analysis>\n<Judgement>",
        "Well?</Analysis>\n<Judgement>",
    ]
    for ids, asked, text in zip(found.ids, fake.prompts[1], found.texts, strict=True):
        assert tokenizer.decode([*prompts[0], *ids]).removesuffix("<|im_end|>") == asked + text


def sampled(policy: Policy, seed: int = 0, temperature: float = 1.0, tokens: int = 6):
    head = policy.tokenizer("Is the sentiment Positive or Negative? ").input_ids
    prompts = [[*head, *policy.tokenizer(text).input_ids] for text in TEXTS]
    first = AnalysisEnd(policy.tokenizer, tuple(policy.end_ids), tokens)
    end = AnswerEnd(policy.tokenizer, "line", tuple(policy.end_ids), 5, 1)
    sampling = Sampling(torch.Generator().manual_seed(seed), temperature)
    return prompts, respond_after_analysis(policy, prompts, first, end, sampling)


@pytest.mark.parametrize("temperature", [1.0, 0.6])
def test_what_is_known_of_a_response_equals_an_independent_forward(policy: Policy, temperature: float) -> None:
    """Analysis and judgement have adjacent log-probabilities and values; the tags between have none."""
    prompts, found = sampled(policy, temperature=temperature)
    assert found.template_spans is not None
    assert {tuple(found.ids[row][w.start : w.stop]) for row, w in enumerate(found.template_spans)} >= {
        tuple(ids_of(policy.tokenizer, "</Analysis>\n<Judgement>"))
    }
    logp_BR, value_BR, entropy_BR = token_figures(policy, prompts, found.ids, temperature, found.template_spans)
    for known, anew in ((found.logp_BR, logp_BR), (found.value_BR, value_BR), (found.entropy_BR, entropy_BR)):
        torch.testing.assert_close(known, anew.detach(), atol=5e-5, rtol=5e-5)
    for row, (prompt, ids) in enumerate(zip(prompts, found.ids, strict=True)):
        own = [place for place in range(len(ids)) if place not in found.template_spans[row]]
        assert found.mask_BR[row].tolist() == [place < len(own) for place in range(found.mask_BR.shape[1])]
        with torch.no_grad():
            logits = policy.lm(input_ids=torch.tensor([[*prompt, *ids]])).logits[0].float() / temperature
        logp = logits.log_softmax(-1)[torch.tensor(own) + len(prompt) - 1, torch.tensor(ids)[own]]
        # The library's own float32 forward is 1.5e-4 away from its float64 one for these prompts.
        torch.testing.assert_close(found.logp_BR[row, : len(own)], logp, atol=5e-4, rtol=0)
        assert (found.logp_BR[row, len(own) :] == 0).all()


def test_the_seed_decides_analysis_and_judgement(tiny_llama: Path) -> None:
    policy = trained_looking(tiny_llama)
    one, same, other = (sampled(policy, seed)[1] for seed in (3, 3, 4))
    assert one.ids == same.ids
    assert torch.equal(one.logp_BR, same.logp_BR)
    assert one.ids != other.ids


def test_some_rows_without_written_places_are_as_a_plain_pass(policy: Policy) -> None:
    prompts, found = sampled(policy)
    plain = token_figures(policy, prompts, found.ids, 1.0)
    empty = token_figures(policy, prompts, found.ids, 1.0, [range(0)] * len(prompts))
    for one, other in zip(plain, empty, strict=True):
        assert torch.equal(one, other)
