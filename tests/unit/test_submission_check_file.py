"""What is said of one file of a submission: nothing of a right one, and of a wrong one file, line and field."""

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


def said(name, content):
    """What is said of a file with this content, one string a problem."""
    return [str(problem) for problem in check_file(form_of(name), io.BytesIO(content), name)]


def spoilt(name, line, text):
    """A right file with one line (counted from 1) in another's place."""
    lines = right_lines(form_of(name))
    lines[line - 1] = text
    return "".join(f"{each}\n" for each in lines).encode()


def test_the_test_sets_have_their_official_sizes():
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
    (1, "id\tlabel", ["WNLI.tsv:1: the header is 'id\\tlabel'; it has to be index, a tab, prediction"]),
    (
        1,
        '"index"\t"prediction"',
        ['WNLI.tsv:1: the header is \'"index"\\t"prediction"\'; it has to be index, a tab, prediction'],
    ),
    (1, "", ["WNLI.tsv:1: the header is ''; it has to be index, a tab, prediction"]),
    (3, "1\t2", ["WNLI.tsv:3: prediction: '2' is none of 0, 1"]),
    (3, "1\t1.0", ["WNLI.tsv:3: prediction: '1.0' is none of 0, 1"]),
    (3, "1\t 1", ["WNLI.tsv:3: prediction: ' 1' is none of 0, 1"]),
    (3, "1\t", ["WNLI.tsv:3: prediction: '' is none of 0, 1"]),
    (3, "1\tentailment", ["WNLI.tsv:3: prediction: 'entailment' is none of 0, 1"]),
    (3, "1\t\x1b[31m1", ["WNLI.tsv:3: prediction: '\\x1b[31m1' is none of 0, 1"]),
    (
        3,
        "1",
        [
            "WNLI.tsv:3: prediction: the line has 1 column; it has to be an index, a tab and a prediction",
            "WNLI.tsv: index: 1 of 146 rows is missing: 1",
        ],
    ),
    (
        3,
        "1\t1\t1",
        [
            "WNLI.tsv:3: the line has 3 columns; it has to be an index, a tab and a prediction",
            "WNLI.tsv: index: 1 of 146 rows is missing: 1",
        ],
    ),
    (
        3,
        "",
        [
            "WNLI.tsv:3: prediction: the line is empty; it has to be an index, a tab and a prediction",
            "WNLI.tsv: index: 1 of 146 rows is missing: 1",
        ],
    ),
    (
        3,
        "1,1",
        [
            "WNLI.tsv:3: prediction: the line has 1 column; it has to be an index, a tab and a prediction",
            "WNLI.tsv: index: 1 of 146 rows is missing: 1",
        ],
    ),
    (
        3,
        "0\t1",
        [
            "WNLI.tsv:3: index: row 0 is here a second time; first in line 2",
            "WNLI.tsv: index: 1 of 146 rows is missing: 1",
        ],
    ),
    (
        3,
        "146\t1",
        [
            "WNLI.tsv:3: index: 146 is no row of the official test set, which has 0 to 145",
            "WNLI.tsv: index: 1 of 146 rows is missing: 1",
        ],
    ),
    *(
        (
            3,
            f"{index}\t1",
            [
                f"WNLI.tsv:3: index: '{index}' is not a whole number as the test set has it",
                "WNLI.tsv: index: 1 of 146 rows is missing: 1",
            ],
        )
        for index in ("-1", "1.0", "01", " 1", "x", "", "１", "٣")
    ),
]


@pytest.mark.parametrize(("line", "text", "problems"), TABLES)
def test_a_wrong_line_of_a_table_is_named(line, text, problems):
    assert said("WNLI.tsv", spoilt("WNLI.tsv", line, text)) == problems


