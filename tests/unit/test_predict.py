"""A prompted policy as a judge: every row gets its prediction, whatever the batches."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from policies import Scripted
from specs import label_task, number_task

from adjudge.config import load_config
from adjudge.errors import NotFiniteError
from adjudge.evaluation.predict import PromptedJudge
from adjudge.models.policy import Policy, load_policy
from adjudge.rollout.prompted import PromptedTask
from adjudge.tasks.spec import TaskSpec
from adjudge.types import Example

FORM = {"instruction": "Judge the film.", "template": "Review: {{ text }}"}
LABELS = label_task("Negative", "Positive", "No", "No way", **FORM)
NUMBERS = number_task(0, 9, decimals=0, **FORM)
WORDS = ("warm", "dull", "funny", "slow", "the plot", "a scene", "🙂", "nobody should pay", "<|im_end|>")


def rows(count: int = 20) -> list[Example]:
    texts = [
        " ".join(WORDS[(place * 7 + step) % len(WORDS)] for step in range(1 + place * 5 % 11)) for place in range(count)
    ]
    return [Example(f"dev.tsv:{place + 2}", {"text": text}, "Positive") for place, text in enumerate(texts)]


@pytest.fixture(params=["tiny_llama", "tiny_qwen2", "tiny_mpt"])
def policy(request: pytest.FixtureRequest) -> Policy:
    return policy_of(request.getfixturevalue(request.param))


def policy_of(folder: Path) -> Policy:
    return load_policy(load_config(values={"model": str(folder), "runtime.dtype": "float32", "runtime.device": "cpu"}))


def judge_of(policy: Policy, spec: TaskSpec = LABELS, **values) -> PromptedJudge:
    return PromptedJudge(PromptedTask(policy, spec, load_config(values=values)))


@pytest.mark.parametrize(
    ("decode", "spec"), [("greedy", LABELS), ("labels", LABELS), ("mean", NUMBERS)], ids=["greedy", "labels", "mean"]
)
def test_batches_change_nothing(policy: Policy, decode: str, spec: TaskSpec) -> None:
    asked = rows(8)
    found = {
        size: judge_of(policy, spec, **{"evaluation.batch_size": size, "evaluation.decode": decode}).judge(
            asked, probabilities=True
        )
        for size in (1, 3, 64)
    }
    for predictions in found.values():
        assert [prediction.id for prediction in predictions] == [example.id for example in asked]
        for example, prediction in zip(asked, predictions, strict=True):
            assert (prediction.fields, prediction.gold) == (example.fields, example.gold)
    for one, three, all_ in zip(*found.values(), strict=True):
        assert one.text == three.text == all_.text
        if decode == "mean":
            assert (one.value, three.value) == pytest.approx((all_.value, all_.value), abs=1e-4)
        else:
            assert one.value == three.value == all_.value
        assert one.probabilities == pytest.approx(all_.probabilities, abs=1e-5)


def test_probabilities_are_over_the_label_words(policy: Policy) -> None:
    found = judge_of(policy).judge(rows(6), probabilities=True)
    for prediction in found:
        assert tuple(prediction.probabilities) == LABELS.words
        assert sum(prediction.probabilities.values()) == pytest.approx(1.0, abs=1e-5)
    assert len({prediction.probabilities["Positive"] for prediction in found}) > 1


def test_probabilities_only_where_they_are_wanted(policy: Policy) -> None:
    assert all(prediction.probabilities == {} for prediction in judge_of(policy).judge(rows(3)))
    assert all(
        prediction.probabilities == {} for prediction in judge_of(policy, NUMBERS).judge(rows(3), probabilities=True)
    )


def test_asking_for_probabilities_changes_no_answer(policy: Policy) -> None:
    plain, more = judge_of(policy).judge(rows()), judge_of(policy).judge(rows(), probabilities=True)
    assert [prediction.text for prediction in plain] == [prediction.text for prediction in more]


def test_decoding_labels_takes_the_likeliest(policy: Policy) -> None:
    for prediction in judge_of(policy, **{"evaluation.decode": "labels"}).judge(rows()):
        assert prediction.value == max(prediction.probabilities, key=prediction.probabilities.__getitem__)
        assert prediction.text == prediction.value


def test_a_number_task_has_no_labels_to_decode(policy: Policy) -> None:
    greedy = judge_of(policy, NUMBERS).judge(rows(5))
    assert judge_of(policy, NUMBERS, **{"evaluation.decode": "labels"}).judge(rows(5), probabilities=True) == greedy


@torch.no_grad()
def test_the_mean_number_is_weighed_by_every_numbers_probability(policy: Policy) -> None:
    """Against plain forwards over the prompt and each number with its end."""
    spec = number_task(-0.5, 1, **FORM)
    judge = judge_of(policy, spec, **{"evaluation.decode": "mean"})
    for example, prediction in zip(rows(4), judge.judge(rows(4)), strict=True):
        prompt = judge.task.renderer.prompt(example).ids
        logps = []
        for number in [step / 10 for step in range(-5, 11)]:
            answer = [*policy.tokenizer(f"{number:.1f}", add_special_tokens=False).input_ids, judge.task.end.end_ids[0]]
            logp = policy.lm(input_ids=torch.tensor([[*prompt, *answer]])).logits[0].float().log_softmax(-1)
            logps.append(sum(logp[len(prompt) - 1 + place, token].item() for place, token in enumerate(answer)))
        mean = sum(share * step / 10 for step, share in zip(range(-5, 11), torch.tensor(logps).softmax(0), strict=True))
        assert prediction.value == pytest.approx(float(mean), abs=1e-4)
        assert prediction.text == f"{prediction.value:.1f}".replace("-0.0", "0.0")


@pytest.mark.parametrize("analysis", [True, "before"])
def test_a_mean_number_has_its_analysis(policy: Policy, analysis: bool | str) -> None:
    judge = judge_of(policy, NUMBERS, **ANALYSED, **{"prompt.analysis": analysis, "evaluation.decode": "mean"})
    for prediction in judge.judge(rows(3)):
        assert 0 <= prediction.value <= 9
        assert f"<Judgement>{prediction.value:.0f}" in f"<Judgement>{prediction.text}"


def test_mean_answers_labels_with_the_likeliest(policy: Policy) -> None:
    likeliest, mean = (judge_of(policy, **{"evaluation.decode": decode}) for decode in ("labels", "mean"))
    assert mean.judge(rows(4)) == likeliest.judge(rows(4))


def test_an_untrained_model_is_not_guessed_for(policy: Policy) -> None:
    for prediction in judge_of(policy).judge(rows()):
        assert prediction.value is None or prediction.text.strip().strip(".").lower() == str(prediction.value).lower()


def test_shortened_rows_are_noted(tiny_llama: Path, capsys: pytest.CaptureFixture[str]) -> None:
    policy = policy_of(tiny_llama)
    asked = [
        *rows(3),
        Example("long", {"text": "dull and slow " * 300}, "Positive"),
        Example("longer", {"text": "x" * 5000}),
    ]
    found = judge_of(policy, **{"prompt.max_tokens": 250}).judge(asked)
    assert len(found) == 5
    assert found[3].fields == asked[3].fields  # what was asked is kept whole
    assert "2 of 5 rows were shortened to fit prompt.max_tokens = 250" in capsys.readouterr().err
    judge_of(policy).judge(rows(3))
    assert "shortened" not in capsys.readouterr().err


def test_no_rows_no_predictions(tiny_llama: Path) -> None:
    assert judge_of(policy_of(tiny_llama)).judge([]) == []


def test_demonstrations_change_the_answer_but_not_the_rows(tiny_llama: Path) -> None:
    policy = policy_of(tiny_llama)
    shown = PromptedJudge(PromptedTask(policy, LABELS, load_config(), rows(3))).judge(rows(), probabilities=True)
    plain = judge_of(policy).judge(rows(), probabilities=True)
    assert [prediction.id for prediction in shown] == [prediction.id for prediction in plain]
    assert shown[0].probabilities != pytest.approx(plain[0].probabilities, abs=1e-4)


@pytest.mark.parametrize("decode", ["greedy", "labels"])
def test_a_broken_model_gives_no_answers(tiny_llama: Path, decode: str) -> None:
    policy = policy_of(tiny_llama)
    with torch.no_grad():
        policy.lm.model.layers[0].mlp.up_proj.weight[0, 0] = torch.nan
    with pytest.raises(NotFiniteError):
        judge_of(policy, **{"evaluation.decode": decode}).judge(rows(3))


def test_judging_leaves_no_gradient_and_no_dropout(tiny_llama: Path) -> None:
    policy = policy_of(tiny_llama).train()
    judge_of(policy).judge(rows(2), probabilities=True)
    assert not policy.training
    assert all(parameter.grad is None for parameter in policy.parameters())


ANALYSED = {"answer.analysis_tokens": 5}


@pytest.mark.parametrize(("analysis", "decode"), [(True, "greedy"), ("before", "greedy"), ("before", "labels")])
def test_batches_change_no_analysis(policy: Policy, analysis: bool | str, decode: str) -> None:
    settings = {**ANALYSED, "prompt.analysis": analysis, "evaluation.decode": decode}
    one, many = (
        judge_of(policy, **settings, **{"evaluation.batch_size": size}).judge(rows(6), probabilities=True)
        for size in (1, 4)
    )
    for alone, together in zip(one, many, strict=True):
        assert (alone.id, alone.text, alone.value) == (together.id, together.text, together.value)
        assert alone.probabilities == pytest.approx(together.probabilities, abs=1e-5)
        assert alone.text.count("</Analysis>\n<Judgement>" if analysis == "before" else "</Judgement>\n<Analysis>") >= 1


@pytest.mark.parametrize("probabilities", [False, True])
def test_only_the_judgement_is_read_after_an_analysis(tiny_llama: Path, probabilities: bool) -> None:
    tokenizer = policy_of(tiny_llama).tokenizer
    analyses = [
        "<Judgement>Negative</Judgement>",
        "Negative</Analysis> <Judgement>Negative</Judgement>",
        "Positive",
        "x",
    ]
    fake = Scripted(tokenizer, analyses, ["Positive", "positive</Judgement>", "", "Not sure"])
    spec = label_task("Negative", "Positive", **FORM)
    found = judge_of(fake, spec, **{"prompt.analysis": "before"}).judge(same_length(4), probabilities=probabilities)
    assert [prediction.value for prediction in found] == ["Positive", "Positive", None, None]
    assert found[0].text == "<Judgement>Negative</Judgement></Analysis>\n<Judgement>Positive"
    assert found[1].text.startswith("Negative</Analysis>\n<Judgement>positive")
    assert found[2].text == "Positive</Analysis>\n<Judgement>"
    assert all(len(prediction.probabilities) == 2 * probabilities for prediction in found)


@pytest.mark.parametrize("stop", ["line", "tag"])
def test_an_analysis_after_the_judgement_is_never_read(tiny_llama: Path, stop: str) -> None:
    tokenizer = policy_of(tiny_llama).tokenizer
    judgements = ["Positive</Judgement>", "Positive", "Not sure", "Positive\nNegative"]
    fake = Scripted(tokenizer, judgements, ["dull</Analysis> more", "</Judgement> No", "Positive</Judgement>", ""])
    spec = label_task("Negative", "Positive", **FORM)
    settings = {"prompt.analysis": True, "answer.stop": stop, "answer.max_tokens": 12}
    found = judge_of(fake, spec, **settings).judge(same_length(4))
    assert [prediction.value for prediction in found] == (
        ["Positive", "Positive", None, "Positive"] if stop == "line" else ["Positive", None, None, None]
    )
    assert found[0].text == "Positive</Judgement>\n<Analysis>dull</Analysis>"
    assert found[2].text.endswith("</Judgement>\n<Analysis>Positive</Judgement>")


def same_length(count: int) -> list[Example]:
    """Rows that stay in their order when they are batched by length."""
    return [Example(f"dev.tsv:{place}", {"text": "dull"}, "Positive") for place in range(count)]


@pytest.mark.parametrize("decode", ["greedy", "labels"])
def test_an_analysis_after_the_judgement_changes_nothing_before_it(policy: Policy, decode: str) -> None:
    """The judgement is the one that the same prompt gets when nothing follows."""
    explaining = judge_of(policy, **ANALYSED, **{"prompt.analysis": True, "evaluation.decode": decode})
    silent = judge_of(policy, **{"evaluation.decode": decode})
    silent.task.renderer = explaining.task.renderer
    for more, less in zip(
        explaining.judge(rows(6), probabilities=True), silent.judge(rows(6), probabilities=True), strict=True
    ):
        assert more.value == less.value
        assert more.probabilities == less.probabilities
        assert more.text.startswith(re.split(r"[\r\n]|</Judgement>", less.text)[0])


@torch.no_grad()
def test_labels_are_scored_after_the_analysis(policy: Policy) -> None:
    """Against plain forwards over prompt, greedy analysis, opened judgement and each label."""
    judge = judge_of(policy, **ANALYSED, **{"prompt.analysis": "before", "evaluation.decode": "labels"})
    for example, prediction in zip(rows(4), judge.judge(rows(4)), strict=True):
        prompt = torch.tensor([judge.task.renderer.prompt(example).ids])
        written = policy.lm.generate(
            prompt, attention_mask=torch.ones_like(prompt), do_sample=False, max_new_tokens=5, pad_token_id=0
        )
        analysis = [token for token in written[0, prompt.shape[1] :].tolist() if token not in policy.end_ids]
        tags = policy.tokenizer("</Analysis>\n<Judgement>", add_special_tokens=False).input_ids
        given = [*prompt[0].tolist(), *analysis, *tags]
        logps = []
        for label in judge.task.end.label_ids(judge.task.spec):
            logp = policy.lm(input_ids=torch.tensor([[*given, *label]])).logits[0].float().log_softmax(-1)
            logps.append(sum(logp[len(given) - 1 + place, token].item() for place, token in enumerate(label)))
        shares = torch.tensor(logps).softmax(0).tolist()
        assert list(prediction.probabilities.values()) == pytest.approx(shares, abs=1e-4)
        assert prediction.text.endswith(f"</Analysis>\n<Judgement>{prediction.value}")
