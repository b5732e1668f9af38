"""Steps before a judgement: what is asked, what is carried on, what cannot be read, and what stands below the row."""

from __future__ import annotations

import pytest
from conftest import make_tokenizer
from policies import Scripted
from specs import label_task

from adjudge.config import PromptConfig, load_config
from adjudge.errors import ConfigError
from adjudge.evaluation.predict import PromptedJudge
from adjudge.evaluation.stepwise import StepwiseJudge
from adjudge.methods.for_tasks import settled
from adjudge.methods.settings import check_settings, forms_apart, own_settings
from adjudge.prompts.render import Renderer
from adjudge.prompts.steps import Lines, Questions, read_values, steps_of, with_notes
from adjudge.rollout.prompted import PromptedTask
from adjudge.rollout.writer import LocalSource, Writer
from adjudge.tasks import list_tasks, load_task
from adjudge.types import Example

EXEC = load_task("code/exec")
ROW = Example("1", {"program": "x = 2\n\ny = x * 3\nprint(y > 5)"}, "True")
FILMS = label_task("bad", "good", instruction="Judge the film: bad or good.", template="Film: {{ text }}")
ASKED = ["What is praised?", "What is criticised?"]


def judge_of(policy, spec=EXEC, lines="program", steps=None) -> StepwiseJudge:
    config = load_config(values={"method": "iip"})
    noted, name = with_notes(spec)
    final = PromptedJudge(PromptedTask(policy, noted, config))
    writer = Writer(LocalSource(policy, config.prompt), None)
    return StepwiseJudge(writer, steps_of(spec, lines, steps), final, name, config, 32, policy)


def carried(*answers: str):
    steps = Lines("program")
    progress = steps.begin(ROW)
    for answer in answers:
        steps.take(progress, answer)
    return progress, steps


def test_a_program_is_run_line_by_line_and_judged_at_the_end() -> None:
    policy = Scripted(make_tokenizer(), ["x = 2"], ["y = 6"], ["output = True"], ["True"])
    judge = judge_of(policy)
    (prediction,) = judge.judge([ROW])
    assert (prediction.value, prediction.fields, prediction.gold) == ("True", ROW.fields, "True")
    first, second, third, last = (prompts[0] for prompts in policy.prompts)
    assert "Lines so far:\n(nothing)\nValues so far: none\nNext line: x = 2<" in first
    assert "Lines so far:\nx = 2\nValues so far: x = 2\nNext line: y = x * 3<" in second
    assert "Lines so far:\nx = 2\ny = x * 3\nValues so far: x = 2, y = 6\nNext line: print(y > 5)<" in third
    assert "print(y > 5)\nValues after the last line: x = 2, y = 6, output = True\nJudgement:<" in last
    assert last.endswith("<Judgement>")
    assert judge.spent["calls"] == 4
    assert judge.spent["unread_steps"] == 0


def test_a_wrong_value_is_carried_on() -> None:
    progress, steps = carried("x = 2", "y = 5", "output = False")
    assert progress.carried == {"x": "2", "y": "5", "output": "False"}
    assert steps.notes(progress) == "Values after the last line: x = 2, y = 5, output = False"


def test_a_step_that_cannot_be_read_changes_nothing_and_is_counted() -> None:
    progress, steps = carried("x = 2", "y is 6", "x = 3")
    assert (progress.carried, progress.unread, progress.done) == ({"x": "3"}, 1, 3)
    steps = Lines("program")
    progress = steps.begin(ROW)
    for _ in range(3):
        steps.take(progress, None)
    assert (progress.carried, progress.unread, steps.notes(progress)) == ({}, 3, "")


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("x = 2", {"x": "2"}),
        ("x=-2\n\ny = 6.", {"x": "-2", "y": "6"}),
        (" x = 2, y = 6 ", {"x": "2", "y": "6"}),
        ("x = 2\nx = 3", {"x": "3"}),
        ("output = True", {"output": "True"}),
        ("The value is x = 2", None),
        ("x = 2\nBecause.", None),
        ("z = 2", None),  # no name of the lines so far
        ("x = 2.5", None),
        ("x = y", None),
        ("x == 2", None),
        ("x = " + "9" * 30, None),
        ("x = ٣", None),
        ("", None),
        ("\n", None),
        ("`x = 2`", None),
        (", ".join(["x = 1"] * 17), None),
    ],
)
def test_values_are_read_strictly(text: str, values: dict[str, str] | None) -> None:
    assert read_values(text, {"x", "y", "output"}) == values


