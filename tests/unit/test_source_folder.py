"""Rows from the official download layout: their texts, their mistakes, and the paths to them."""

import re
from pathlib import Path

import pytest

from adjudge.errors import DataError
from adjudge.tasks import list_tasks, load_split, load_task
from adjudge.types import Example

DATA = Path(__file__).parents[2].parent / "shared" / "data"
needs_glue = pytest.mark.skipif(
    not (DATA / "glue").is_dir(), reason="the official GLUE folder is not next to the checkout"
)


MNLI_TEST = (
    "index promptID pairID genre sentence1_binary_parse sentence2_binary_parse sentence1_parse sentence2_parse "
    "sentence1 sentence2"
)


def sst2(folder: Path, content: str | bytes, split: str = "dev") -> list[Example]:
    path = folder / "SST-2" / f"{split}.tsv"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return load_split(load_task("glue/sst2"), split, folder)


def texts(examples: list[Example]) -> list[str]:
    return [example.fields["sentence"] for example in examples]


@needs_glue
@pytest.mark.parametrize(
    ("name", "file"),
    [("glue/mrpc", "MRPC/dev.tsv"), ("glue/cola", "CoLA/dev.tsv"), ("glue/ax", "AX/diagnostic-full.tsv")],
)
def test_ids_name_the_line_of_the_fields(name, file):
    lines = (DATA / "glue" / file).read_text(encoding="utf-8").split("\n")
    for example in load_split(load_task(name), "dev", DATA):
        cells = lines[int(example.id.rsplit(":", 1)[1]) - 1].split("\t")
        assert set(example.fields.values()) <= set(cells)


@needs_glue
def test_the_task_folder_is_found_at_each_depth():
    spec = load_task("glue/rte")
    assert (
        load_split(spec, "dev", DATA)
        == load_split(spec, "dev", DATA / "glue")
        == load_split(spec, "dev", DATA / "glue" / "RTE")
    )
    diagnostic = load_task("glue/ax")
    assert load_split(diagnostic, "train", str(DATA)) == load_split(diagnostic, "train", DATA / "glue")


def test_quotes_are_text_and_only_newlines_end_lines(tmp_path):
    odd = 'a "quoted\u2028 \x85 \x0b \x0c \x1c \r text'
    examples = sst2(tmp_path, f'sentence\tlabel\n"begins\t1\n{odd}\t0\nends"\t1\n')
    assert texts(examples) == ['"begins', odd, 'ends"']
    assert [example.id for example in examples] == ["dev.tsv:2", "dev.tsv:3", "dev.tsv:4"]
    assert [example.gold for example in examples] == ["Positive", "Negative", "Positive"]


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("last", ["", "{end}", "{end}{end}"])
def test_line_ends_and_byte_order_mark(tmp_path, end, mark, last):
    content = mark + f"sentence\tlabel{end}fine\t1{end}bad\t0{last.format(end=end)}".encode()
    assert [(e.fields["sentence"], e.gold) for e in sst2(tmp_path, content)] == [
        ("fine", "Positive"),
        ("bad", "Negative"),
    ]


BROKEN = [
    (
        "sentence\tlabel\nfine\t1\nno label\n",
        r"dev\.tsv:3: the row has 1 column where 2 are expected.*field 'label' is missing",
    ),
    ("sentence\tlabel\nfine\t1\textra\n", r"dev\.tsv:2: the row has 3 columns.*after field 'label'.*'extra'"),
    ("sentence\tlabel\n\nfine\t1\n", r"dev\.tsv:2: the row has 1 column"),
    ("sentence\tlabel\nfine\t2\n", r"dev\.tsv:2: '2' in column 'label' is not a label of glue/sst2.*0, 1"),
    ("sentence\tlabel\n \t1\n", r"dev\.tsv:2: field 'sentence'.*is empty"),
    ("sentence\tlabel\nfine\t\n", r"dev\.tsv:2: the label column 'label' is empty"),
    ("sentense\tlabel\nfine\t1\n", r"dev\.tsv: there is no column 'sentence'. Did you mean 'sentense'\?"),
    ("sentence\nfine\n", r"dev\.tsv: there is no column 'label'"),
    ("", r"dev\.tsv: the file is empty"),
    ("\n\n", r"dev\.tsv: the file is empty"),
    ("sentence\tlabel\n", r"dev\.tsv: the file has a header line and no rows"),
    (b"sentence\tlabel\nfine\t1\ncaf\xe9\t1\n", r"dev\.tsv:3: byte 0xe9 is not valid UTF-8 \(field 1"),
]


