"""Checks of one file of a submission: a right one passes, problems name file, line and field."""

import io
import json
import re
from pathlib import Path

import pytest
from submissions import form_of, right_file, right_lines

from adjudge.submission.check_file import MAX_FILE_BYTES, MAX_LINE_BYTES, check_file
from adjudge.submission.formats import FORMS, SUITES
from adjudge.submission.problems import SHOWN, listed

OFFICIAL_ROWS = {
    "CoLA.tsv": 1063,
    "SST-2.tsv": 1821,
    "MRPC.tsv": 1725,
    "STS-B.tsv": 1379,
    "MNLI-m.tsv": 9796,
    "MNLI-mm.tsv": 9847,
    "QNLI.tsv": 5463,
    "QQP.tsv": 390965,
    "RTE.tsv": 3000,
    "WNLI.tsv": 146,
    "AX.tsv": 1104,
    "BoolQ.jsonl": 3245,
    "CB.jsonl": 250,
    "COPA.jsonl": 500,
    "MultiRC.jsonl": 9693,
    "ReCoRD.jsonl": 10000,
    "RTE.jsonl": 3000,
    "WiC.jsonl": 1400,
    "WSC.jsonl": 146,
    "AX-b.jsonl": 1104,
    "AX-g.jsonl": 356,
}


def problems_of(name, content):
    """Return the problems of a file with this content as strings."""
    return [str(problem) for problem in check_file(form_of(name), io.BytesIO(content), name)]


def spoilt(name, line, text):
    """Return a right file with one line (counted from 1) replaced."""
    lines = right_lines(form_of(name))
    lines[line - 1] = text
    return "".join(f"{each}\n" for each in lines).encode()


def test_the_forms_have_the_official_sizes():
    assert {form.file: form.rows for form in FORMS} == OFFICIAL_ROWS
    assert [len(forms) for forms in SUITES.values()] == [11, 10]


def test_the_documentation_has_the_forms():
    page = (Path(__file__).parents[2] / "docs/reference/files.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\S+?)` \| ([\d,]+) \| ([^|]+) \| ([^|]+) \|$", page, re.MULTILINE)
    wanted = []
    for form in FORMS:
        runs = f"`{form.task}`" + (f", else `{form.judged_by}`" if form.judged_by else "")
        words = ", ".join(map(json.dumps if form.is_json else str, form.labels))
        labels = {"number": "a number from 0 to 5", "entity": "text of the chosen entity"}.get(form.shape, words)
        wanted.append((form.file, f"{form.rows:,}", runs, labels))
    assert rows == wanted


TABLES = [
    (1, "id\tlabel", ["WNLI.tsv:1: the header is 'id\\tlabel'; it must be index, a tab, prediction"]),
    (
        1,
        '"index"\t"prediction"',
        ['WNLI.tsv:1: the header is \'"index"\\t"prediction"\'; it must be index, a tab, prediction'],
    ),
    (1, "", ["WNLI.tsv:1: the header is ''; it must be index, a tab, prediction"]),
    (3, "1\t2", ["WNLI.tsv:3: prediction: '2' is not one of 0, 1"]),
    (3, "1\t1.0", ["WNLI.tsv:3: prediction: '1.0' is not one of 0, 1"]),
    (3, "1\t 1", ["WNLI.tsv:3: prediction: ' 1' is not one of 0, 1"]),
    (3, "1\t", ["WNLI.tsv:3: prediction: '' is not one of 0, 1"]),
    (3, "1\tentailment", ["WNLI.tsv:3: prediction: 'entailment' is not one of 0, 1"]),
    (3, "1\t\x1b[31m1", ["WNLI.tsv:3: prediction: '\\x1b[31m1' is not one of 0, 1"]),
    (
        3,
        "1",
        [
            "WNLI.tsv:3: prediction: the line has 1 column; it must be an index, a tab and a prediction",
            "WNLI.tsv: index: 1 of 146 rows is missing: 1",
        ],
    ),
    (
        3,
        "1\t1\t1",
        [
            "WNLI.tsv:3: the line has 3 columns; it must be an index, a tab and a prediction",
            "WNLI.tsv: index: 1 of 146 rows is missing: 1",
        ],
    ),
    (
        3,
        "",
        [
            "WNLI.tsv:3: prediction: the line is empty; it must be an index, a tab and a prediction",
            "WNLI.tsv: index: 1 of 146 rows is missing: 1",
        ],
    ),
    (
        3,
        "1,1",
        [
            "WNLI.tsv:3: prediction: the line has 1 column; it must be an index, a tab and a prediction",
            "WNLI.tsv: index: 1 of 146 rows is missing: 1",
        ],
    ),
    (
        3,
        "0\t1",
        [
            "WNLI.tsv:3: index: row 0 occurs again; it was first in line 2",
            "WNLI.tsv: index: 1 of 146 rows is missing: 1",
        ],
    ),
    (
        3,
        "146\t1",
        [
            "WNLI.tsv:3: index: 146 is not a row of the official test set, which has 0 to 145",
            "WNLI.tsv: index: 1 of 146 rows is missing: 1",
        ],
    ),
    *(
        (
            3,
            f"{index}\t1",
            [
                f"WNLI.tsv:3: index: '{index}' is not a whole number as in the test set",
                "WNLI.tsv: index: 1 of 146 rows is missing: 1",
            ],
        )
        for index in ("-1", "1.0", "01", " 1", "x", "", "１", "٣")
    ),
]


