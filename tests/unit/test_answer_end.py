"""Where an answer ends, and that what is taught is what is read."""

from __future__ import annotations

from pathlib import Path

import pytest
from specs import label_task, number_task
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from adjudge.config import AnswerConfig
from adjudge.errors import ConfigError
from adjudge.prompts.answers import read_answer
from adjudge.rollout.answer_end import AnalysisEnd, AnswerEnd, answer_end
from adjudge.tasks.spec import TaskSpec

END = 2
WORDS = label_task("Positive", "Negative", "No", "No way", "Option one", "naïve 🙂")


@pytest.fixture
def tokenizer(tiny_llama: Path):
    return AutoTokenizer.from_pretrained(tiny_llama)


def merging_tokenizer() -> PreTrainedTokenizerFast:
    """A tokenizer that knows "100.0" and "0.0" as one token each, and other numbers digit by digit."""
    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    raw.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=270, special_tokens=["<a>", "<b>", "<end>"], initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
    )
    raw.train_from_iterator(["100.0"] * 9 + ["0.0"] * 9, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=raw, eos_token="<end>", pad_token="<end>")


def end_of(tokenizer, spec: TaskSpec, **settings) -> AnswerEnd:
    return answer_end(tokenizer, [END], spec, AnswerConfig(**settings))


def ids_of(tokenizer, text: str) -> list[int]:
    return tokenizer(text, add_special_tokens=False, split_special_tokens=True).input_ids


def first_end(end: AnswerEnd, ids: list[int]) -> int | None:
    """How many tokens are read before the rule says stop; None when it never does."""
    return next((count for count in range(1, len(ids) + 1) if end.ended(ids[:count])), None)


@pytest.mark.parametrize("tail", ["\n", "\r", "\r\n", " \n\n", "</Judgement>", "</Judgement> more"])
def test_a_line_answer_ends_at_the_line_or_the_tag(tokenizer, tail: str) -> None:
    end = end_of(tokenizer, WORDS)
    ids = ids_of(tokenizer, f"Positive{tail}rest of it")
    count = first_end(end, ids)
    assert count is not None
    assert count < len(ids)
    assert not end.ended(ids_of(tokenizer, "Positive"))
    assert read_answer(end.text(ids[:count]), WORDS, "line").value == "Positive"


def test_a_line_answer_ends_with_the_turn(tokenizer) -> None:
    end = end_of(tokenizer, WORDS)
    ids = [*ids_of(tokenizer, "Positive"), END]
    assert first_end(end, ids) == len(ids)
    assert end.text(ids) == "Positive"
    assert end.text([END]) == ""


def test_every_end_token_of_the_model_counts(tokenizer) -> None:
    end = answer_end(tokenizer, [2, 0], WORDS, AnswerConfig())
    assert end.ended([5, 0])
    assert end.ended([5, 2])
    assert not end.ended([5, 1])
    assert end.taught_ids("Positive", WORDS)[-1] == 2


def test_only_the_tag_ends_a_tag_answer(tokenizer) -> None:
    end = end_of(tokenizer, WORDS, stop="tag", max_tokens=32)
    ids = [*ids_of(tokenizer, "Positive\n"), END, *ids_of(tokenizer, " or not</Judgement> more")]
    stopped = first_end(end, ids)
    assert stopped is not None
    assert end.text(ids[:stopped]).endswith("</Judgement>")
    assert read_answer(end.text([*ids_of(tokenizer, "Positive"), END]), WORDS, "tag").value is None


def test_special_tokens_inside_a_response_are_kept_in_its_text(tokenizer) -> None:
    end = end_of(tokenizer, WORDS)
    text = end.text([*ids_of(tokenizer, "Positive"), 1])
    assert text == "Positive<|im_start|>"
    assert read_answer(text, WORDS, "line").value is None


@pytest.mark.parametrize("stop", ["line", "tag"])
def test_what_is_taught_ends_where_reading_ends(tokenizer, stop: str) -> None:
    end = end_of(tokenizer, WORDS, stop=stop)
    for word in WORDS.words:
        taught = end.taught_ids(word, WORDS)
        assert first_end(end, taught) == len(taught)
        assert len(taught) <= end.max_tokens
        assert read_answer(end.text(taught), WORDS, stop).value == word


def test_a_model_without_an_end_token_is_taught_the_tag(tokenizer) -> None:
    end = answer_end(tokenizer, [], WORDS, AnswerConfig())
    for word in WORDS.words:
        taught = end.taught_ids(word, WORDS)
        assert end.text(taught) == f"{word}</Judgement>"
        assert first_end(end, taught) == len(taught)
        assert len(taught) <= end.max_tokens


