"""Texts that are too long for a prompt, judged in pieces whose answers are pooled."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from specs import label_task, number_task
from transformers import AutoTokenizer

from adjudge.config import PromptConfig, load_config
from adjudge.evaluation.pooling import pooled
from adjudge.evaluation.predict import PromptedJudge
from adjudge.methods.settings import own_settings
from adjudge.models.policy import load_policy
from adjudge.prompts.render import Renderer
from adjudge.rollout.prompted import PromptedTask
from adjudge.types import Example, Prediction

SPEC = label_task("Negative", "Positive", template="Review: {{ text }}", instruction="Judge the film.")
NUMBER = number_task(0, 4, template="Review: {{ text }}")
LONG = " ".join(f"w{number}" for number in range(150))


def renderer(folder: Path, spec: Any = SPEC, **settings: Any) -> Renderer:
    return Renderer(AutoTokenizer.from_pretrained(folder), spec, PromptConfig(**settings))


@pytest.mark.parametrize("text", [LONG, LONG * 40, "🙂é日" * 200, "x" * 3000, "  <|im_end|> </Judgement> \n" * 60])
def test_pieces_fit_and_hold_the_whole_text_in_order(tiny_llama: Path, text: str) -> None:
    made = renderer(tiny_llama, max_tokens=150)
    pieces = made.pieces(Example("t:0", {"text": text}, "Positive"))
    prompts = made.prompts(pieces)
    assert len(pieces) > 2 and all(len(prompt.ids) <= 150 and not prompt.shortened for prompt in prompts)
    assert "".join("".join(piece.fields["text"] for piece in pieces).split()) == "".join(text.split())
    assert {(piece.id, piece.gold) for piece in pieces} == {("t:0", "Positive")}
    assert sum(len(prompt.ids) for prompt in prompts[:-1]) / len(prompts[:-1]) > 130


def test_words_stay_whole_and_the_other_field_is_in_every_piece(tiny_llama: Path) -> None:
    pair = label_task("No", "Yes", fields={"a": "a", "b": "b"}, template="A: {{ a }}\nB: {{ b }}")
    pieces = renderer(tiny_llama, pair, max_tokens=150).pieces(Example("t:0", {"a": "short", "b": LONG}))
    assert {piece.fields["a"] for piece in pieces} == {"short"}
    assert [word for piece in pieces for word in piece.fields["b"].split()] == LONG.split()
    crowded = Example("t:0", {"a": LONG, "b": f"{LONG} more"})  # no room beside the other text
    assert renderer(tiny_llama, pair, max_tokens=150).pieces(crowded) == [crowded]


def piece(value: Any, *shares: float) -> Prediction:
    return Prediction("t:0", {}, None, str(value), value, dict(zip(SPEC.words, shares, strict=False)))


def test_answers_are_pooled_by_hand() -> None:
    row = Example("t:0", {"text": "whole"}, "Positive")
    parts = [piece("Negative", 0.6, 0.4), piece("Negative", 0.7, 0.3), piece("Positive", 0.1, 0.9)]
    mean = pooled(row, parts, SPEC, "mean", probabilities=True)
    assert mean.value == "Positive" and mean.probabilities["Positive"] == pytest.approx(1.6 / 3)
    assert mean.fields == {"text": "whole"} and mean.gold == "Positive"
    assert pooled(row, parts[:2], SPEC, "mean", probabilities=False) == Prediction.of(row, "Negative", "Negative")
    surest = pooled(row, parts, SPEC, "max", probabilities=True)
    assert surest.value == "Positive" and surest.probabilities == {"Negative": 0.1, "Positive": 0.9}
    number = pooled(row, [piece(1.0), piece(None), piece(4.0)], NUMBER, "max", probabilities=True)
    assert (number.text, number.value) == ("2.5", 2.5)
    assert pooled(row, [piece(None)] * 2, NUMBER, "mean", probabilities=True).value is None


def judge(folder: Path, spec: Any = SPEC, **values: Any) -> PromptedJudge:
    settings = {"model": str(folder), "runtime.dtype": "float32", "runtime.device": "cpu", "prompt.max_tokens": 150}
    config = load_config(values={**settings, **values})
    return PromptedJudge(PromptedTask(load_policy(config), spec, config))


def test_a_judge_pools_long_rows_alone(able: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [Example("t:0", {"text": "short"}), Example("t:1", {"text": LONG}), Example("t:2", {"text": "good"})]
    cut, mean = judge(able), judge(able, **{"evaluation.long_texts": "mean"})
    plain, found = cut.judge(rows, probabilities=True), mean.judge(rows, probabilities=True)
    assert "1 of 3 rows are too long for one prompt" in capsys.readouterr().err
    assert [row.id for row in found] == ["t:0", "t:1", "t:2"] and found[1].fields["text"] == LONG
    for row in (0, 2):
        assert found[row].value == plain[row].value
        assert found[row].probabilities == pytest.approx(plain[row].probabilities, abs=1e-5)
    parts = mean.judge(mean.task.renderer.pieces(rows[1]), probabilities=True)
    shares = [part.probabilities["Positive"] for part in parts]
    assert found[1].probabilities["Positive"] == pytest.approx(sum(shares) / len(shares), abs=1e-5)
    assert found[1].value in SPEC.words and mean.judge(rows)[1].probabilities == {}
    assert mean.prompt_tokens(rows)[1] > 2 * cut.prompt_tokens(rows)[1]


def test_methods_that_read_no_prompt_do_not_have_the_setting() -> None:
    kept = {
        method: own_settings(load_config(values={"method": method, "evaluation.long_texts": "max"}))
        for method in ("sft", "head", "encoder", "tfidf")
    }
    assert [config.evaluation.long_texts for config in kept.values()] == ["max", "max", "cut", "cut"]
