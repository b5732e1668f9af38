"""Overlap of training and eval rows, and contradictions among training rows."""

import time

import pytest

from adjudge.tasks import count_contradictions, find_overlap, measure_overlap, without_overlap
from adjudge.types import Example


def rows(*texts, split="train", gold=None):
    return [Example(f"{split}:{number}", {"text": text}, gold) for number, text in enumerate(texts)]


def test_overlap_ignores_case_and_white_space():
    train = rows("A  cat.", "a dog", "A cat.")
    dev = rows("a CAT.\n", "a bird", "a dog!", split="dev")
    assert find_overlap(train, dev) == [("train:0", "dev:0"), ("train:2", "dev:0")]


def test_eval_row_counts_once_and_exact_compares_letters():
    train = rows("A cat.", "a cat.", "A  CAT.", "a dog", "STRASSE", "x", "y", "z")
    dev = rows("a cat.", "A DOG", "straße", "a bird", "a cat.", "x", split="dev")
    overlap = measure_overlap(train, dev)
    assert (overlap.eval_rows, overlap.normalised, overlap.exact) == (6, 5, 3)
    assert overlap.share == pytest.approx(5 / 6)
    assert overlap.first == (("train:0", "dev:0"), ("train:3", "dev:1"), ("train:4", "dev:2"))
    assert overlap.sentence() == (
        "5 (83.3 %) of the 6 judged rows are among the training rows too, 3 of them letter for letter "
        "(train:0 = dev:0, train:3 = dev:1, train:4 = dev:2, …)"
    )


def test_no_rows_give_no_overlap():
    assert measure_overlap([], rows("x")).normalised == measure_overlap(rows("x"), []).share == 0
    assert find_overlap([], []) == without_overlap([], rows("x")) == []


def test_overlap_requires_all_fields_equal():
    one = [Example("t", {"a": "x", "b": "y"})]
    assert find_overlap(one, [Example("d", {"b": "Y", "a": "X"})]) == [("t", "d")]
    assert find_overlap(one, [Example("d", {"a": "y", "b": "x"})]) == []
    assert find_overlap(one, [Example("d", {"a": "x y", "b": ""})]) == []


def test_shared_passage_alone_is_not_an_overlap():
    def rows_about(split, *questions):
        return [
            Example(f"{split}:{q}", {"passage": "The fox slept.", "question": q, "answer": "Yes"}) for q in questions
        ]

    train, dev = rows_about("train", "Who slept?", "When?"), rows_about("dev", "Where?", "who  slept?")
    assert find_overlap(train, dev) == [("train:Who slept?", "dev:who  slept?")]
    assert [row.id for row in without_overlap(train, dev)] == ["train:When?"]


def test_without_overlap_drops_every_copy_and_keeps_the_order():
    train = rows("b", "A cat.", "a", "a  CAT.", "c")
    assert [row.id for row in without_overlap(train, rows("a cat."))] == ["train:0", "train:2", "train:4"]


def test_contradictions_are_counted_in_rows():
    train = [
        *rows("one", "two", "TWO", gold="Yes"),
        *rows("One ", "three", "three", gold="No"),
        *rows("two", gold=None),
    ]
    assert count_contradictions(train) == 2


def test_overlap_of_large_splits_takes_seconds():
    train = rows(*(f"text number {number} of many" for number in range(363_846)))
    dev = rows(*(f"Text number {number} of many" for number in range(363_836, 404_266)), split="dev")
    began = time.process_time()
    assert measure_overlap(train, dev).normalised == 10
    assert len(without_overlap(train, dev)) == 363_836
    assert time.process_time() - began < 20
