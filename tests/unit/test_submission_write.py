"""Files of a submission from judged rows: the sites' labels, and no guessed answers."""

import io
import json
import zipfile

import pytest
from specs import label_task, number_task
from submissions import form_of

from adjudge.errors import DataError
from adjudge.submission.check_file import check_file
from adjudge.submission.formats import FORMS, form_of_task
from adjudge.submission.write import first_unknown_rule, official_indices, pack, write_file
from adjudge.tasks.spec import TaskSpec
from adjudge.types import Prediction

YES_NO = {"labels": {"0": "No", "1": "Yes"}}
ENTAILED = {"labels": {"not_entailment": "No", "entailment": "Yes"}}
THREE_WAY = {"labels": {"entailment": "Entailment", "contradiction": "Contradiction", "neutral": "Neutral"}}
TRUE_FALSE = {"labels": {"false": "No", "true": "Yes"}}
SPECS = {
    "CoLA.tsv": YES_NO,
    "MNLI-m.tsv": THREE_WAY,
    "QNLI.tsv": ENTAILED,
    "WNLI.tsv": YES_NO,
    "CB.jsonl": THREE_WAY,
    "COPA.jsonl": {"labels": {"0": "Option one", "1": "Option two"}},
    "BoolQ.jsonl": TRUE_FALSE,
    "WSC.jsonl": TRUE_FALSE,
    "AX-b.jsonl": ENTAILED,
}


def spec_of(name: str) -> TaskSpec:
    if name == "STS-B.tsv":
        return number_task(0, 5)
    if name == "MultiRC.jsonl":
        return label_task("False", "True")
    if name == "ReCoRD.jsonl":
        return label_task("No", "Yes")
    return label_task(*SPECS[name]["labels"].values(), **SPECS[name])


def predictions_for(name: str, answer=None, **tags):
    """Return a prediction per official row; `answer` maps index to value (default: the words in turn)."""
    spec, form = spec_of(name), form_of(name)
    words = spec.words or (2.5,)
    give = answer or (lambda index: words[index % len(words)])
    return [
        Prediction(
            f"test:{index}",
            {},
            None,
            "response",
            give(index),
            tags={"idx": str(index), **{k: v(index) for k, v in tags.items()}},
        )
        for index in range(form.rows)
    ]


def file_lines(name: str, predictions, *unreadable: str):
    """Return the lines of the file, and how many unreadable answers were replaced."""
    file = write_file(form_of(name), spec_of(name), predictions, unreadable, "run")
    assert check_file(form_of(name), io.BytesIO(file.text.encode()), name) == []
    return file.text.split("\n")[:-1], file.filled


@pytest.mark.parametrize(
    ("name", "first", "second"),
    [
        ("CoLA.tsv", "0\t0", "1\t1"),
        ("WNLI.tsv", "0\t0", "1\t1"),
        ("QNLI.tsv", "0\tnot_entailment", "1\tentailment"),
        ("MNLI-m.tsv", "0\tentailment", "1\tcontradiction"),
        ("STS-B.tsv", "0\t2.5", "1\t2.5"),
        ("CB.jsonl", '{"idx": 0, "label": "entailment"}', '{"idx": 1, "label": "contradiction"}'),
        ("COPA.jsonl", '{"idx": 0, "label": 0}', '{"idx": 1, "label": 1}'),
        ("BoolQ.jsonl", '{"idx": 0, "label": "false"}', '{"idx": 1, "label": "true"}'),
        ("WSC.jsonl", '{"idx": 0, "label": "False"}', '{"idx": 1, "label": "True"}'),
        ("AX-b.jsonl", '{"idx": 0, "label": "not_entailment"}', '{"idx": 1, "label": "entailment"}'),
    ],
)
def test_answers_become_the_labels_of_the_site(name, first, second):
    lines, filled = file_lines(name, predictions_for(name))
    head = ["index\tprediction"] if name.endswith(".tsv") else []
    assert lines[: len(head) + 2] == [*head, first, second]
    assert len(lines) == form_of(name).rows + len(head)
    assert filled == 0


@pytest.mark.parametrize(
    ("value", "text"), [(0.0, "0"), (5.0, "5"), (3, "3"), (4.75, "4.75"), (1 / 3, "0.333"), (4.9999, "5"), (1e-7, "0")]
)
def test_numbers_have_three_decimals_at_most(value, text):
    lines, _ = file_lines("STS-B.tsv", predictions_for("STS-B.tsv", lambda index: value))
    assert set(lines[1:]) == {f"{index}\t{text}" for index in range(1379)}


