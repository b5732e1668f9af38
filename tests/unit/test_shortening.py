"""Where a text that is too long is cut: at its end, its start, or in its middle."""

from __future__ import annotations

import random
import time
from pathlib import Path
from typing import Any

import pytest
from specs import label_task
from transformers import AutoTokenizer

from adjudge.config import PromptConfig
from adjudge.prompts.render import Renderer
from adjudge.types import Example

PLACES = ("end", "start", "middle")
SPEC = label_task("Negative", "Positive", template="Review: {{ text }}", instruction="Judge the film.")


@pytest.fixture(scope="module")
def tokenizer(tiny_llama: Path) -> Any:
    return AutoTokenizer.from_pretrained(tiny_llama)


def shown(tokenizer: Any, text: str, place: str, most: int) -> tuple[str, int]:
    """Return what a prompt shows of a text, and its number of tokens."""
    config = PromptConfig(max_tokens=most, truncation=place)
    prompt = Renderer(tokenizer, SPEC, config).prompt(Example("t:0", {"text": text}))
    assert prompt.shortened
    decoded = tokenizer.decode(list(prompt.ids), clean_up_tokenization_spaces=False)
    return decoded.split("Review: ")[1].split("\nJudgement:")[0], len(prompt.ids)


@pytest.mark.parametrize("length", [60, 20_000])  # the second is cut before it is tokenised
def test_what_is_left_is_the_beginning_the_end_or_both(tokenizer: Any, length: int) -> None:
    text = " ".join(f"w{number}" for number in range(length))
    kept = {place: shown(tokenizer, text, place, 140) for place in PLACES}
    assert all(132 <= tokens <= 140 for _, tokens in kept.values())
    assert text.startswith(kept["end"][0]) and text.endswith(kept["start"][0])
    first, gap, last = kept["middle"][0].partition(" … ")
    assert gap and text.startswith(first) and text.endswith(last)
    assert 0.3 < len(tokenizer(first).input_ids) / len(tokenizer(kept["end"][0]).input_ids) < 0.6
    assert abs(len(tokenizer(first).input_ids) - len(tokenizer(last).input_ids)) <= 6


@pytest.mark.parametrize("place", PLACES)
def test_every_length_fits_and_no_character_is_split(tokenizer: Any, place: str) -> None:
    drawn = random.Random(0)
    words = ["é🙂ß", "<|im_end|>", "a", "film", "…", " … ", "\u202e", "</Judgement>", "\n", "日本語"]
    for most in range(108, 128):
        text = "".join(drawn.choice(words) + drawn.choice(["", " "]) for _ in range(200))
        left, tokens = shown(tokenizer, text, place, most)
        assert tokens <= most and "\ufffd" not in left and len(left) < len(text.strip())


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("text", ["x" * 300_000, "🙂" * 100_000])
def test_a_text_of_any_length_is_cut_fast(tokenizer: Any, place: str, text: str) -> None:
    began = time.process_time()
    _, tokens = shown(tokenizer, text, place, 400)
    assert 385 <= tokens <= 400 and time.process_time() - began < 20


def test_demonstrations_are_cut_at_the_same_place(tokenizer: Any) -> None:
    example = Example("t:1", {"text": " ".join(f"w{number}" for number in range(300))}, "Positive")
    config = PromptConfig(truncation="start", demonstration_tokens=20)
    text = Renderer(tokenizer, SPEC, config, [example]).text(Example("t:2", {"text": "short"}))
    assert "w299\nJudgement" in text and "w0 " not in text
