"""Prompts as messages, answers of a model that writes the tag itself, and rows read back out of their turn."""

import pytest
from conftest import make_tokenizer
from specs import label_task, number_task

from adjudge.config import PromptConfig, load_config
from adjudge.prompts.messages import answer_limit, answer_stops, asks_alike, prompt_messages, read_reply, row_of_turn
from adjudge.prompts.render import Renderer
from adjudge.tasks import list_tasks, load_task
from adjudge.types import Example

FILMS = label_task("bad", "good", instruction="Judge the film: bad or good.")
ROW = Example("1", {"text": "A fine film.\n"})
SHOWN = [Example("2", {"text": "dull"}, "bad"), Example("3", {"text": "warm"}, "good")]
FORM = "Give the answer as <Judgement>bad</Judgement> or <Judgement>good</Judgement>."


def test_the_parts_are_those_of_a_local_prompt():
    messages = prompt_messages(ROW, FILMS, PromptConfig(), SHOWN)
    assert messages == [
        {"role": "system", "content": f"Judge the film: bad or good.\n{FORM}"},
        {"role": "user", "content": "dull\nJudgement:"},
        {"role": "assistant", "content": "<Judgement>bad</Judgement>"},
        {"role": "user", "content": "warm\nJudgement:"},
        {"role": "assistant", "content": "<Judgement>good</Judgement>"},
        {"role": "user", "content": "A fine film.\nJudgement:"},
    ]
    tiny_tokenizer = make_tokenizer()
    local = Renderer(tiny_tokenizer, FILMS, PromptConfig(), SHOWN).text(ROW)
    assert local == tiny_tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True) + (
        "<Judgement>"
    )


def test_half_a_surrogate_pair_can_be_sent():
    assert prompt_messages(Example("1", {"text": "a\ud800"}), FILMS, PromptConfig())[1]["content"].startswith("a\ufffd")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("good", "good"),
        ("<Judgement>good</Judgement>", "good"),
        ("\n <Judgement> Good.</Judgement>\nBecause.", "good"),
        ("<Judgement>good", "good"),
        ("<Judgement><Judgement>good</Judgement>", None),
        ("The answer is <Judgement>good</Judgement>", None),
        ("**good**", None),
        ("<Judgement>\ngood</Judgement>", None),
        ("<Judgement></Judgement>", None),
        ("", None),
        ("not good", None),
    ],
)
def test_one_opening_tag_is_left_out_and_the_rest_is_read_strictly(text, value):
    judgement = read_reply(text, FILMS, load_config())
    assert (judgement.text, judgement.value) == (text, value)


def test_an_analysis_before_the_answer_is_not_read():
    config = load_config(values={"prompt.analysis": "before"})
    assert read_reply("<Analysis>bad start</Analysis>\n<Judgement>good</Judgement>", FILMS, config).value == "good"
    assert read_reply("<Judgement>good</Judgement>", FILMS, config).value is None
    assert read_reply("good", FILMS, load_config(values={"answer.stop": "tag"})).value is None


def test_limits_and_stops_follow_the_task_and_the_settings():
    assert answer_limit(FILMS, load_config()) == len("<Judgement>good</Judgement>") + 16
    assert answer_limit(number_task(-10, 5), load_config()) == len("<Judgement>-10.0</Judgement>") + 16
    assert answer_limit(FILMS, load_config(values={"api.max_tokens": 9})) == 9
    assert answer_limit(FILMS, load_config(values={"prompt.analysis": True})) > 100
    assert answer_stops(load_config()) == ("</Judgement>",)
    for others in ({"api.stop": False}, {"answer.stop": "tag"}, {"prompt.analysis": True}):
        assert answer_stops(load_config(values=others)) == ()


@pytest.mark.parametrize("name", list_tasks())
def test_a_row_is_read_out_of_its_turn_for_every_task(name):
    spec = load_task(name)
    fields = {field: f"{field} of\nthe row" for field in spec.fields}
    for config in (PromptConfig(), PromptConfig(style="paper"), PromptConfig(analysis="before")):
        messages = prompt_messages(Example("1", fields), spec, config)
        assert asks_alike(messages, spec, config)
        assert row_of_turn(messages[-1]["content"], spec, config) == fields


@pytest.mark.parametrize(
    "fields",
    [
        {"first": "a\nB: b", "second": "c"},
        {"first": "", "second": "\nB: \nB: "},
        {"first": "x\nJudgement:", "second": "y\nJudgement:"},
    ],
)
def test_rows_with_the_template_in_their_text_have_the_same_prompt_again(fields):
    spec = label_task("No", "Yes", fields={"first": "a", "second": "b"}, template="A: {{ first }}\nB: {{ second }}")
    turn = prompt_messages(Example("1", fields), spec, PromptConfig())[-1]["content"]
    back = row_of_turn(turn, spec, PromptConfig())
    assert back is not None
    assert prompt_messages(Example("1", back), spec, PromptConfig())[-1]["content"] == turn


def test_other_texts_and_templates_that_change_a_field_are_no_turns():
    assert row_of_turn("A fine film.", FILMS, PromptConfig()) is None
    shouted = label_task("bad", "good", template="{{ text | upper }}")
    assert row_of_turn("A FILM\nJudgement:", shouted, PromptConfig()) is None
    assert not asks_alike([{"role": "system", "content": "Another task."}], FILMS, PromptConfig())