def test_the_order_of_the_judged_rows_does_not_matter():
    assert file_lines("WNLI.tsv", predictions_for("WNLI.tsv")[::-1]) == file_lines(
        "WNLI.tsv", predictions_for("WNLI.tsv")
    )


def test_options_are_nested_in_their_questions_and_passages():
    rows = predictions_for(
        "MultiRC.jsonl", passage_idx=lambda index: str(index // 100), question_idx=lambda index: str(index // 4)
    )
    lines, _ = file_lines("MultiRC.jsonl", rows[::-1])
    records = [json.loads(line) for line in lines]
    assert [record["idx"] for record in records] == list(range(97))
    questions = [question for record in records for question in record["passage"]["questions"]]
    assert [question["idx"] for question in questions] == list(range((9693 + 3) // 4))
    assert questions[1] == {
        "idx": 1,
        "answers": [{"idx": 4, "label": 0}, {"idx": 5, "label": 1}, {"idx": 6, "label": 0}, {"idx": 7, "label": 1}],
    }


def test_options_without_a_question_are_refused():
    rows = predictions_for("MultiRC.jsonl", passage_idx=lambda index: "0")
    with pytest.raises(DataError, match="row test:0: has no tag 'question_idx'"):
        file_lines("MultiRC.jsonl", rows)


def candidates(chances=((0.2, "Paris"), (0.7, "Łódź"), (0.7, "Rome"))):
    """Return three candidates per query of ReCoRD, all judged No."""
    return [
        Prediction(
            f"{index}:{position}",
            {},
            None,
            "No",
            "No",
            {"No": 1 - chance, "Yes": chance} if chance is not None else {},
            tags={"idx": str(index), "candidate": text},
        )
        for index in range(10_000)
        for position, (chance, text) in enumerate(chances)
    ]


def test_a_query_gets_its_most_probable_candidate_the_first_of_equals():
    lines, filled = file_lines("ReCoRD.jsonl", candidates())
    assert (json.loads(lines[0]), json.loads(lines[-1])) == (
        {"idx": 0, "label": "Łódź"},
        {"idx": 9999, "label": "Łódź"},
    )
    assert lines[0].isascii()
    assert filled == 0


@pytest.mark.parametrize(
    ("chances", "message"),
    [
        (((None, "Paris"),), "run: query 0: row 0:0 has no probability of 'Yes'"),
        (((0.5, " "),), "run: row 0:0: has no tag 'candidate'"),
    ],
)
def test_candidates_without_probability_or_text_are_refused(chances, message):
    with pytest.raises(DataError, match=message):
        file_lines("ReCoRD.jsonl", candidates(chances))


def some_unreadable(name="WNLI.tsv", chances=None):
    """Return rows of which every third is unreadable, and most readable ones are Yes."""
    rows = predictions_for(name, lambda index: None if index % 3 == 0 else "No" if index == 1 else "Yes")
    return [Prediction(row.id, {}, None, "?", row.value, chances or {}, tags=row.tags) for row in rows]


def test_unreadable_answers_are_counted_and_refused():
    with pytest.raises(DataError) as raised:
        file_lines("WNLI.tsv", some_unreadable())
    message = str(raised.value)
    assert message.startswith(
        "run: 49 of 146 answers could not be read (the first: row test:0), and WNLI.tsv needs one for each row."
    )
    assert "--decode labels" in message
    assert "--unreadable likeliest, majority or an answer (No, Yes)" in message


@pytest.mark.parametrize(
    ("rules", "chances", "label"),
    [
        (["No"], None, 0),
        (["majority"], None, 1),
        (["likeliest"], {"No": 0.6, "Yes": 0.4}, 0),
        (["likeliest", "majority"], None, 1),
        (["Neutral", "2.5", "No"], None, 0),
        (["Yes", "No"], None, 1),
    ],
)
def test_the_first_rule_with_an_answer_replaces_an_unreadable_one(rules, chances, label):
    lines, filled = file_lines("WNLI.tsv", some_unreadable(chances=chances), *rules)
    assert filled == 49
    assert lines[1:3] == [f"0\t{label}", "1\t0"]
    assert {line.split("\t")[1] for line in lines[1::3]} == {str(label)}


@pytest.mark.parametrize("rules", [["likeliest"], ["Neutral"], ["1"], ["2.5"]])
def test_rows_without_a_matching_rule_are_refused(rules):
    with pytest.raises(DataError, match="49 of 146 answers could not be read"):
        file_lines("WNLI.tsv", some_unreadable(), *rules)


def test_majority_without_readable_answers_replaces_nothing():
    with pytest.raises(DataError, match="146 of 146 answers could not be read"):
        file_lines("WNLI.tsv", predictions_for("WNLI.tsv", lambda index: None, x=lambda index: ""), "majority")


def test_an_unreadable_number_needs_a_number():
    rows = predictions_for("STS-B.tsv", lambda index: None if index == 7 else 4.0)
    for rules in ([], ["likeliest"], ["majority"], ["Yes"], ["7"]):
        with pytest.raises(
            DataError, match=r"1 of 1,379 answers could not be read .* --unreadable NUMBER, from 0 to 5\."
        ):
            file_lines("STS-B.tsv", rows, *rules)
    lines, filled = file_lines("STS-B.tsv", rows, "majority", "2.5")
    assert (lines[8], filled) == ("7\t2.5", 1)


def test_rules_unknown_to_all_tasks_are_found():
    specs = [spec_of("CB.jsonl"), spec_of("STS-B.tsv")]
    assert first_unknown_rule(["likeliest", "majority", "Neutral", "2.5"], specs) is None
    assert first_unknown_rule(["likeliest", "neutral"], specs) == "neutral"
    assert first_unknown_rule(["5.1"], specs) == "5.1"
    assert first_unknown_rule(["2.5"], specs[:1]) == "2.5"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda rows: rows[:-1], r"1 of the 146 rows of the official test set is missing: 145\."),
        (lambda rows: [*rows, rows[7]], r"index, 7 is there more than once\."),
        (lambda rows: [*rows, Prediction("x", {}, None, "", "No", tags={"idx": "146"})], r"index, 146 is not in it\."),
        (lambda rows: rows[:3], r"143 of the 146 rows of the official test set are missing: 3 to 145\."),
        (lambda rows: [*rows[1:], Prediction("x", {}, None, "", "No")], "row x: has no tag 'idx'"),
        (
            lambda rows: [*rows[1:], Prediction("x", {}, None, "", "No", tags={"idx": "-1"})],
            "row x: the tag 'idx' is '-1', not a whole",
        ),
        (lambda rows: [], "146 of the 146 rows"),
    ],
)
def test_rows_other_than_the_test_set_are_refused(change, message):
    rows = change(predictions_for("WNLI.tsv"))
    with pytest.raises(DataError, match=message):
        official_indices(form_of("WNLI.tsv"), rows, "run")
    with pytest.raises(DataError, match=message):
        file_lines("WNLI.tsv", rows)