@pytest.mark.parametrize(("content", "message"), BROKEN, ids=[f"{number}" for number in range(len(BROKEN))])
def test_broken_files_raise_errors_with_location(tmp_path, content, message):
    with pytest.raises(DataError, match=message):
        sst2(tmp_path, content)


def test_cola_has_no_header_line(tmp_path):
    (tmp_path / "CoLA").mkdir()
    (tmp_path / "CoLA" / "dev.tsv").write_text("gj04\t1\t\tFine.\ngj04\t0\t*\tNot.\n", encoding="utf-8")
    examples = load_split(load_task("glue/cola"), "dev", tmp_path)
    assert [(e.id, e.fields["sentence"], e.gold) for e in examples] == [
        ("dev.tsv:1", "Fine.", "Yes"),
        ("dev.tsv:2", "Not.", "No"),
    ]


@pytest.mark.parametrize(
    ("score", "message"),
    [
        ("abc", "is not a number"),
        ("nan", "is not a number"),
        ("1_0", "is not a number"),
        ("5.1", "outside the range"),
        ("-1", "outside"),
    ],
)
def test_scores_are_numbers_in_range(tmp_path, score, message):
    columns = [*(f"c{number}" for number in range(7)), "sentence1", "sentence2", "score"]
    (tmp_path / "STS-B").mkdir()
    path = tmp_path / "STS-B" / "dev.tsv"
    path.write_text("\t".join(columns) + "\n" + "\t".join("x" * 9) + f"\t{score}\n", encoding="utf-8")
    with pytest.raises(DataError, match=rf"dev\.tsv:2: .*{message}"):
        load_split(load_task("glue/stsb"), "dev", tmp_path)


def test_rows_without_majority_label_are_dropped_with_a_warning(tmp_path, capsys):
    columns = [f"c{number}" for number in range(8)] + ["sentence1", "sentence2", "label1", "gold_label"]
    rows = [["x"] * 8 + ["p", "h", "neutral", gold] for gold in ("neutral", "-", "entailment", "-")]
    (tmp_path / "MNLI").mkdir()
    (tmp_path / "MNLI" / "train.tsv").write_text(
        "\n".join("\t".join(row) for row in [columns, *rows]) + "\n", encoding="utf-8"
    )
    examples = load_split(load_task("glue/mnli"), "train", tmp_path)
    assert [(e.id, e.gold) for e in examples] == [("train.tsv:2", "Neutral"), ("train.tsv:4", "Entailment")]
    assert re.search(r"train\.tsv: 2 of 4 rows have no gold answer", capsys.readouterr().err)


