"""Test promise 6: one reward per prompt; unreadable answers are counted and shown, never guessed."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from specs import label_task

from adjudge.config import RewardConfig
from adjudge.prompts.answers import read_answer
from adjudge.rewards.score import rewards
from adjudge.types import Judgement

WORDS = ("No", "Yes")
LABELS = label_task(*WORDS)
SPECIAL = st.sampled_from(["Yes", "no.", "Not sure", "", "\n", "</Judgement>", "Yes</Jud", "Yes No"])
RESPONSES = st.lists(st.tuples(st.text(max_size=12) | SPECIAL, st.sampled_from(WORDS)), max_size=20)


@settings(max_examples=60, deadline=None, database=None)
@given(RESPONSES, st.sampled_from(["line", "tag"]))
def test_any_responses_get_exactly_one_reward_each(responses, stop):
    judgements = [read_answer(text, LABELS, stop) for text, _ in responses]
    golds = [gold for _, gold in responses]
    found = rewards(judgements, golds, LABELS, RewardConfig())
    assert len(found) == len(responses)
    expected = [
        -3.0 if j.value is None else 1.0 if j.value == gold else -1.0 for j, gold in zip(judgements, golds, strict=True)
    ]
    assert found == expected


@settings(max_examples=60, deadline=None, database=None)
@given(st.text(max_size=30) | SPECIAL)
def test_an_answer_is_a_label_word_letter_for_letter_or_unreadable(text):
    judgement = read_answer(text, LABELS, "line")
    before = text.split("\n")[0].split("\r")[0].split("<")[0]
    letters = "".join(c for c in before if c.isalnum())
    assert judgement.value is None or letters.casefold() == judgement.value.casefold()
    assert judgement.text == text


@pytest.mark.parametrize(("judged", "asked"), [(0, 1), (1, 0), (3, 2), (2, 3)])
def test_fewer_or_more_judgements_than_prompts_are_refused(judged, asked):
    with pytest.raises(ValueError, match=f"{judged} judgements for {asked} prompts"):
        rewards([Judgement("Yes", "Yes")] * judged, ["Yes"] * asked, LABELS, RewardConfig())


def test_the_same_unreadable_response_is_never_rewarded_by_chance():
    unreadable = read_answer("Not sure", LABELS, "line")
    assert set(rewards([unreadable] * 100, ["No", "Yes"] * 50, LABELS, RewardConfig())) == {-3.0}