def test_a_file_without_header_is_one_problem_and_no_lost_row():
    lines = right_lines(form_of("WNLI.tsv"))[1:]
    assert said("WNLI.tsv", "".join(f"{line}\n" for line in lines).encode()) == [
        "WNLI.tsv:1: there is no header line; it has to be index, a tab, prediction"
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
def test_a_number_outside_the_scale_is_named(number, problem):
    assert said("STS-B.tsv", spoilt("STS-B.tsv", 9, f"7\t{number}")) == [f"STS-B.tsv:9: prediction: {problem}"]


@pytest.mark.parametrize("number", ["0", "5", "5.0", "+2.25", ".5", "3.", "1e-05", "-0.0"])
def test_numbers_may_be_written_as_programs_write_them(number):
    assert said("STS-B.tsv", spoilt("STS-B.tsv", 9, f"7\t{number}")) == []


LOST = "1 of 146 rows is missing: 1"
OBJECTS = [
    ("WSC.jsonl", '{"idx": 1, "label": "true"}', ['WSC.jsonl:2: label: is "true" and none of "True", "False"']),
    ("WSC.jsonl", '{"idx": 1, "label": true}', ['WSC.jsonl:2: label: is true and none of "True", "False"']),
    ("BoolQ.jsonl", '{"idx": 1, "label": "True"}', ['BoolQ.jsonl:2: label: is "True" and none of "true", "false"']),
    ("BoolQ.jsonl", '{"idx": 1, "label": false}', ['BoolQ.jsonl:2: label: is false and none of "true", "false"']),
    ("WiC.jsonl", '{"idx": 1, "label": 1}', ['WiC.jsonl:2: label: is 1 and none of "true", "false"']),
    ("COPA.jsonl", '{"idx": 1, "label": "1"}', ['COPA.jsonl:2: label: is "1" and none of 0, 1']),
    ("COPA.jsonl", '{"idx": 1, "label": true}', ["COPA.jsonl:2: label: is true and none of 0, 1"]),
    ("COPA.jsonl", '{"idx": 1, "label": 1.0}', ["COPA.jsonl:2: label: is 1.0 and none of 0, 1"]),
    ("COPA.jsonl", '{"idx": 1, "label": 2}', ["COPA.jsonl:2: label: is 2 and none of 0, 1"]),
    (
        "CB.jsonl",
        '{"idx": 1, "label": "Neutral"}',
        ['CB.jsonl:2: label: is "Neutral" and none of "entailment", "neutral", "contradiction"'],
    ),
    (
        "AX-g.jsonl",
        '{"idx": 1, "label": "neutral"}',
        ['AX-g.jsonl:2: label: is "neutral" and none of "entailment", "not_entailment"'],
    ),
    (
        "AX-g.jsonl",
        '{"idx": 1, "label": null}',
        ['AX-g.jsonl:2: label: is null and none of "entailment", "not_entailment"'],
    ),
    ("ReCoRD.jsonl", '{"idx": 1, "label": " "}', ['ReCoRD.jsonl:2: label: is " " and not the text of an entity']),
    ("ReCoRD.jsonl", '{"idx": 1, "label": 3}', ["ReCoRD.jsonl:2: label: is 3 and not the text of an entity"]),
    ("WSC.jsonl", '{"idx": 1, "lable": "True"}', ["WSC.jsonl:2: label: the field is missing"]),
    ("WSC.jsonl", '{"label": "True"}', ["WSC.jsonl:2: idx: the field is missing", f"WSC.jsonl: idx: {LOST}"]),
    (
        "WSC.jsonl",
        '{"idx": "1", "label": "True"}',
        ['WSC.jsonl:2: idx: is "1" and not a whole number as the test set has it', f"WSC.jsonl: idx: {LOST}"],
    ),
    (
        "WSC.jsonl",
        '{"idx": 1.0, "label": "True"}',
        ["WSC.jsonl:2: idx: is 1.0 and not a whole number as the test set has it", f"WSC.jsonl: idx: {LOST}"],
    ),
    (
        "WSC.jsonl",
        '{"idx": {"a": 1}, "label": "True"}',
        ["WSC.jsonl:2: idx: is an object and not a whole number as the test set has it", f"WSC.jsonl: idx: {LOST}"],
    ),
    (
        "WSC.jsonl",
        '{"idx": 1, "idx": 1, "label": "True"}',
        ["WSC.jsonl:2: the field 'idx' is there twice", f"WSC.jsonl: idx: {LOST}"],
    ),
    ("WSC.jsonl", "[1]", ["WSC.jsonl:2: the line is a list and not an object", f"WSC.jsonl: idx: {LOST}"]),
    ("WSC.jsonl", '"x"', ['WSC.jsonl:2: the line is "x" and not an object', f"WSC.jsonl: idx: {LOST}"]),
    ("WSC.jsonl", "", ["WSC.jsonl:2: the line is empty", f"WSC.jsonl: idx: {LOST}"]),
    ("WSC.jsonl", '{"idx": 1,', ["WSC.jsonl:2: the line is not JSON: "]),
    (
        "WSC.jsonl",
        '{"idx": 1, "label": NaN}',
        ["WSC.jsonl:2: the line is not JSON: there is no NaN in it", f"WSC.jsonl: idx: {LOST}"],
    ),
    (
        "WSC.jsonl",
        "[" * 100_000,
        ["WSC.jsonl:2: the line is not JSON that can be read: it is nested too deep", f"WSC.jsonl: idx: {LOST}"],
    ),
    ("WSC.jsonl", f'{{"idx": {"9" * 9999}, "label": "True"}}', ["WSC.jsonl:2: the line has a number that is too long"]),
]


@pytest.mark.parametrize(("name", "text", "problems"), OBJECTS)
def test_a_wrong_line_of_json_is_named(name, text, problems):
    found = said(name, spoilt(name, 2, text))
    assert found[0].startswith(problems[0])
    assert found[1:] == problems[1:] or len(problems) == 1


def test_indices_that_the_official_file_has_as_text_may_be_text():
    assert said("AX-b.jsonl", spoilt("AX-b.jsonl", 2, '{"idx": "1", "label": "entailment"}')) == []
    assert said("AX-b.jsonl", spoilt("AX-b.jsonl", 2, '{"idx": "one", "label": "entailment"}')) != []


def test_fields_beyond_those_asked_for_do_no_harm():
    assert said("WSC.jsonl", spoilt("WSC.jsonl", 2, '{"idx": 1, "label": "True", "note": [1, {"a": null}]}')) == []


def nested(change):
    """What is said of a right MultiRC whose second passage `change` has changed."""
    passage = json.loads(right_lines(form_of("MultiRC.jsonl"))[1])
    change(passage)
    return said("MultiRC.jsonl", spoilt("MultiRC.jsonl", 2, json.dumps(passage)))


AT = "MultiRC.jsonl:2: passage.questions"


@pytest.mark.parametrize(
    ("change", "first", "lost"),
    [
        (lambda p: p.pop("idx"), "MultiRC.jsonl:2: idx: the field is missing", 0),
        (lambda p: p.pop("passage"), "MultiRC.jsonl:2: passage: the field is missing", 60),
        (lambda p: p.update(passage=[]), "MultiRC.jsonl:2: passage: is a list and not an object", 60),
        (lambda p: p["passage"].pop("questions"), f"{AT}: the field is missing", 60),
        (lambda p: p["passage"].update(questions={}), f"{AT}: is an object and not a list", 60),
        (lambda p: p["passage"]["questions"].__setitem__(1, 7), f"{AT}[1]: is 7 and not an object", 6),
        (lambda p: p["passage"]["questions"][1].pop("idx"), f"{AT}[1].idx: the field is missing", 0),
        (lambda p: p["passage"]["questions"][1].pop("answers"), f"{AT}[1].answers: the field is missing", 6),
        (lambda p: p["passage"]["questions"][1].update(answers="0"), f'{AT}[1].answers: is "0" and not a list', 6),
        (
            lambda p: p["passage"]["questions"][1]["answers"].__setitem__(2, 0),
            f"{AT}[1].answers[2]: is 0 and not an object",
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
            f'{AT}[1].answers[2].label: is "1" and none of 0, 1',
            0,
        ),
    ],
)
def test_a_wrong_place_within_a_passage_is_named(change, first, lost):
    found = nested(change)
    assert found[0] == first
    verb = "is" if lost == 1 else "are"
    assert len(found) == (2 if lost else 1)
    assert not lost or found[1].startswith(
        f"MultiRC.jsonl: passage.questions.answers.idx: {lost} of 9,693 rows {verb} missing: 6"
    )


def test_an_option_in_two_passages_is_double():
    lines = right_lines(form_of("MultiRC.jsonl"))
    found = said("MultiRC.jsonl", "".join(f"{line}\n" for line in [*lines, lines[3]]).encode())
    assert (
        found[0]
        == f"MultiRC.jsonl:{len(lines) + 1}: passage.questions.answers.idx: row 180 is here a second time; first in line 4"
    )
    assert found[SHOWN] == "MultiRC.jsonl: passage.questions.answers.idx: 55 more lines have this"


@pytest.mark.parametrize("name", ["WNLI.tsv", "WSC.jsonl"])
def test_rows_out_of_order_are_named(name):
    lines = right_lines(form_of(name))
    lines[5], lines[8] = lines[8], lines[5]
    found = said(name, "".join(f"{line}\n" for line in lines).encode())
    assert len(found) == 3
    assert all("comes after row" in problem for problem in found)


@pytest.mark.parametrize("name", ["WNLI.tsv", "WSC.jsonl"])
def test_bytes_that_no_site_reads_are_named(name):
    right = right_file(form_of(name))
    assert said(name, right.removesuffix(b"\n")) == []
    assert said(name, b"")[0] == f"{name}: the file is empty"
    ends = said(name, right.replace(b"\n", b"\r\n"))
    assert ends[0] == rf"{name}:1: the line ends with \r\n; end lines with \n alone"
    assert len(ends) == SHOWN + 1
    assert ends[-1] == f"{name}: {len(right.splitlines()) - SHOWN} more lines have this"
    assert said(name, b"\xef\xbb\xbf" + right) == [
        f"{name}:1: the file begins with a byte-order mark; save it as UTF-8 without one"
    ]
    assert said(name, right.decode().encode("utf-16"))[0] == f"{name}:1: the file is UTF-16, not UTF-8"
    line = right.split(b"\n")[2]
    broken = said(name, right.replace(line, line[:-1] + b"\xe9" + line[-1:], 1))
    assert broken[0].startswith(f"{name}:3: byte 0xe9 (byte {len(line)} of the line) is not valid UTF-8")


def test_a_carriage_return_alone_ends_no_line():
    content = right_file(form_of("WNLI.tsv")).replace(b"\n", b"\r")
    assert said("WNLI.tsv", content)[0].startswith("WNLI.tsv:1: the header is 'index\\tprediction\\r0\\t0")


def test_a_kind_of_problem_is_shown_a_few_times_and_counted():
    lines = ["index\tprediction", *(f"{index}\tyes" for index in range(146))]
    found = said("WNLI.tsv", "\n".join(lines).encode())
    assert len(found) == SHOWN + 1
    assert found[-1] == f"WNLI.tsv: prediction: {146 - SHOWN} more lines have this"


def test_numbers_are_listed_in_runs():
    assert listed([1]) == "1"
    assert listed([1, 2, 3, 7, 9, 10]) == "1 to 3, 7, 9 to 10"
    assert listed(list(range(0, 100, 2)), shown=3) == "0, 2, 4, …"


def test_a_long_line_is_skipped_and_the_next_is_read():
    content = spoilt("WNLI.tsv", 3, "1\t" + "1" * (3 * MAX_LINE_BYTES))
    assert said("WNLI.tsv", content) == [
        "WNLI.tsv:3: the line is longer than 256 KiB",
        "WNLI.tsv: index: 1 of 146 rows is missing: 1",
    ]
    assert 10 * len(right_file(form_of("QQP.tsv"))) < MAX_FILE_BYTES