@pytest.mark.parametrize(("line", "text", "problems"), TABLES)
def test_a_wrong_line_of_a_table_is_reported(line, text, problems):
    assert problems_of("WNLI.tsv", spoilt("WNLI.tsv", line, text)) == problems


def test_a_missing_header_is_one_problem_without_lost_rows():
    lines = right_lines(form_of("WNLI.tsv"))[1:]
    assert problems_of("WNLI.tsv", "".join(f"{line}\n" for line in lines).encode()) == [
        "WNLI.tsv:1: there is no header line; it must be index, a tab, prediction"
    ]


@pytest.mark.parametrize(
    ("number", "problem"),
    [
        ("5.01", "'5.01' is outside 0 to 5"),
        ("-0.1", "'-0.1' is outside 0 to 5"),
        ("1e9", "'1e9' is outside 0 to 5"),
        ("nan", "'nan' is not a number"),
        ("inf", "'inf' is not a number"),
        ("1_0", "'1_0' is not a number"),
        ("2,5", "'2,5' is not a number"),
        ("", "'' is not a number"),
        ("٣", "'٣' is not a number"),
        ("1e99999", "'1e99999' is not a number"),
    ],
)
def test_a_number_outside_the_scale_is_reported(number, problem):
    assert problems_of("STS-B.tsv", spoilt("STS-B.tsv", 9, f"7\t{number}")) == [f"STS-B.tsv:9: prediction: {problem}"]


@pytest.mark.parametrize("number", ["0", "5", "5.0", "+2.25", ".5", "3.", "1e-05", "-0.0"])
def test_numbers_in_the_notations_of_programs_are_allowed(number):
    assert problems_of("STS-B.tsv", spoilt("STS-B.tsv", 9, f"7\t{number}")) == []