def qqp(folder: Path, good: int, broken: int) -> list[Example]:
    (folder / "QQP").mkdir()
    lines = ["id\tqid1\tqid2\tquestion1\tquestion2\tis_duplicate"]
    lines += [f"{number}\t1\t2\tWhy {number}?\tWhy?\t1" for number in range(good)] + ["half\ta\trow"] * broken
    (folder / "QQP" / "train.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return load_split(load_task("glue/qqp"), "train", folder)


def test_few_cut_lines_of_a_large_qqp_file_are_dropped_with_a_warning(tmp_path, capsys):
    assert len(qqp(tmp_path, 19_998, 2)) == 19_998
    assert "2 of 20,000 rows are broken and dropped" in capsys.readouterr().err.replace("\n", " ")


def test_too_many_cut_lines_are_an_error(tmp_path):
    with pytest.raises(DataError, match=r"train\.tsv:19999: the row has 3 columns"):
        qqp(tmp_path, 19_997, 3)


def test_one_cut_line_in_a_small_file_is_an_error(tmp_path):
    with pytest.raises(DataError, match=r"train\.tsv:12: the row has 3 columns"):
        qqp(tmp_path, 10, 1)


def test_missing_rows_list_every_path_tried(tmp_path):
    with pytest.raises(DataError) as raised:
        load_split(load_task("glue/sst2"), "dev", tmp_path)
    for path in ("glue/SST-2/dev.tsv", "SST-2/dev.tsv", "glue/sst2/validation-*.parquet", "sst2/validation-*.parquet"):
        assert str(tmp_path / path) in str(raised.value)
    with pytest.raises(DataError, match=r"no such folder \(--data-dir\)"):
        load_split(load_task("glue/sst2"), "dev", tmp_path / "nowhere")
    with pytest.raises(DataError, match=r"no split 'devel'. Did you mean 'dev'\?"):
        load_split(load_task("glue/sst2"), "devel", tmp_path)


TESTS = {
    "glue/cola": ("CoLA/test.tsv", "index sentence", {"sentence": 1}),
    "glue/sst2": ("SST-2/test.tsv", "index sentence", {"sentence": 1}),
    "glue/mrpc": ("MRPC/test.tsv", "index|#1 ID|#2 ID|#1 String|#2 String", {"sentence1": 3, "sentence2": 4}),
    "glue/qqp": ("QQP/test.tsv", "id question1 question2", {"question1": 1, "question2": 2}),
    "glue/stsb": (
        "STS-B/test.tsv",
        "index genre filename year old_index source1 source2 sentence1 sentence2",
        {"sentence1": 7, "sentence2": 8},
    ),
    "glue/mnli": ("MNLI/test_matched.tsv", MNLI_TEST, {"premise": 8, "hypothesis": 9}),
    "glue/mnli-mm": ("MNLI/test_mismatched.tsv", MNLI_TEST, {"premise": 8, "hypothesis": 9}),
    "glue/qnli": ("QNLI/test.tsv", "index question sentence", {"question": 1, "sentence": 2}),
    "glue/rte": ("RTE/test.tsv", "index sentence1 sentence2", {"premise": 1, "hypothesis": 2}),
    "glue/wnli": ("WNLI/test.tsv", "index sentence1 sentence2", {"sentence1": 1, "sentence2": 2}),
    "glue/ax": ("AX/diagnostic.tsv", "index sentence1 sentence2", {"premise": 1, "hypothesis": 2}),
}
"""The unlabelled file, its official columns, and the column index of each field."""


def test_every_glue_task_has_its_test_file():
    assert set(TESTS) == {name for name in list_tasks() if name.startswith("glue/")}


@pytest.mark.parametrize("name", sorted(TESTS))
def test_unlabelled_rows_have_the_official_index_and_no_gold(tmp_path, name):
    file, header, indices = TESTS[name]
    columns = header.split("|" if "|" in header else " ")
    rows = [[str(7 * number), *(f'{column} "{number}' for column in columns[1:])] for number in range(3)]
    path = tmp_path / "glue" / file
    path.parent.mkdir(parents=True)
    path.write_text("\n".join("\t".join(cells) for cells in [columns, *rows]) + "\n", encoding="utf-8")
    expected = [
        Example(
            f"{path.name}:{line}",
            {field: cells[index] for field, index in indices.items()},
            None,
            "",
            {"idx": cells[0]},
        )
        for line, cells in enumerate(rows, 2)
    ]
    assert load_split(load_task(name), "test", tmp_path) == expected


def test_no_row_of_a_test_file_is_dropped(tmp_path):
    (tmp_path / "QQP").mkdir()
    lines = ["id\tquestion1\tquestion2", *(f"{number}\tWhy?\tWhy not?" for number in range(20_000)), "half\trow"]
    (tmp_path / "QQP" / "test.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"test\.tsv:20002: the row has 2 columns"):
        load_split(load_task("glue/qqp"), "test", tmp_path)


def test_empty_second_question_of_qqp_is_allowed(tmp_path):
    (tmp_path / "QQP").mkdir()
    lines = ["id\tqid1\tqid2\tquestion1\tquestion2\tis_duplicate", "7\t1\t2\tWhy?\t\t0", "8\t1\t2\t\tWhy?\t0"]
    path = tmp_path / "QQP" / "train.tsv"
    path.write_text("\n".join(lines[:2]) + "\n", encoding="utf-8")
    (example,) = load_split(load_task("glue/qqp"), "train", tmp_path)
    assert (example.fields, example.gold, example.tags) == ({"question1": "Why?", "question2": ""}, "No", {"idx": "7"})
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"train\.tsv:3: field 'question1' is empty"):
        load_split(load_task("glue/qqp"), "train", tmp_path)


@needs_glue
def test_diagnostic_rows_have_phenomena_and_index():
    task = load_task("glue/ax")
    dev, test = load_split(task, "dev", DATA), load_split(task, "test", DATA)
    assert dev[0].tags["Logic"] == "Negation" and dev[0].tags["Domain"] == "Artificial"
    assert {name for example in dev for name, phenomenon in example.tags.items() if phenomenon} == {
        "Lexical Semantics",
        "Predicate-Argument Structure",
        "Logic",
        "Knowledge",
        "Domain",
    }
    assert [example.tags["idx"] for example in test] == [str(number) for number in range(1104)]
    assert {example.gold for example in test} == {None}