def test_labels_unknown_to_the_site_are_refused():
    spec = label_task("Bad", "Good", labels={"bad": "Bad", "1": "Good"})
    with pytest.raises(
        DataError, match=r"run: the task's label 'bad' \(Bad\) is not a label of WNLI\.tsv, which has 0, 1\."
    ):
        write_file(form_of("WNLI.tsv"), spec, predictions_for("WNLI.tsv"), [], "run")
    with pytest.raises(DataError, match=r"STS-B\.tsv wants numbers"):
        write_file(form_of("STS-B.tsv"), spec, [], [], "run")
    with pytest.raises(DataError, match=r"WNLI\.tsv wants labels"):
        write_file(form_of("WNLI.tsv"), number_task(0, 5), [], [], "run")
    with pytest.raises(DataError, match=r"row test:0: 7\.0 is not a number in the task's range"):
        file_lines("STS-B.tsv", predictions_for("STS-B.tsv", lambda index: 7.0))


def test_the_same_answers_give_the_same_zip():
    files = [
        write_file(form_of(name), spec_of(name), predictions_for(name), [], "run") for name in ("WSC.jsonl", "CB.jsonl")
    ]
    first = pack(files)
    assert first == pack(files)
    with zipfile.ZipFile(io.BytesIO(first)) as archive:
        assert archive.namelist() == ["WSC.jsonl", "CB.jsonl"]
        assert archive.read("CB.jsonl").decode() == files[1].text


def test_every_form_is_found_by_its_task():
    assert all(form_of_task(form.task) is form for form in FORMS)
    with pytest.raises(DataError, match=r"Did you mean 'superglue/wsc'"):
        form_of_task("superglue/wssc")