LOST = "1 of 146 rows is missing: 1"
OBJECTS = [
    ("WSC.jsonl", '{"idx": 1, "label": "true"}', ['WSC.jsonl:2: label: is "true", not one of "True", "False"']),
    ("WSC.jsonl", '{"idx": 1, "label": true}', ['WSC.jsonl:2: label: is true, not one of "True", "False"']),
    ("BoolQ.jsonl", '{"idx": 1, "label": "True"}', ['BoolQ.jsonl:2: label: is "True", not one of "true", "false"']),
    ("BoolQ.jsonl", '{"idx": 1, "label": false}', ['BoolQ.jsonl:2: label: is false, not one of "true", "false"']),
    ("WiC.jsonl", '{"idx": 1, "label": 1}', ['WiC.jsonl:2: label: is 1, not one of "true", "false"']),
    ("COPA.jsonl", '{"idx": 1, "label": "1"}', ['COPA.jsonl:2: label: is "1", not one of 0, 1']),
    ("COPA.jsonl", '{"idx": 1, "label": true}', ["COPA.jsonl:2: label: is true, not one of 0, 1"]),
    ("COPA.jsonl", '{"idx": 1, "label": 1.0}', ["COPA.jsonl:2: label: is 1.0, not one of 0, 1"]),
    ("COPA.jsonl", '{"idx": 1, "label": 2}', ["COPA.jsonl:2: label: is 2, not one of 0, 1"]),
    (
        "CB.jsonl",
        '{"idx": 1, "label": "Neutral"}',
        ['CB.jsonl:2: label: is "Neutral", not one of "entailment", "neutral", "contradiction"'],
    ),
    (
        "AX-g.jsonl",
        '{"idx": 1, "label": "neutral"}',
        ['AX-g.jsonl:2: label: is "neutral", not one of "entailment", "not_entailment"'],
    ),
    (
        "AX-g.jsonl",
        '{"idx": 1, "label": null}',
        ['AX-g.jsonl:2: label: is null, not one of "entailment", "not_entailment"'],
    ),
    ("ReCoRD.jsonl", '{"idx": 1, "label": " "}', ['ReCoRD.jsonl:2: label: is " ", not the text of an entity']),
    ("ReCoRD.jsonl", '{"idx": 1, "label": 3}', ["ReCoRD.jsonl:2: label: is 3, not the text of an entity"]),
    ("WSC.jsonl", '{"idx": 1, "lable": "True"}', ["WSC.jsonl:2: label: the field is missing"]),
    ("WSC.jsonl", '{"label": "True"}', ["WSC.jsonl:2: idx: the field is missing", f"WSC.jsonl: idx: {LOST}"]),
    (
        "WSC.jsonl",
        '{"idx": "1", "label": "True"}',
        ['WSC.jsonl:2: idx: is "1", not a whole number as in the test set', f"WSC.jsonl: idx: {LOST}"],
    ),
    (
        "WSC.jsonl",
        '{"idx": 1.0, "label": "True"}',
        ["WSC.jsonl:2: idx: is 1.0, not a whole number as in the test set", f"WSC.jsonl: idx: {LOST}"],
    ),
    (
        "WSC.jsonl",
        '{"idx": {"a": 1}, "label": "True"}',
        ["WSC.jsonl:2: idx: is an object, not a whole number as in the test set", f"WSC.jsonl: idx: {LOST}"],
    ),
    (
        "WSC.jsonl",
        '{"idx": 1, "idx": 1, "label": "True"}',
        ["WSC.jsonl:2: the field 'idx' occurs twice", f"WSC.jsonl: idx: {LOST}"],
    ),
    ("WSC.jsonl", "[1]", ["WSC.jsonl:2: the line is a list, not an object", f"WSC.jsonl: idx: {LOST}"]),
    ("WSC.jsonl", '"x"', ['WSC.jsonl:2: the line is "x", not an object', f"WSC.jsonl: idx: {LOST}"]),
    ("WSC.jsonl", "", ["WSC.jsonl:2: the line is empty", f"WSC.jsonl: idx: {LOST}"]),
    ("WSC.jsonl", '{"idx": 1,', ["WSC.jsonl:2: the line is not JSON: "]),
    (
        "WSC.jsonl",
        '{"idx": 1, "label": NaN}',
        ["WSC.jsonl:2: the line is not JSON, which has no NaN", f"WSC.jsonl: idx: {LOST}"],
    ),
    (
        "WSC.jsonl",
        "[" * 100_000,
        ["WSC.jsonl:2: the line cannot be read as JSON: it is nested too deeply", f"WSC.jsonl: idx: {LOST}"],
    ),
    ("WSC.jsonl", f'{{"idx": {"9" * 9999}, "label": "True"}}', ["WSC.jsonl:2: the line has a number that is too long"]),
]


@pytest.mark.parametrize(("name", "text", "problems"), OBJECTS)
def test_a_wrong_line_of_json_is_reported(name, text, problems):
    reported = problems_of(name, spoilt(name, 2, text))
    assert reported[0].startswith(problems[0])
    assert reported[1:] == problems[1:] or len(problems) == 1


def test_indices_may_be_text_where_the_official_file_has_text():
    assert problems_of("AX-b.jsonl", spoilt("AX-b.jsonl", 2, '{"idx": "1", "label": "entailment"}')) == []
    assert problems_of("AX-b.jsonl", spoilt("AX-b.jsonl", 2, '{"idx": "one", "label": "entailment"}')) != []


def test_additional_fields_are_allowed():
    assert (
        problems_of("WSC.jsonl", spoilt("WSC.jsonl", 2, '{"idx": 1, "label": "True", "note": [1, {"a": null}]}')) == []
    )


def nested(change):
    """Return the problems of a right MultiRC file after `change` of its second passage."""
    passage = json.loads(right_lines(form_of("MultiRC.jsonl"))[1])
    change(passage)
    return problems_of("MultiRC.jsonl", spoilt("MultiRC.jsonl", 2, json.dumps(passage)))


AT = "MultiRC.jsonl:2: passage.questions"


