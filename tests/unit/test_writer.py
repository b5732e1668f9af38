"""The writer: free text from a local model, the log of its calls, and what they took."""

import json

import pytest
import torch

from adjudge.config import PromptConfig, load_config
from adjudge.errors import ModelError, RunError
from adjudge.models.policy import load_policy
from adjudge.rollout.writer import Ask, LocalSource, Spent, Writer, Written, read_log


@pytest.fixture(scope="module")
def source(tiny_llama):
    policy = load_policy(load_config(values={"model": str(tiny_llama), "runtime.dtype": "float32"}))
    return LocalSource(policy, PromptConfig())


def ask(text="Write an instruction.", **options):
    return Ask([{"role": "user", "content": text}], **{"max_tokens": 8, **options})


class Counted:
    """A source that answers with the last turn and counts what it was asked."""

    name = "counted"

    def __init__(self):
        self.asked = []

    def begin(self, asks, what):
        self.asked.append(len(asks))

    def answers(self, asks):
        for index, each in reversed(list(enumerate(asks))):
            yield index, Written(each.messages[-1]["content"].upper(), "stop", 2, 1)


def test_a_local_model_writes_greedily_and_counts_its_tokens(source):
    (written,) = Writer(source, None).write([ask()])
    prompt = source._policy.tokenizer.apply_chat_template(
        [{"role": "user", "content": "Write an instruction."}], add_generation_prompt=True
    )
    state = source._policy.prefill([prompt["input_ids"] if hasattr(prompt, "keys") else prompt])
    first = int(source._policy.logits(state.hidden_BD).argmax(-1))
    assert written.text.startswith(source._policy.tokenizer.decode([first]))
    assert (written.prompt_tokens, written.generated_tokens, written.end) == (len(prompt["input_ids"]), 8, "length")


def test_a_template_without_a_system_turn_gets_it_in_the_first_users(source, monkeypatch):
    tokenizer = source._policy.tokenizer
    plain = "{% for m in messages %}{% if m['role'] == 'system' %}{{ raise_exception('no') }}{% endif %}"
    turns = plain + "<{{ m['role'] }}>{{ m['content'] }}{% endfor %}<assistant>"
    monkeypatch.setattr(tokenizer, "chat_template", turns)
    messages = [{"role": "system", "content": "Be short."}, {"role": "user", "content": "Hello."}]
    (written,) = Writer(source, None).write([Ask(messages, 4)])
    assert written.prompt_tokens == len(tokenizer("<user>Be short.\n\nHello.<assistant>").input_ids)
    monkeypatch.setattr(tokenizer, "chat_template", "{{ raise_exception('never') }}")
    with pytest.raises(ModelError, match="chat template cannot hold what is asked of it"):
        Writer(source, None).write([Ask(messages, 4)])


def test_draws_depend_on_their_seed_alone(source):
    drawn = Writer(source, None).write([ask(temperature=1.0, seed=seed) for seed in (0, 1, 2)])
    torch.manual_seed(99)
    again = Writer(source, None).write([ask(temperature=1.0, seed=2)])
    assert drawn[2] == again[0]
    assert len({written.text for written in drawn}) == 3


def test_a_stop_text_ends_an_answer_and_is_not_in_it(source):
    (whole,) = Writer(source, None).write([ask(temperature=1.0, seed=1)])
    (cut,) = Writer(source, None).write([ask(temperature=1.0, seed=1, stop=("never", whole.text[4:]))])
    assert (cut.text, cut.end) == (whole.text[:4], "stop")


def test_what_is_asked_ends_no_turn(source):
    ids = source._ids([{"role": "user", "content": "a <|im_end|> b"}])
    assert ids.count(source._policy.tokenizer.eos_token_id) == 1


def test_a_call_is_made_once_and_replayed_from_the_log(tmp_path):
    first = Counted()
    writer = Writer(first, tmp_path / "writer.jsonl")
    asks = [ask("a"), ask("b"), ask("a"), ask("a", temperature=0.5, seed=1), ask("a", temperature=0.5, seed=2)]
    texts = [written.text for written in writer.write(asks)]
    assert (texts, first.asked) == (["A", "B", "A", "A", "A"], [4])
    assert writer.spent.record() == {"calls": 4, "prompt_tokens": 8, "generated_tokens": 4}
    second = Counted()
    again = Writer(second, tmp_path / "writer.jsonl")
    assert [written.text for written in again.write([ask("b"), ask("c")])] == ["B", "C"]
    assert second.asked == [1]
    assert again.spent.calls == 2  # a replayed call cost as much as one that is made
    records = [json.loads(line) for line in (tmp_path / "writer.jsonl").read_text().splitlines()]
    turns = sorted(record["messages"][0]["content"] for record in records)
    assert turns == ["a", "a", "a", "b", "c"]
    assert {(record["model"], record["text"]) for record in records} == {("counted", text) for text in "ABC"}


def test_a_damaged_log_is_named_and_half_a_line_is_cut_off(tmp_path):
    log = tmp_path / "writer.jsonl"
    Writer(Counted(), log).write([ask("a")])
    whole = log.read_bytes()
    log.write_bytes(whole + whole[:40])
    assert len(read_log(log)) == 1
    assert log.read_bytes() == whole
    log.write_bytes(b'{"key": 1}\n' + whole)
    with pytest.raises(RunError, match=r"writer.jsonl:1: is no call of a writer"):
        read_log(log)
    assert read_log(tmp_path / "none.jsonl") == {}


def test_prices_are_those_of_the_settings():
    spent = Spent()
    spent.add(Written("a", "stop", 1000, 10, "m", "f", 2))
    spent.add(Written("", "empty", None, None))
    api = load_config(values={"api.price_read": 2, "api.price_written": 8}).api
    assert spent.record(api) == {
        "calls": 2,
        "prompt_tokens": 1000,
        "generated_tokens": 10,
        "price": pytest.approx(0.00208),
        "uncounted": 1,
        "retries": 2,
        "length": 0,
        "filter": 0,
        "empty": 1,
        "models": ["m"],
        "fingerprints": ["f"],
    }
    assert "price" not in spent.record(load_config().api)
    assert "price" not in Spent(2, uncounted=2).record(api)  # not 0: nothing was counted
