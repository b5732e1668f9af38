"""Strict reading of answers."""

import unicodedata

import pytest
from specs import label_task, number_task

from adjudge.errors import DataError
from adjudge.prompts.answers import CLOSING_TAG, answer_text, read_answer, read_label, read_number

YES_NO = ("Yes", "No")


LABELS = label_task("No", "Yes")
NUMBER = number_task(0, 5)


@pytest.mark.parametrize(
    "text",
    [
        "Yes",
        " Yes ",
        "\n\tyes\n",
        "YES",
        "Yes.",
        "Yes!!!",
        "Yes ?",
        "yes:",
        "Yes。",
        "Yes</Judgement>",
        " Yes. </Judgement>",
        "Yes</Judgement> No",
        "Yes</Judgement><Analysis>Not quite.</Analysis>",
        "Yes</",
        "Yes</Jud",
        "Yes </Judgement",
        "Yes.<",
        "Yes</Judgement></Judgement>",
    ],
)
def test_label_is_read_ignoring_white_space_case_and_final_punctuation(text):
    assert read_label(text, YES_NO) == "Yes"


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        ".",
        "</Judgement>",
        "</Judgement>Yes",
        "</",
        "Not sure",
        "Nothing",
        "No way",
        "Yes No",
        "Yes, No",
        "Yes/No",
        "YesNo",
        "Yes and",
        ". Yes",
        "(Yes)",
        '"Yes"',
        'Yes"',
        "**Yes**",
        "- Yes",
        "Label: Yes",
        "<Judgement>Yes</Judgement>",
        "Yes</judgement>",
        "Yes</Judgment>",
        "Yes</Jud no",
        "Y es",
        "Ye",
        "Yes\u200b",
        "Ｙｅｓ",
        "Да",
    ],
)
def test_anything_else_is_unreadable(text):
    assert read_label(text, YES_NO) is None


def test_labels_of_several_words_and_labels_within_labels():
    words = ("Option one", "Option two", "Option")
    assert read_label("option \n  ONE.", words) == "Option one"
    assert read_label("Option", words) == "Option"
    assert read_label("Option three", words) is None
    assert read_label("Optionone", words) is None


def test_labels_differing_only_in_case():
    words = ("us", "US", "them")
    assert read_label("us", words) == "us"
    assert read_label(" US. ", words) == "US"
    assert read_label("Us", words) is None
    assert read_label("Them", words) == "them"


def test_labels_ending_in_punctuation():
    grades = ("C", "C+", "A.", "?", "!")
    assert read_label("C+", grades) == "C+"
    assert read_label("c+.", grades) == "C+"
    assert read_label("C", grades) == "C"
    assert read_label("A.", grades) == "A."
    assert read_label("a", grades) == "A."
    assert read_label("?", grades) == "?"
    assert read_label("?!", grades) is None
    both = ("A", "A.")
    assert [read_label(text, both) for text in ("A", "A.", "A..", "a.", "a")] == ["A", "A.", None, None, None]


def test_label_ending_like_a_tag_is_read():
    assert read_label("a <", ("a <", "a >")) == "a <"
    assert read_label("a <</Judgement>", ("a <", "a >")) == "a <"


def test_unicode_forms_and_case_folding():
    words = ("Négatif", "Straße")
    assert read_label(unicodedata.normalize("NFD", "NÉGATIF"), words) == "Négatif"
    assert read_label("STRASSE", words) == "Straße"
    assert read_label("Negatif", words) is None
    assert read_label("négatif", tuple(unicodedata.normalize("NFD", word) for word in words)) is not None


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("3", 3.0),
        ("3.", 3.0),
        (" 2.50 \n", 2.5),
        ("+1.0", 1.0),
        ("0", 0.0),
        ("5.0!", 5.0),
        ("003", 3.0),
        ("4.5</Judgement> 2", 4.5),
        ("4</Ju", 4.0),
    ],
)
def test_a_plain_number_is_read(text, value):
    assert read_number(text, 0, 5) == value


@pytest.mark.parametrize(
    "text",
    [
        "",
        ".",
        "-",
        "+",
        "-1",
        "5.01",
        "1e0",
        "inf",
        "nan",
        "NaN",
        "3,5",
        ".5",
        "1 2",
        "1.2.3",
        "--1",
        "- 1",
        "0x3",
        "3/5",
        "3%",
        "three",
        "٣",
        "３",
        "1_0",
        "9" * 400,
        "about 3",
        "3 of 5",
    ],
)
def test_any_other_number_is_unreadable(text):
    assert read_number(text, 0, 5) is None


def test_negative_ranges_and_negative_zero():
    assert read_number("-4.0", -4, 4) == -4.0
    assert str(read_number("-0", -4, 4)) == "0.0"


def test_line_rule_ends_the_answer_at_the_first_line_end():
    assert read_answer("Yes\nbut no", LABELS, "line").value == "Yes"
    assert read_answer("Yes\r\nNo</Judgement>", LABELS, "line").value == "Yes"
    assert read_answer("Yes</Judgement>\nNo", LABELS, "line").value == "Yes"
    assert read_answer("3.5\n4", NUMBER, "line").value == 3.5
    for empty in ("\nYes", "", "\n"):
        assert read_answer(empty, LABELS, "line").value is None


def test_tag_rule_requires_a_complete_tag():
    assert read_answer("\nYes\n</Judgement>", LABELS, "tag").value == "Yes"
    for missing in ("Yes", "Yes\n", "Yes</Judgement", "Yes</judgement>"):
        assert read_answer(missing, LABELS, "tag").value is None
    assert read_answer("Yes\nNo</Judgement>", LABELS, "tag").value is None


def test_judgement_keeps_the_whole_text():
    assert read_answer(" Yes</Judgement>…\n", LABELS, "line").text == " Yes</Judgement>…\n"
    assert read_answer("?", LABELS, "tag").text == "?"


@pytest.mark.parametrize("ending", ["", CLOSING_TAG, "\n"])
def test_taught_text_is_read_as_the_same_answer(ending):
    for word in LABELS.words:
        assert read_answer(answer_text(word, LABELS) + ending, LABELS, "line").value == word
    for number, text in ((0.0, "0.0"), (2.75, "2.8"), (5.0, "5.0"), (3, "3.0")):
        assert answer_text(number, NUMBER) == text
        assert read_answer(text + ending, NUMBER, "line").value == float(text)


def test_minus_zero_is_never_taught():
    assert answer_text(-0.04, number_task(-4, 4)) == "0.0"


def test_values_that_are_not_answers_are_refused():
    with pytest.raises(DataError, match="Did you mean 'Yes'"):
        answer_text("yess", LABELS)
    for wrong in ("3", float("nan"), 5.5, -0.1):
        with pytest.raises(DataError, match="between 0 and 5"):
            answer_text(wrong, NUMBER)
    with pytest.raises(DataError, match="more decimals"):
        answer_text(0.25, number_task(0.25, 1))
