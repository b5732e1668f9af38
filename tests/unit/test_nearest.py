"""Nearest demonstrations: by hand-made vectors, never the row itself, and kept with the run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from running import load_one, train_one
from specs import label_task, number_task
from transformers import AutoTokenizer

from adjudge.config import PromptConfig, RuntimeConfig, load_config
from adjudge.errors import ConfigError, DataError, RunError
from adjudge.methods.prompting import showing
from adjudge.methods.settings import check_settings, own_settings
from adjudge.models.encoder import load_encoder
from adjudge.prompts.demonstrations import choose_demonstrations
from adjudge.prompts.nearest import NearestRenderer, Neighbours, embedding
from adjudge.prompts.render import Renderer
from adjudge.runs.folder import Run
from adjudge.tasks.spec import TaskSpec
from adjudge.types import Example

SPEC = label_task("Negative", "Positive", template="Review: {{ text }}")
TEXTS = ("good film", "bad film", "the plot", "a very good plot", "bad bad plot", "very bad film", "Good  FILM")
ROWS = [Example(str(index), {"text": text}, SPEC.words[index % 2]) for index, text in enumerate(TEXTS)]
VECTORS = {"north": (0, 1), "east": (1, 0), "northeast": (0.6, 0.8), "south": (0, -1)}


def by_hand(count: int, *names: str) -> Neighbours:
    """Return a finder among rows whose vectors are written above."""
    rows = [Example(str(index), {"text": name}, "Positive") for index, name in enumerate(names)]
    return Neighbours(rows, embed(rows), embed, count)


def embed(rows: list[Example]) -> torch.Tensor:
    return torch.tensor([VECTORS[row.fields["text"].lower()] for row in rows], dtype=torch.float32)


def found(neighbours: Neighbours, *names: str) -> list[list[str]]:
    rows = neighbours.of([Example(f"dev:{name}", {"text": name}) for name in names])
    return [[row.id for row in each] for each in rows]


def test_the_nearest_is_shown_last() -> None:
    neighbours = by_hand(3, "south", "east", "north", "northeast")
    assert found(neighbours, "north", "east") == [["0", "1", "3"], ["2", "0", "3"]]


def test_no_row_is_shown_itself_and_no_text_twice() -> None:
    neighbours = by_hand(2, "north", "NORTH", "east", "East", "northeast")
    assert found(neighbours, "north") == [["2", "4"]]  # east's first row; both norths are the judged text
    assert found(neighbours, "south") == [["4", "2"]]


def test_the_pieces_of_a_row_have_its_neighbours(tiny_llama: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny_llama)
    long = Example("0", {"text": " ".join(f"word{number}" for number in range(400))}, "Positive")
    other = Example("1", {"text": "short"}, "Negative")

    def embed_any(rows: Sequence[Example]) -> torch.Tensor:
        return torch.tensor([[1.0, 0.0] if "word" in row.fields["text"] else [0.6, 0.8] for row in rows])

    neighbours = Neighbours([long, other], embed_any([long, other]), embed_any, 1)
    renderer = NearestRenderer(tokenizer, SPEC, PromptConfig(max_tokens=256), neighbours, [0])
    pieces = renderer.pieces(long)
    assert len(pieces) > 1
    for piece in pieces:
        assert "short" in renderer.text(piece) and "word399" not in renderer.text(piece).replace(
            piece.fields["text"], ""
        )


def test_equally_near_rows_come_in_their_order() -> None:
    neighbours = by_hand(1, "east", "EAST", "south")
    assert found(neighbours, "northeast") == [["0"]]


def test_no_demonstrations_and_no_rows() -> None:
    assert by_hand(0, "north").of([Example("0", {"text": "east"})]) == [[]]
    assert by_hand(1, "north").of([]) == []


def test_a_pair_of_texts_is_as_near_as_its_fields_on_average(tiny_bert: Path) -> None:
    pairs = label_task("Yes", "No", fields={"a": "a", "b": "b"}, template="{{ a }} {{ b }}")
    both = embedding(load_encoder(str(tiny_bert), RuntimeConfig(device="cpu"), 64, ()), pairs, 8)
    alone = embedding(load_encoder(str(tiny_bert), RuntimeConfig(device="cpu"), 64, ()), SPEC, 8)
    one, other = both([Example("0", {"a": "good film", "b": "plot"}), Example("1", {"a": "bad", "b": "plot"})])
    first, second = alone([Example("0", {"text": "good film"}), Example("1", {"text": "bad"})])
    assert one.norm().item() == pytest.approx(1, abs=1e-5)
    assert (one @ other).item() == pytest.approx(((first @ second).item() + 1) / 2, abs=1e-5)


@pytest.fixture
def build(tiny_llama: Path, tmp_path: Path, tiny_bert: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(showing, "ENCODER", str(tiny_bert))

    def built(*overrides: str, spec: TaskSpec = SPEC, rows: Sequence[Example] = ROWS) -> tuple[Run, Any]:
        plain = ["method=few-shot", f"model={tiny_llama}", "runtime.dtype=float32", "prompt.demonstrations=2"]
        config = own_settings(load_config(overrides=[*plain, "prompt.demonstration_choice=nearest", *overrides]))
        with Run.create(tmp_path / "run", config) as run:
            return run, train_one("few-shot", run, spec, rows)

    return built


def test_each_row_has_its_own_demonstrations(build: Any) -> None:
    run, judge = build("evaluation.batch_size=3")
    prompts = judge.task.renderer.prompts(ROWS)
    for row, prompt in zip(ROWS, prompts, strict=True):
        text = judge.task.renderer.text(row)
        assert text.count("Review: ") == 3
        assert text.casefold().count(f"review: {row.fields['text'].casefold()}\n") == 1
        assert prompt == judge.task.renderer.prompt(row)
    assert len({prompt.ids[:-20] for prompt in prompts}) > 1
    judged = judge.judge(ROWS, probabilities=True)
    again = load_one("few-shot", Run.open(run.folder), SPEC)
    assert again.judge(ROWS, probabilities=True) == judged
    for row, together in zip(ROWS, judged, strict=True):  # rows of one batch share less of their prompts
        (alone,) = again.judge([row], probabilities=True)
        assert alone.probabilities == pytest.approx(together.probabilities, abs=1e-5)


def test_prompts_are_those_of_fixed_demonstrations(build: Any) -> None:
    run, judge = build("prompt.demonstration_orders=2")
    (order, turned) = [task.renderer for task in judge.tasks]
    shown = [row for row in ROWS if f"Review: {row.fields['text']}\n" in order.text(ROWS[2]) and row is not ROWS[2]]
    assert len(shown) == 2
    prompts = {
        Renderer(judge.task.policy.tokenizer, SPEC, run.config.prompt, rows).prompt(ROWS[2])
        for rows in (shown, shown[::-1])
    }
    assert prompts == {order.prompt(ROWS[2]), turned.prompt(ROWS[2])}


def test_training_rows_give_a_prior_with_their_own_neighbours(build: Any) -> None:
    run, judge = build("prompt.prior=training-rows", "prompt.prior_rows=4")
    assert set(judge.task.prior) == set(SPEC.words)
    assert load_one("few-shot", run, SPEC).judge(ROWS) == judge.judge(ROWS)


def test_no_demonstrations_are_the_plain_prompt(build: Any) -> None:
    run, judge = build("prompt.demonstrations=0")
    plain = Renderer(judge.task.policy.tokenizer, SPEC, run.config.prompt)
    assert judge.task.renderer.prompts(ROWS) == plain.prompts(ROWS)
    assert load_one("few-shot", run, SPEC).judge(ROWS) == judge.judge(ROWS)


def test_numbers_may_have_near_demonstrations(build: Any) -> None:
    rows = [Example(row.id, row.fields, float(row.id)) for row in ROWS]
    run, judge = build(spec=number_task(0, 9, template="Review: {{ text }}"), rows=rows)
    assert judge.task.renderer.text(rows[0]).count("Review: ") == 3
    assert load_one("few-shot", run, judge.task.spec).judge(rows) == judge.judge(rows)


def test_without_its_vectors_a_run_is_refused(build: Any) -> None:
    run, _ = build()
    with pytest.raises(RunError, match="nearness to a row of theirs"):
        load_one("few-shot", run, label_task("No", "Yes", name="theirs", fields={"a": "a"}, template="{{ a }}"))
    (run.folder / "demonstrations.safetensors").unlink()
    with pytest.raises(RunError, match=r"demonstrations\.safetensors is missing"):
        load_one("few-shot", run, SPEC)


def test_too_few_rows_to_choose_among() -> None:
    config = PromptConfig(demonstrations=2, demonstration_choice="nearest")
    assert choose_demonstrations(ROWS, SPEC, config) == ROWS
    same = [ROWS[0], ROWS[6], ROWS[1]]  # two of one text
    with pytest.raises(DataError, match=r"the 2 nearest .* are 2 labelled training rows of different text"):
        choose_demonstrations(same, SPEC, config)


def test_content_free_inputs_have_no_neighbours() -> None:
    with pytest.raises(ConfigError, match=r"content-free.*Use prompt\.prior=training-rows"):
        check_settings(
            load_config(
                overrides=["method=few-shot", "prompt.demonstration_choice=nearest", "prompt.prior=content-free"]
            )
        )
