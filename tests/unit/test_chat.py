"""Chat templates: the same on every day, with their own end of a turn, options, and no surprises."""

from __future__ import annotations

import datetime

import pytest
import transformers
from packaging.version import Version
from specs import label_task
from tokenizers_of import make_family

from adjudge.config import AnswerConfig, PromptConfig, load_config
from adjudge.errors import ConfigError, ModelError
from adjudge.prompts.chat import TRIED, open_thought, template_variables, turn_end
from adjudge.prompts.render import Renderer
from adjudge.rollout.answer_end import answer_end
from adjudge.types import Example

TASK = label_task("Negative", "Positive", instruction="Judge the film.")
ROW = Example("a:1", {"text": "a fine film"}, "Positive")
LLAMA3 = (
    "{{ bos_token }}{% if not date_string is defined %}{% set date_string = strftime_now('%d %b %Y') %}{% endif %}"
    "{{ 'Today Date: ' + date_string + '\n' }}{% for m in messages %}"
    "{{ '<|user|>' + m['role'] + '\n' + m['content'] + '<|eot|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)
THINKING = (
    "{% for m in messages %}{{ '<|user|>' + m['content'] + '<|eot|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>\n<think>\n' }}"
    "{% if enable_thinking is defined and not enable_thinking %}{{ '\n</think>\n\n' }}{% endif %}{% endif %}"
)


@pytest.fixture
def tokenizer():
    made = make_family("byte level")
    made.add_special_tokens({"additional_special_tokens": ["<|eot|>", "<|user|>", "<|assistant|>"]})
    made.chat_template = LLAMA3
    return made


def rendered(tokenizer, **settings) -> str:
    return Renderer(tokenizer, TASK, PromptConfig(**settings)).text(ROW)


@pytest.mark.parametrize(
    ("after", "ends"),
    [
        ("<|eot|>", ["<|eot|>"]),
        ("<|eot|>\n", ["<|eot|>"]),  # ChatML, Gemma
        (" </s>", ["</s>"]),  # Llama-2
        ("\n<|eot|>", []),  # the line end is an end of its own
        ("\n", []),
        ("", []),
    ],
)
def test_end_of_a_turn_is_what_the_template_writes(tokenizer, after: str, ends: list[str]) -> None:
    tokenizer.chat_template = (
        "{% for m in messages %}{{ m['content'] + '" + after.replace("\n", "\\n") + "' }}{% endfor %}"
    )
    assert turn_end(tokenizer, PromptConfig()) == tokenizer.convert_tokens_to_ids(ends)


def test_last_turn_may_end_otherwise_than_earlier_ones(tokenizer) -> None:
    tokenizer.chat_template = (
        "{% for m in messages %}{{ m['content'] + ('</s>' if loop.last else '<|eot|>') }}{% endfor %}"
    )
    assert turn_end(tokenizer, PromptConfig()) == tokenizer.convert_tokens_to_ids(["</s>", "<|eot|>"])


def test_answer_ends_with_the_templates_token_when_the_settings_forget_it(tokenizer) -> None:
    """As in Llama-3-Instruct at first, Qwen2.5's base models and Gemma: "Positive<|eot|>" was unreadable."""
    eot, eos = tokenizer.convert_tokens_to_ids(["<|eot|>", "</s>"])
    ends = Renderer(tokenizer, TASK, PromptConfig()).end_ids([eos])
    assert ends == [eot, eos]
    end = answer_end(tokenizer, ends, TASK, AnswerConfig())
    assert end.taught_ids("Positive", TASK)[-1] == eot
    assert end.text([*end.taught_ids("Positive", TASK)]) == "Positive"
    assert Renderer(tokenizer, TASK, PromptConfig(style="paper")).end_ids([eos]) == [eos, eot]
    tokenizer.chat_template = None
    assert Renderer(tokenizer, TASK, PromptConfig()).end_ids([eos]) == [eos]


def test_date_is_the_one_that_is_set(tokenizer) -> None:
    assert "Today Date: 05 Feb 2026\n" in rendered(tokenizer, date="2026-02-05")
    assert rendered(tokenizer, date="2026-02-05") != rendered(tokenizer, date="2026-02-06")
    today = datetime.datetime.now(datetime.UTC).strftime("%d %b %Y")
    assert f"Today Date: {today}\n" in rendered(tokenizer)
    assert load_config(overrides=["prompt.date=2026-02-05"]).prompt.date == datetime.date(2026, 2, 5)


@pytest.mark.parametrize("form", ["%H:%M", "%d %b %Y %Z", "%c", "%s", "%-I %p"])
def test_time_of_day_is_refused(tokenizer, form: str) -> None:
    tokenizer.chat_template = LLAMA3.replace("%d %b %Y", form)
    with pytest.raises(ModelError, match="time of day"):
        rendered(tokenizer)


@pytest.mark.parametrize(
    "chance", ["{{ [1, 2] | random }}", "{{ lipsum() }}", "{{ [[1, 2]] | map('random') | first }}"]
)
def test_chance_is_refused(tokenizer, chance: str) -> None:
    tokenizer.chat_template = chance + LLAMA3
    with pytest.raises(ModelError, match="at random"):
        rendered(tokenizer)


def test_options_of_the_template(tokenizer, capsys) -> None:
    tokenizer.chat_template = THINKING
    assert rendered(tokenizer).endswith("<|assistant|>\n<think>\n<Judgement>")
    warning = capsys.readouterr().err
    assert "leaves a thought open (<think>)" in warning and "prompt.template_options.enable_thinking=false" in warning
    assert rendered(tokenizer, template_options={"enable_thinking": False}).endswith("</think>\n\n<Judgement>")
    assert capsys.readouterr().err == ""
    config = load_config(overrides=["prompt.template_options.enable_thinking=false"])
    assert config.prompt.template_options == {"enable_thinking": False}
    assert load_config(overrides=["prompt.template_options={enable_thinking: false}"]) == config
    tokenizer.chat_template = LLAMA3
    assert "Today Date: yesterday" in rendered(tokenizer, template_options={"date_string": "yesterday"})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"enable_thinkin": False}, "has no option 'enable_thinkin'.*Did you mean 'enable_thinking'"),
        ({"messages": "x"}, "has no option 'messages'"),
        ({"add_generation_prompt": False}, "has no option 'add_generation_prompt'"),
    ],
)
def test_unknown_options_are_refused(tokenizer, options: dict, message: str) -> None:
    tokenizer.chat_template = THINKING
    with pytest.raises(ConfigError, match=message):
        rendered(tokenizer, template_options=options)
    with pytest.raises(ConfigError, match=r"no effect here: prompt\.style is paper"):
        rendered(tokenizer, template_options=options, style="paper")
    tokenizer.chat_template = None
    with pytest.raises(ConfigError, match="has no chat template"):
        rendered(tokenizer, template_options=options)


@pytest.mark.parametrize(
    ("text", "tag"),
    [
        ("assistant\n<think>\n", "<think>"),
        ("assistant\n<think>\n\n</think>\n\n", None),
        ("<think>a</think><think>", "<think>"),
        ("[THINK]", "[THINK]"),
        ("<|thinking|>", "<|thinking|>"),
        ("<seed:think>", "<seed:think>"),
        ("assistant\n", None),
        ("I think <b>", None),
    ],
)
def test_open_thoughts_are_seen(text: str, tag: str | None) -> None:
    assert open_thought(text) == tag


def test_several_templates_without_a_default_are_refused(tokenizer) -> None:
    tokenizer.chat_template = {"a": LLAMA3, "b": LLAMA3}
    with pytest.raises(ModelError, match="none is the default"):
        rendered(tokenizer)


def test_variables_of_a_template_are_those_it_reads() -> None:
    assert template_variables(THINKING) == {"messages", "add_generation_prompt", "enable_thinking"}


def test_templates_are_tried_with_the_installed_transformers() -> None:
    assert Version(transformers.__version__) <= Version(TRIED), "try the tests of this file, then raise TRIED"
