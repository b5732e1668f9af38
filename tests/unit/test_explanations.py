"""Explanations of worked examples: their files, their place in a prompt, what a writer is asked, and the controls."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from conftest import make_tokenizer
from policies import Scripted
from specs import label_task, number_task

from adjudge.config import PromptConfig, load_config
from adjudge.errors import AdjudgeError, ConfigError, DataError
from adjudge.evaluation.predict import PromptedJudge
from adjudge.methods.for_tasks import settled
from adjudge.methods.settings import check_settings, own_settings
from adjudge.prompts.demonstrations import choose_demonstrations
from adjudge.prompts.explanations import (
    controlled,
    explained_examples,
    explanation_turns,
    has_examples,
    read_explanation,
)
from adjudge.prompts.messages import prompt_messages
from adjudge.prompts.render import Renderer
from adjudge.rollout.prompted import PromptedTask
from adjudge.tasks import list_tasks, load_task
from adjudge.types import Example, Explained

FILMS = label_task("bad", "good", instruction="Judge the film: bad or good.")
ROW = Example("1", {"text": "A fine film."})
SHOWN = [
    Explained("2", {"text": "dull"}, "bad", explanation="Dull is no praise."),
    Explained("3", {"text": "warm"}, "good", explanation="Warm is praise."),
]
FORM = (
    "First explain your reasoning in one or two sentences, between <Analysis> and </Analysis>. "
    "Then give the answer as <Judgement>bad</Judgement> or <Judgement>good</Judgement>."
)
BEFORE = PromptConfig(analysis="before")


def test_an_explained_example_is_one_turn_with_both_parts_of_the_form() -> None:
    def turn(role: str, content: str) -> str:
        return f"<|im_start|>{role}\n{content}<|im_end|>\n"

    by_hand = "".join(
        (
            turn("system", f"Judge the film: bad or good.\n{FORM}"),
            turn("user", "dull\nAnalysis:"),
            turn("assistant", "<Analysis>Dull is no praise.</Analysis>\n<Judgement>bad</Judgement>"),
            turn("user", "warm\nAnalysis:"),
            turn("assistant", "<Analysis>Warm is praise.</Analysis>\n<Judgement>good</Judgement>"),
            turn("user", "A fine film.\nAnalysis:"),
            "<|im_start|>assistant\n<Analysis>",
        )
    )
    tokenizer = make_tokenizer()
    renderer = Renderer(tokenizer, FILMS, BEFORE, SHOWN)
    assert renderer.text(ROW) == by_hand
    assert list(renderer.prompt(ROW).ids) == tokenizer(by_hand, add_special_tokens=False).input_ids
    messages = prompt_messages(ROW, FILMS, BEFORE, SHOWN)
    assert by_hand == "".join(turn(each["role"], each["content"]) for each in messages) + (
        "<|im_start|>assistant\n<Analysis>"
    )


def test_an_empty_explanation_leaves_its_place_and_nothing_else_differs() -> None:
    tokenizer = make_tokenizer()
    emptied = controlled(SHOWN, PromptConfig(explanation_control="empty"))
    text = Renderer(tokenizer, FILMS, BEFORE, SHOWN).text(ROW)
    for row in SHOWN:
        text = text.replace(row.explanation, "")
    assert Renderer(tokenizer, FILMS, BEFORE, emptied).text(ROW) == text
    assert text.count("<Analysis></Analysis>\n<Judgement>") == 2


def test_the_control_gives_each_example_the_explanation_of_the_next() -> None:
    rows = [replace(SHOWN[0], id=str(number), explanation=f"r{number}") for number in range(3)]
    shown = controlled(rows, PromptConfig(explanation_control="another"))
    assert [(row.id, row.explanation) for row in shown] == [("0", "r1"), ("1", "r2"), ("2", "r0")]
    assert controlled(rows, PromptConfig()) == rows
    assert controlled([], PromptConfig(explanation_control="another")) == []


@pytest.mark.parametrize("reason", ["It is warm.", "", "It is bad, bad, bad.", "Said at once. <Judgement>bad"])
def test_the_answer_alone_is_read_whatever_the_explanation_says(reason: str) -> None:
    policy = Scripted(make_tokenizer(), [f"{reason}</Analysis>"], ["good</Judgement>"])
    config = own_settings(load_config(values={"method": "nle", "prompt.prior": "none"}))
    task = PromptedTask(policy, FILMS, config, SHOWN)  # type: ignore[arg-type]
    (prediction,) = PromptedJudge(task).judge([ROW])
    assert prediction.value == "good"
    assert prediction.text.startswith(f"{reason}</Analysis>\n<Judgement>good")


def test_a_writer_sees_the_row_its_answer_and_the_examples_before_it() -> None:
    alone = explanation_turns(Example("9", {"text": "slow \ud800"}, "bad"), FILMS, [])
    assert [turn["role"] for turn in alone] == ["user"]
    for part in ("Judge the film: bad or good.", "slow \ufffd", "The right answer is: bad"):
        assert part in alone[0]["content"]
    after = explanation_turns(Example("9", {"text": "slow"}, "bad"), FILMS, SHOWN)
    assert [turn["role"] for turn in after] == ["user", "assistant", "user", "assistant", "user"]
    assert [turn["content"] for turn in after[1::2]] == ["Dull is no praise.", "Warm is praise."]
    assert len(explanation_turns(Example("9", {"text": "x" * 10**5}, "bad"), FILMS, [])[0]["content"]) < 2000
    with pytest.raises(DataError, match="9: has no gold answer to explain"):
        explanation_turns(Example("9", {"text": "slow"}), FILMS, [])


@pytest.mark.parametrize(
    ("text", "cut", "read"),
    [
        ("It is\n dull.", False, "It is dull."),
        ("<Analysis>It is dull.</Analysis>\n<Judgement>bad</Judgement>", False, "It is dull."),
        ("It is dull. It has no pl", True, "It is dull."),
        ("It is dull. It has no pl", False, "It is dull. It has no pl"),
        ("It costs 3.5 and no mo", True, "It costs 3.5 and no mo"),
        (' \n"Dull!" is no praise. And', True, '"Dull!" is no praise.'),
        ("<Judgement>bad", False, ""),
        ("", True, ""),
    ],
)
def test_what_a_writer_says_becomes_one_line(text: str, cut: bool, read: str) -> None:
    assert read_explanation(text, cut=cut) == read


@pytest.mark.parametrize("name", [name for name in list_tasks() if has_examples(load_task(name), PromptConfig())])
def test_the_examples_that_come_with_a_task_fit_it(name: str) -> None:
    spec = load_task(name)
    examples = explained_examples(spec, PromptConfig())
    assert len(examples) == len({row.id for row in examples}) == 8
    assert spec.is_number or {row.gold for row in examples} == set(spec.words)
    for row in examples:  # an explanation that names the answer would decide it
        assert not any(word in row.explanation.split() for word in spec.words)
    shown = choose_demonstrations([], spec, PromptConfig(explanations="file"))
    assert len(shown) == 5
    assert all(isinstance(row, Explained) for row in shown)


def test_the_adversarial_set_has_the_examples_of_rte() -> None:
    first, second = (explained_examples(load_task(f"superglue/{name}"), PromptConfig()) for name in ("rte", "axb"))
    assert first == second
    with pytest.raises(DataError, match=r"9 demonstrations were requested, but there are 8 explained examples. Lower"):
        choose_demonstrations([], load_task("glue/rte"), PromptConfig(explanations="file", demonstrations=9))


GOOD = "{texts: [warm], answer: good, explanation: Warm is praise.}"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("examples: []", "needs 'examples', a list"),
        ("rows: []", "needs 'examples'"),
        (f"examples: [{GOOD}]\nexample: 3", "'example' is not a key of it. Did you mean 'examples'"),
        ("examples: [{texts: [warm], answer: good}]", "example 1: must have texts, answer and explanation"),
        (f"examples: [{GOOD}, 3]", "example 2: must have"),
        ("examples: [{texts: warm, answer: good, explanation: r}]", "a list with the task's fields in order: text"),
        ("examples: [{texts: [a, b], answer: good, explanation: r}]", "in order: text"),
        ("examples: [{texts: [' '], answer: good, explanation: r}]", "the text for 'text' is empty"),
        ("examples: [{texts: [a], answer: goood, explanation: r}]", "'goood' is not an answer word.*'good'"),
        ("examples: [{texts: [a], answer: [good], explanation: r}]", "is not an answer word"),
        ("examples: [{texts: [a], answer: good, explanation: ' '}]", "'explanation' is empty"),
        ("examples: [{texts: [a], answer: good, explanation: 'a </Analysis> b'}]", "has </Analysis>, which ends"),
        ("- 1", "must be a mapping"),
        ("a: *b", "not valid YAML"),
    ],
)
def test_mistakes_of_a_file_are_named(content: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "why.yaml"
    path.write_text(content)
    with pytest.raises(AdjudgeError, match=message) as caught:
        explained_examples(FILMS, PromptConfig(explanations_file=str(path)))
    assert "why.yaml" in str(caught.value)


def test_a_file_of_ones_own_is_read_in_the_order_of_the_fields(tmp_path: Path) -> None:
    path = tmp_path / "why.yaml"
    path.write_text(f'examples:\n- {GOOD}\n- {{texts: [<|im_end|>], answer: bad, explanation: "a\\n b"}}\n')
    examples = explained_examples(FILMS, PromptConfig(explanations_file=str(path)))
    assert [(row.id, row.fields["text"], row.gold, row.explanation) for row in examples] == [
        ("why.yaml:1", "warm", "good", "Warm is praise."),
        ("why.yaml:2", "<|im_end|>", "bad", "a b"),
    ]
    numbers = path.with_name("numbers.yaml")
    numbers.write_text("examples: [{texts: [warm], answer: 5.5, explanation: r}]")
    with pytest.raises(DataError, match=r"the answer '5.5' is no number from 0 to 5"):
        explained_examples(number_task(0, 5), PromptConfig(explanations_file=str(numbers)))
    with pytest.raises(ConfigError, match=r"mine has no explained examples.*explanations_file=FILE.*zero-shot"):
        explained_examples(FILMS, PromptConfig())


def settings(*overrides: str, method: str = "nle"):
    config = load_config(overrides=[f"method={method}", *overrides])
    check_settings(config)
    return own_settings(settled(config, [FILMS]))


def test_settings_follow_the_task_and_the_method(tmp_path: Path) -> None:
    plain = settings()
    assert (plain.prompt.explanations, plain.prompt.analysis) == ("zero-shot", "before")  # it has no examples
    assert own_settings(
        settled(load_config(values={"method": "nle"}), [load_task("glue/rte")])
    ).prompt.explanations == ("few-shot")
    assert settings("prompt.demonstration_orders=4").prompt.demonstration_orders == 1
    assert settings("prompt.explanations=none", "writer.model=api:x") == settings("prompt.explanations=none")
    assert settings("prompt.explanations=file", "writer.model=api:x").writer.model is None
    assert settings("writer.model=api:x", "writer.temperature=0.5") == settings("writer.model=api:x") != plain
    few_shot = settings(method="few-shot")
    assert settings("prompt.explanations=file", "prompt.explanation_control=empty", method="few-shot") == few_shot
    assert few_shot.prompt.analysis is False


def test_a_file_is_known_by_its_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("why.yaml").write_text(f"examples: [{GOOD}]")
    first = settings("prompt.explanations_file=why.yaml")
    assert first.prompt.explanations == "few-shot"
    assert first.prompt.explanations_file == str(tmp_path / "why.yaml")
    Path("why.yaml").write_text(f"examples: [{GOOD}, {GOOD}]")
    assert settings("prompt.explanations_file=why.yaml") != first
    with pytest.raises(ConfigError, match="is not the file that the run was made with"):
        settled(first, [FILMS])
    with pytest.raises(ConfigError, match="there is no such file"):
        settings("prompt.explanations_file=other.yaml")


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["prompt.analysis=true"], "nle shows explanations before the answers"),
        (["prompt.explanations=none", "prompt.analysis=before"], "nle cannot go with prompt.analysis=before"),
        (["prompt.explanation_control=another", "prompt.demonstrations=1"], "there is one alone"),
    ],
)
def test_what_does_not_fit_is_refused(overrides: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        settings(*overrides)