@pytest.mark.parametrize("stop", ["line", "tag"])
@pytest.mark.parametrize("merging", [False, True])
@pytest.mark.parametrize(("low", "high", "decimals"), [(0, 5, 1), (-4, 4, 1), (0, 100, 1), (0, 100, 0), (-2, 2, 3)])
def test_every_number_that_is_taught_is_read(
    tokenizer, stop: str, merging: bool, low: int, high: int, decimals: int
) -> None:
    spec = number_task(low, high, decimals)
    end = end_of(merging_tokenizer() if merging else tokenizer, spec, stop=stop)
    for step in range((high - low) * 10 + 1):
        gold = low + step / 10
        taught = end.taught_ids(gold, spec)
        assert first_end(end, taught) == len(taught)
        assert len(taught) <= end.max_tokens
        assert read_answer(end.text(taught), spec, stop).value == pytest.approx(round(gold, decimals), abs=1e-9)


def test_limits(tokenizer) -> None:
    spec = label_task("No", "No way")
    longest = len(ids_of(tokenizer, "No way"))
    automatic = end_of(tokenizer, spec)
    assert (automatic.max_tokens, automatic.min_tokens) == (longest + 1, longest + 1)
    assert end_of(tokenizer, spec, stop="tag").max_tokens >= longest + len(ids_of(tokenizer, "</Judgement>"))
    paper = end_of(tokenizer, spec, stop="tag", min_tokens=12, max_tokens=32)
    assert (paper.min_tokens, paper.max_tokens) == (12, 32)
    assert end_of(tokenizer, spec, min_tokens=longest + 9, max_tokens=longest).min_tokens == longest


def test_label_ids_are_bare_words_where_they_can_be_told_apart(tokenizer) -> None:
    spec = label_task("Positive", "Negative")
    assert end_of(tokenizer, spec).label_ids(spec) == [ids_of(tokenizer, "Positive"), ids_of(tokenizer, "Negative")]


@pytest.mark.parametrize("words", [("No", "No way"), ("No way", "No")])
@pytest.mark.parametrize("stop", ["line", "tag"])
def test_label_ids_have_their_end_where_one_begins_another(tokenizer, words: tuple[str, str], stop: str) -> None:
    spec = label_task(*words, "Maybe")
    end = end_of(tokenizer, spec, stop=stop)
    found = end.label_ids(spec)
    assert found == [end.taught_ids(word, spec) for word in spec.words]
    for one in found:
        for other in found:
            assert one is other or other[: len(one)] != one


def test_a_limit_without_room_for_the_longest_answer_is_refused(tokenizer) -> None:
    longest = max(len(ids_of(tokenizer, word)) for word in WORDS.words)
    assert end_of(tokenizer, WORDS, max_tokens=longest).max_tokens == longest
    with pytest.raises(ConfigError, match=rf"the longest has {longest} tokens"):
        end_of(tokenizer, WORDS, max_tokens=longest - 1)


@pytest.mark.parametrize(
    ("response", "stop", "inside"),
    [
        ("Positive", "line", "Positive"),
        ("Positive\n", "line", "Positive"),
        ("Positive\r", "line", "Positive"),
        ("Positive</Judgement>", "line", "Positive</Judgement>"),
        ("Positive</Judgement>", "tag", "Positive</Judgement>"),
        ("Posi\ntive", "tag", "Posi\ntive"),
        ("", "line", ""),
    ],
)
def test_what_of_an_answer_is_kept_before_what_follows_it(tokenizer, response: str, stop: str, inside: str) -> None:
    end = end_of(tokenizer, WORDS, stop=stop)
    for ids in (ids_of(tokenizer, response), [*ids_of(tokenizer, response), END]):
        assert end.text(end.inside(ids)) == inside


def test_a_token_that_holds_more_than_the_closing_tag_is_left_out() -> None:
    """Some tokenizers have one token for ``><``, or for ``>`` and a line end.

    The tag is then written again, without the characters after it.
    """
    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    raw.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=258, special_tokens=["<end>"], initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
    )
    raw.train_from_iterator(["><"] * 9, trainer)
    merging = PreTrainedTokenizerFast(tokenizer_object=raw, eos_token="<end>", pad_token="<end>")
    ids = ids_of(merging, "No</Judgement><")
    assert merging.decode(ids[-1:]) == "><"
    answer = AnswerEnd(merging, "line", (0,), 30, 30)
    assert answer.ended(ids)
    assert answer.text(answer.inside(ids)) == "No</Judgement"
    analysis = AnalysisEnd(merging, (0,), 30)
    assert analysis.text(analysis.inside(ids_of(merging, "dull</Analysis><"))) == "dull</Analysis"


def test_an_analysis_ends_at_its_own_tag_or_the_turn(tokenizer) -> None:
    end = AnalysisEnd(tokenizer, (END,), 40)
    ids = ids_of(tokenizer, "It is slow.\n\n<Judgement>No</Judgement> <Analysis> so</Analysis> and more")
    count = first_end(end, ids)
    assert count is not None
    assert end.text(end.inside(ids[:count])) == "It is slow.\n\n<Judgement>No</Judgement> <Analysis> so</Analysis>"
    turn = [*ids_of(tokenizer, "It is slow."), END]
    assert first_end(end, turn) == len(turn)
    assert end.text(end.inside(turn)) == "It is slow."
    assert end.inside([END]) == []
    assert (end.min_tokens, end.max_tokens) == (40, 40)