@pytest.mark.parametrize(
    ("change", "first", "lost"),
    [
        (lambda p: p.pop("idx"), "MultiRC.jsonl:2: idx: the field is missing", 0),
        (lambda p: p.pop("passage"), "MultiRC.jsonl:2: passage: the field is missing", 60),
        (lambda p: p.update(passage=[]), "MultiRC.jsonl:2: passage: is a list, not an object", 60),
        (lambda p: p["passage"].pop("questions"), f"{AT}: the field is missing", 60),
        (lambda p: p["passage"].update(questions={}), f"{AT}: is an object, not a list", 60),
        (lambda p: p["passage"]["questions"].__setitem__(1, 7), f"{AT}[1]: is 7, not an object", 6),
        (lambda p: p["passage"]["questions"][1].pop("idx"), f"{AT}[1].idx: the field is missing", 0),
        (lambda p: p["passage"]["questions"][1].pop("answers"), f"{AT}[1].answers: the field is missing", 6),
        (lambda p: p["passage"]["questions"][1].update(answers="0"), f'{AT}[1].answers: is "0", not a list', 6),
        (
            lambda p: p["passage"]["questions"][1]["answers"].__setitem__(2, 0),
            f"{AT}[1].answers[2]: is 0, not an object",
            1,
        ),
        (
            lambda p: p["passage"]["questions"][1]["answers"][2].pop("idx"),
            f"{AT}[1].answers[2].idx: the field is missing",
            1,
        ),
        (
            lambda p: p["passage"]["questions"][1]["answers"][2].pop("label"),
            f"{AT}[1].answers[2].label: the field is missing",
            0,
        ),
        (
            lambda p: p["passage"]["questions"][1]["answers"][2].update(label="1"),
            f'{AT}[1].answers[2].label: is "1", not one of 0, 1',
            0,
        ),
    ],
)
def test_a_wrong_field_within_a_passage_is_named(change, first, lost):
    reported = nested(change)
    assert reported[0] == first
    verb = "is" if lost == 1 else "are"
    assert len(reported) == (2 if lost else 1)
    assert not lost or reported[1].startswith(
        f"MultiRC.jsonl: passage.questions.answers.idx: {lost} of 9,693 rows {verb} missing: 6"
    )


def test_an_option_in_two_passages_is_repeated():
    lines = right_lines(form_of("MultiRC.jsonl"))
    reported = problems_of("MultiRC.jsonl", "".join(f"{line}\n" for line in [*lines, lines[3]]).encode())
    field = "passage.questions.answers.idx"
    assert reported[0] == f"MultiRC.jsonl:{len(lines) + 1}: {field}: row 180 occurs again; it was first in line 4"
    assert reported[SHOWN] == "MultiRC.jsonl: passage.questions.answers.idx: 55 more lines have this problem"


@pytest.mark.parametrize("name", ["WNLI.tsv", "WSC.jsonl"])
def test_rows_out_of_order_are_reported(name):
    lines = right_lines(form_of(name))
    lines[5], lines[8] = lines[8], lines[5]
    reported = problems_of(name, "".join(f"{line}\n" for line in lines).encode())
    assert len(reported) == 3
    assert all("comes after row" in problem for problem in reported)


@pytest.mark.parametrize("name", ["WNLI.tsv", "WSC.jsonl"])
def test_bytes_that_no_site_reads_are_reported(name):
    right = right_file(form_of(name))
    assert problems_of(name, right.removesuffix(b"\n")) == []
    assert problems_of(name, b"")[0] == f"{name}: the file is empty"
    ends = problems_of(name, right.replace(b"\n", b"\r\n"))
    assert ends[0] == rf"{name}:1: the line ends with \r\n; end lines with \n alone"
    assert len(ends) == SHOWN + 1
    assert ends[-1] == f"{name}: {len(right.splitlines()) - SHOWN} more lines have this problem"
    assert problems_of(name, b"\xef\xbb\xbf" + right) == [
        f"{name}:1: the file begins with a byte-order mark; save it as UTF-8 without one"
    ]
    assert problems_of(name, right.decode().encode("utf-16"))[0] == f"{name}:1: the file is UTF-16, not UTF-8"
    line = right.split(b"\n")[2]
    broken = problems_of(name, right.replace(line, line[:-1] + b"\xe9" + line[-1:], 1))
    assert broken[0].startswith(f"{name}:3: byte 0xe9 (byte {len(line)} of the line) is not valid UTF-8")


def test_a_carriage_return_alone_does_not_end_a_line():
    content = right_file(form_of("WNLI.tsv")).replace(b"\n", b"\r")
    assert problems_of("WNLI.tsv", content)[0].startswith("WNLI.tsv:1: the header is 'index\\tprediction\\r0\\t0")


def test_each_kind_of_problem_is_shown_a_few_times_and_counted():
    lines = ["index\tprediction", *(f"{index}\tyes" for index in range(146))]
    reported = problems_of("WNLI.tsv", "\n".join(lines).encode())
    assert len(reported) == SHOWN + 1
    assert reported[-1] == f"WNLI.tsv: prediction: {146 - SHOWN} more lines have this problem"


def test_numbers_are_listed_in_runs():
    assert listed([1]) == "1"
    assert listed([1, 2, 3, 7, 9, 10]) == "1 to 3, 7, 9 to 10"
    assert listed(list(range(0, 100, 2)), shown=3) == "0, 2, 4, …"


def test_a_long_line_is_skipped_and_the_next_is_read():
    content = spoilt("WNLI.tsv", 3, "1\t" + "1" * (3 * MAX_LINE_BYTES))
    assert problems_of("WNLI.tsv", content) == [
        "WNLI.tsv:3: the line is longer than 256 KiB",
        "WNLI.tsv: index: 1 of 146 rows is missing: 1",
    ]
    assert 10 * len(right_file(form_of("QQP.tsv"))) < MAX_FILE_BYTES