def test_a_name_of_a_later_line_is_not_known_yet() -> None:
    progress, _ = carried("y = 6", "y = 6")
    assert (progress.carried, progress.unread) == ({"y": "6"}, 1)


def test_questions_are_turns_and_their_answers_stand_below_the_row() -> None:
    policy = Scripted(make_tokenizer(), [" The\n plot. "], [""], ["good"])
    row = Example("1", {"text": "A fine film."}, "good")
    judge = judge_of(policy, FILMS, None, ASKED)
    (prediction,) = judge.judge([row])
    assert prediction.value == "good"
    first, second, last = (prompts[0] for prompts in policy.prompts)
    assert "Judge the film: bad or good.\nFirst work through some questions" in first
    assert first.endswith("user\nFilm: A fine film.\n\nWhat is praised?<|im_end|>\n<|im_start|>assistant\n")
    assert second.endswith(
        "What is praised?<|im_end|>\n<|im_start|>assistant\nThe plot.<|im_end|>\n"
        "<|im_start|>user\nWhat is criticised?<|im_end|>\n<|im_start|>assistant\n"
    )
    assert "Film: A fine film.\nWhat is praised? The plot.\nJudgement:<" in last  # the empty answer is left out
    assert judge.spent["unread_steps"] == 1
    assert judge.spent["calls"] == 3


def test_answers_are_one_line_without_tags_and_not_endless() -> None:
    steps = Questions(FILMS, ASKED)
    progress = steps.begin(Example("1", {"text": "x"}))
    steps.take(progress, "so\nso <Judgement>good</Judgement>")
    steps.take(progress, "y" * 1000)
    assert progress.carried[ASKED[0]] == "so so"
    assert len(progress.carried[ASKED[1]]) == 300


@pytest.mark.parametrize("name", list_tasks())
def test_without_notes_a_prompt_is_the_tasks_own(name: str) -> None:
    spec, tokenizer = load_task(name), make_tokenizer()
    row = Example("1", {field: f"{field} here" for field in spec.fields})
    noted, field = with_notes(spec)
    config = PromptConfig(max_tokens=4096)
    plain = Renderer(tokenizer, spec, config).prompt(row)
    assert Renderer(tokenizer, noted, config).prompt(Example("1", {**row.fields, field: ""})) == plain
    assert spec.procedure is not None


def settings(spec=FILMS, *overrides: str):
    config = load_config(overrides=["method=iip", *overrides])
    check_settings(config)
    return own_settings(settled(config, [spec]))


def test_a_run_records_its_steps_and_stepwise_prompting_is_named_apart() -> None:
    lines = settings(EXEC)
    assert (lines.iip.lines, lines.iip.steps) == ("program", None)
    assert [form["setting"] for form in forms_apart(lines)] == ["iip.lines=program"]
    questions = settings(load_task("glue/sst2"))
    assert questions.iip.steps == load_task("glue/sst2").procedure.steps
    (form,) = forms_apart(questions)
    assert form["is"] == "stepwise prompting by a procedure, which is ours, not IIP"
    assert settings(FILMS, "iip.steps=['Why?']").iip.steps == ("Why?",)
    assert settings(EXEC, "iip.steps=[]").iip == settings(FILMS, "iip.steps=[]").iip
    assert settings(FILMS, "iip.lines=text").iip.lines == "text"


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ([], r"mine has no procedure, .*iip.steps='\[\"What is praised"),
        (["iip.lines=texts"], r"iip.lines=texts: mine has no such field. Did you mean 'text'"),
        (["iip.lines=text", "iip.steps=['Why?']"], "both say what the steps are"),
    ],
)
def test_what_does_not_fit_is_refused(overrides: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        settings(FILMS, *overrides)
