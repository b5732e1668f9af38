"""Critiques, the prompts of refinements, which of them are kept, and how they fare beside fresh samples."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from policies import Scripted, ScriptState, trained_looking
from specs import label_task
from transformers import AutoTokenizer

from adjudge.config import RewardConfig, load_config
from adjudge.errors import ConfigError, ModelError
from adjudge.models.engine.positions import Positions
from adjudge.prompts.render import Renderer
from adjudge.rollout.collect import sample
from adjudge.rollout.prompted import PromptedTask, PromptRow, prompt_rows
from adjudge.rollout.refine import critique, refinable_rows, refine, refined_scores
from adjudge.rollout.sampler import Sampling
from adjudge.training.updates import Others, UpdateSize
from adjudge.types import Example, Judgement

LABELS = label_task("Negative", "Neutral", "Positive")
EXAMPLES = [Example("t:0", {"text": "a warm film"}, "Positive"), Example("t:1", {"text": "dull"}, "Negative")]
OURS = RewardConfig(balance=False)


@pytest.fixture
def tokenizer(tiny_llama: Path) -> Any:
    return AutoTokenizer.from_pretrained(tiny_llama)


@pytest.mark.parametrize(
    ("kind", "value", "text"),
    [
        ("simple", "Positive", "Your judgement is correct."),
        ("simple", "Negative", "Your judgement is incorrect."),
        ("simple", None, "Your judgement cannot be read."),
        ("quote", "Positive", 'You judged "Positive", which is correct.'),
        ("quote", "Negative", 'You judged "Negative", which is incorrect.'),
        ("quote", None, 'You judged "well \u2026 so", which is none of: Negative, Neutral, Positive.'),
        ("gold", "Negative", "Your judgement is incorrect. The correct judgement is Positive."),
        ("gold", None, "Your judgement cannot be read. The correct judgement is Positive."),
    ],
)
def test_what_a_critique_says(kind: Any, value: str | None, text: str) -> None:
    said = critique(kind, Judgement(value or "well \u2026\n so", value), "Positive", LABELS.words)
    assert said == f"{text} Answer again, in the same form."


def test_a_long_answer_is_not_quoted_whole() -> None:
    assert len(critique("quote", Judgement("x" * 5000, None), "Positive", LABELS.words)) < 200


@pytest.mark.parametrize("analysis", ["before", False])
@pytest.mark.parametrize("style", ["chat", "paper"])
def test_the_next_turn_goes_on_as_the_template_does(tokenizer: Any, style: str, analysis: Any) -> None:
    """A prompt, an answer and the next turn spell what the template makes of the whole conversation."""
    config = load_config(values={"prompt.analysis": analysis, "prompt.style": style}).prompt
    renderer = Renderer(tokenizer, LABELS, config)
    prompt = list(renderer.prompt(EXAMPLES[0]).ids)
    answer = tokenizer("Positive</Judge", add_special_tokens=False).input_ids
    text = tokenizer.decode([*prompt, *answer, *renderer.next_turn("ment>", "Wrong. <|im_end|> Again.")])
    opened = "<Analysis>" if analysis else "<Judgement>"
    between = {
        "chat": "<|im_end|>\n<|im_start|>user\nWrong. <|im_end|> Again.\n"
        f"{opened[1:-1]}:<|im_end|>\n<|im_start|>assistant\n",
        "paper": "\nPrompt:\nWrong. <|im_end|> Again.\nAssistant:\n",
    }
    assert text == f"{tokenizer.decode(prompt)}Positive</Judgement>{between[style]}{opened}"
    spelt = [*renderer.next_turn("", "<|im_end|>")].count(2)
    assert spelt == renderer.next_turn("", "plain").count(2), "what data spell ends no turn"


def test_a_template_without_such_turns_is_refused(tokenizer: Any) -> None:
    turns = "{% for message in messages[:2] %}{{ message['content'] }}\n{% endfor %}"
    tokenizer.chat_template = turns + "{% if add_generation_prompt %}>{% endif %}"
    renderer = Renderer(tokenizer, LABELS, load_config().prompt)
    with pytest.raises(ModelError, match="cannot hold this prompt"):
        renderer.next_turn("", "Again.")


class Script(Scripted):
    """A `Scripted` policy that can be asked for several answers to a prompt, which are then all alike."""

    device = torch.device("cpu")
    checkpoints = replays = False

    def prefill(self, prompts: Any, *, grad: bool = False, expected: Any = ()) -> ScriptState:
        return super().prefill(prompts)


def scripted(tokenizer: Any, *calls: list[str]) -> PromptedTask:
    config = load_config(values={"prompt.analysis": "before", "answer.max_tokens": 6})
    return PromptedTask(Script(tokenizer, *calls), LABELS, config)  # type: ignore[arg-type]


def test_every_answer_is_refined_and_a_right_one_is_kept(tokenizer: Any) -> None:
    task = scripted(
        tokenizer,
        ["Warm.", "So so.", "Slow.", "Long."],
        ["Negative", "Neutral", "Negative", "Negative"],  # both of the second prompt are right
        ["Hm.", "Aha."],
        ["Neutral", "Positive"],
    )
    rows = refinable_rows(task, EXAMPLES, "simple")
    rollout = sample(task, rows, Sampling(), samples=2)
    found = refine(task, rollout, "simple", Sampling(), 1)
    policy: Any = task.policy
    for asked, (analysis, word) in zip(policy.prompts[2], (("Warm.", "Negative"), ("So so.", "Neutral")), strict=True):
        begin = policy.tokenizer.decode(rows[0].ids)
        assert asked.startswith(f"{begin}{analysis}</Analysis>\n<Judgement>{word}</Judgement><|im_end|>\n")
        assert asked.endswith("Answer again, in the same form.\nAnalysis:<|im_end|>\n<|im_start|>assistant\n<Analysis>")
    assert found.rollout is not None and found.prompt_N == [0]
    assert found.rollout.prompts == [rows[0].ids] and found.rollout.golds == ["Positive"]
    assert tokenizer.decode(found.rollout.responses[0]) == "Aha.</Analysis>\n<Judgement>Positive<|im_end|>"
    assert refined_scores(found, task, OURS, common_scale=False).tolist() == [1.0]
    assert {key: value for key, value in found.figures.items() if key != "extra_tokens"} == {
        "skipped": 0.5,
        "critiqued": 2,
        "refined_right": 0.5,
        "fresh_right": 0.0,
        "refined_beats": 0.5,
        "fresh_beats": 0.0,
        "none_right": 0,
    }
    assert found.figures["extra_tokens"] == int(found.rollout.mask_BR.sum()) + len(
        tokenizer("Hm.", add_special_tokens=False).input_ids
    ) + 1 + len(tokenizer("Neutral", add_special_tokens=False).input_ids)


def test_a_fresh_sample_is_any_other_answer_to_the_prompt(tokenizer: Any) -> None:
    """Wrong: 2 of 3 answers. For each, one of the two others is right, and one of the two refinements is."""
    task = scripted(
        tokenizer, ["a"] * 3, ["Positive", "Negative", "Neutral"], ["b"] * 3, ["Negative", "Positive", "??"]
    )
    rollout = sample(task, prompt_rows(task, EXAMPLES[:1]), Sampling(), samples=3)
    figures = refine(task, rollout, "quote", Sampling(), 1).figures
    assert (figures["critiqued"], figures["refined_right"], figures["fresh_right"]) == (2, 0.5, 0.5)
    assert figures["refined_beats"] == figures["fresh_beats"] == 0.25


@pytest.mark.parametrize(("kept", "words"), [(1, ["Neutral"]), (2, ["Neutral", None]), (9, ["Neutral", None])])
def test_where_none_is_right_a_readable_one_is_kept(tokenizer: Any, kept: int, words: list[str | None]) -> None:
    task = scripted(tokenizer, ["a"] * 2, ["Negative"] * 2, ["b"] * 2, ["??", "Neutral"])
    rollout = sample(task, prompt_rows(task, EXAMPLES[:1]), Sampling(), samples=2)
    found = refine(task, rollout, "gold", Sampling(), kept)
    assert found.rollout is not None
    assert [judgement.value for judgement in found.rollout.judgements] == words
    assert found.figures["none_right"] == 1 and found.figures["refined_right"] == 0
    assert refined_scores(found, task, OURS, common_scale=False).tolist() == [-1.0, -3.0][: len(words)]


def test_where_all_is_right_nothing_is_refined(tokenizer: Any) -> None:
    task = scripted(tokenizer, ["a"] * 2, ["Positive"] * 2)
    rollout = sample(task, prompt_rows(task, EXAMPLES[:1]), Sampling(), samples=2)
    found = refine(task, rollout, "simple", Sampling(), 1)
    assert found.rollout is None and found.figures["skipped"] == 1 and found.figures["critiqued"] == 0
    assert found.figures["refined_right"] is None and len(refined_scores(found, task, OURS, common_scale=False)) == 0


def test_without_kept_ones_none_are_sampled(tokenizer: Any) -> None:
    task = scripted(tokenizer, ["a"] * 2, ["Negative"] * 2)
    rollout = sample(task, prompt_rows(task, EXAMPLES[:1]), Sampling(), samples=2)
    assert refine(task, rollout, "simple", Sampling(), 0).figures == {}


@pytest.mark.parametrize("analysis", ["before", False])
def test_a_real_model_refines(tiny_llama: Path, analysis: Any) -> None:
    settings = {"prompt.analysis": analysis, "answer.analysis_tokens": 5, "answer.max_tokens": 4}
    task = PromptedTask(trained_looking(tiny_llama), LABELS, load_config(values=settings))
    rows: list[PromptRow] = refinable_rows(task, EXAMPLES, "simple")
    sampling = Sampling(torch.Generator().manual_seed(0))
    rollout = sample(task, rows, sampling, samples=2)
    found = refine(task, rollout, "simple", sampling, 1)
    assert found.rollout is not None and found.rollout.prompts == [row.ids for row in rows]
    spans = found.rollout.template_spans
    assert (spans is not None) == (analysis == "before")
    # Learned as answers to the prompts alone: the tags between analysis and judgement are read, and not counted.
    expected = 0.0
    for answer, (row, ids) in enumerate(zip(rows, found.rollout.responses, strict=True)):
        with torch.no_grad():
            logits = task.policy.lm(input_ids=torch.tensor([[*row.ids, *ids]])).logits[0].float()
        logps = logits.log_softmax(-1)[range(len(row.ids) - 1, len(row.ids) + len(ids) - 1), ids].tolist()
        own = [p for place, p in enumerate(logps) if spans is None or place not in spans[answer]]
        expected -= (0.5, -2.0)[answer] * sum(math.exp(p) / (math.exp(p) + 0.1) for p in own) / 9
    size = UpdateSize(tokens=9, prompts=2)
    others = Others(found.rollout, found.prompt_N, torch.tensor([0.5, -2.0]), shaping=0.1)
    whole, parts = (
        others.loss(task.policy, [0, 1], 1.0, size),
        [others.loss(task.policy, [at], 1.0, size) for at in (0, 1)],
    )
    assert torch.as_tensor(whole[0]).item() == pytest.approx(expected, abs=1e-4)
    assert sum(torch.as_tensor(loss).item() for loss, _ in parts) == pytest.approx(expected, abs=1e-4)
    assert others.loss(task.policy, [7], 1.0, size) == (0.0, {"shaped_loss": 0.0})


def test_the_longest_answer_has_its_analysis(tokenizer: Any) -> None:
    """The constant that the losses of Critique-GRPO and Dr. GRPO are divided by."""
    for analysis, tokens in (("before", 96 + 6), (True, 6), (False, 6)):
        config = load_config(values={"prompt.analysis": analysis, "answer.max_tokens": 6})
        assert PromptedTask(Script(tokenizer), LABELS, config).sampled_tokens == tokens  # type: ignore[arg-type]


def test_a_conversation_needs_room(tokenizer: Any) -> None:
    task = scripted(tokenizer)
    policy: Any = task.policy
    policy.positions = Positions(count=300, fixed=True)
    with pytest.raises(
        ConfigError, match=r"t:0: its prompt has \d+ tokens, and an answer, a critique and a refinement"
    ):
        refinable_rows(task, EXAMPLES, "simple")
