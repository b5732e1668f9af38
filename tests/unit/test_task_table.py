"""The user's own tables: cells keep their text, and errors name their location."""

import csv

import pandas
import pytest

from adjudge.errors import DataError
from adjudge.tasks import examples_for_prediction, load_split, load_task, read_table
from adjudge.tasks.infer import infer_task
from adjudge.types import Example


def write(folder, name, content):
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8"))
    return path


def test_csv_quotes_are_syntax_and_cells_keep_their_text(tmp_path):
    path = write(tmp_path, "a.csv", 'id,text\n007,"one, ""two""\r\nthree\u2028 "\n1.50, spaced \n\nNA,null\n')
    columns, rows = read_table(path)
    assert columns == ["id", "text"]
    assert [dict(row) for row in rows] == [
        {"id": "007", "text": 'one, "two"\r\nthree\u2028 '},
        {"id": "1.50", "text": " spaced "},
        {"id": "NA", "text": "null"},
    ]
    assert [row.line for row in rows] == [2, 4, 6]


def test_csv_byte_order_mark_crlf_and_huge_cells(tmp_path):
    huge = "x" * 300_000
    before = csv.field_size_limit()
    columns, rows = read_table(write(tmp_path, "a.CSV", b"\xef\xbb\xbftext,label\r\n" + huge.encode() + b",1\r\n"))
    assert columns == ["text", "label"] and rows == [{"text": huge, "label": "1"}]
    assert csv.field_size_limit() == before


def test_tsv_quotes_are_text(tmp_path):
    _, rows = read_table(write(tmp_path, "a.tsv", '\ufefftext\tlabel\r\n"open\t1\r\nit""s\u2028\t2\r\n'))
    assert rows == [{"text": '"open', "label": "1"}, {"text": 'it""s\u2028', "label": "2"}]


def test_jsonl_keeps_spelling_and_fills_missing_keys(tmp_path):
    path = write(
        tmp_path,
        "a.jsonl",
        '{"n": 1.50, "t": "caf\\u00e9\u2028", "b": true}\n\n{"t": null, "n": 007e}\n'.replace("007e", "1e3"),
    )
    columns, rows = read_table(path)
    assert columns == ["n", "t", "b"]
    assert rows == [{"n": "1.50", "t": "caf\u00e9\u2028", "b": "true"}, {"n": "1e3", "t": "", "b": ""}]
    assert [row.line for row in rows] == [1, 3]


def test_parquet_as_pandas_writes_it(tmp_path):
    frame = pandas.DataFrame({"text": ["a", None], "n": [1, 2], "f": [1.5, float("nan")], "ok": [True, False]})
    frame.to_parquet(tmp_path / "a.parquet")
    columns, rows = read_table(tmp_path / "a.parquet")
    assert columns == ["text", "n", "f", "ok"]
    assert rows == [{"text": "a", "n": "1", "f": "1.5", "ok": "true"}, {"text": "", "n": "2", "f": "", "ok": "false"}]


BROKEN = [
    ("a.csv", "text,label\na,1\nb\n", r"a\.csv:3: the row has 1 cells.*column 'label' is missing"),
    ("a.csv", 'text,label\n"a\nb",1\na,b,1\n', r"a\.csv:4: the row has 3 cells.*belongs to no column: '1'"),
    ("a.csv", 'text,label\na,1\n"never closed,1\n', r"a\.csv:3: is not valid CSV"),
    ("a.csv", 'text,label\n"a" b,1\n', r"a\.csv:2: is not valid CSV"),
    ("a.csv", "", r"a\.csv: the file is empty"),
    ("a.csv", "text,label\n", r"a\.csv: the file has columns \(text, label\) and no rows"),
    ("a.csv", b"text,label\na,1\n\xff,1\n", r"a\.csv:3: byte 0xff is not valid UTF-8"),
    ("a.tsv", "text\tlabel\na\n", r"a\.tsv:2: the row has 1 column"),
    ("a.jsonl", '{"text": "a"}\n{"text": \n', r"a\.jsonl:2: is not JSON"),
    ("a.jsonl", '{"text": "a"}\n["a"]\n', r"a\.jsonl:2: is a list, not an object"),
    ("a.jsonl", "\n", r"a\.jsonl: the file is empty"),
    ("a.parquet", "nothing", r"a\.parquet: cannot be read as Parquet"),
    ("a.xlsx", "x", r"'\.xlsx' is not a supported kind of table"),
    ("a.json", "[]", r"'\.json' is not a supported kind of table.*'\.jsonl'"),
]


@pytest.mark.parametrize(("name", "content", "message"), BROKEN, ids=[f"{number}" for number in range(len(BROKEN))])
def test_broken_tables_raise_errors_with_location(tmp_path, name, content, message):
    path = write(tmp_path, name, content)
    with pytest.raises(DataError, match=rf"(?s){message}"):
        read_table(path)


def test_no_such_file(tmp_path):
    with pytest.raises(DataError, match=r"nowhere\.csv: there is no such file"):
        read_table(tmp_path / "nowhere.csv")


@pytest.mark.parametrize(
    "columns", [["#1 String", "#2 String"], ["sentence1", "sentence2"], ["sentence2", "#1 String", "extra"]]
)
def test_prediction_reads_the_column_or_the_field(columns):
    rows = [{column: f"{column} {number}" for column in columns} for number in (1, 2)]
    examples = examples_for_prediction(load_task("glue/mrpc"), rows, "new.csv")
    first = columns[0] if columns[0] != "sentence2" else "#1 String"
    second = columns[1] if columns[0] != "sentence2" else "sentence2"
    assert examples == [
        Example(f"new.csv:{number}", {"sentence1": f"{first} {number}", "sentence2": f"{second} {number}"}, None)
        for number in (1, 2)
    ]


def test_prediction_reports_missing_columns_and_empty_fields(tmp_path):
    spec = load_task("glue/sst2")
    with pytest.raises(
        DataError, match=r"new\.csv: there is no column 'sentence', which glue/sst2 needs. Did you mean 'sentense'"
    ):
        examples_for_prediction(spec, [{"sentense": "a"}], "new.csv")
    _, rows = read_table(write(tmp_path, "new.csv", 'sentence,label\n"a\nb",1\n ,0\n'))
    with pytest.raises(DataError, match=r"new\.csv:4: field 'sentence' is empty"):
        examples_for_prediction(spec, rows, "new.csv")
    assert examples_for_prediction(spec, rows[:1], "deep/new.csv") == [Example("new.csv:2", {"sentence": "a\nb"}, None)]
    assert examples_for_prediction(spec, []) == []


def test_table_with_a_dev_file(tmp_path):
    train = write(tmp_path, "train.csv", "text,label\na,x\nb,y\n")
    dev = write(tmp_path, "dev.tsv", "text\tlabel\nc\ty\n")
    spec = infer_task(train, ["text"], "label", dev=dev)
    assert [e.id for e in load_split(spec, "train")] == ["train.csv:2", "train.csv:3"]
    assert load_split(spec, "dev", tmp_path) == [Example("dev.tsv:2", {"text": "c"}, "y")]
    with pytest.raises(DataError, match="no split 'test'"):
        load_split(spec, "test")


def test_too_few_texts_for_a_split(tmp_path):
    spec = infer_task(write(tmp_path, "a.csv", "text,label\na,x\nA ,y\n"), ["text"], "label")
    with pytest.raises(DataError, match="2 rows with 1 different texts are too few"):
        load_split(spec, "train")


def test_row_changed_after_inferring_the_task_is_an_error(tmp_path):
    path = write(tmp_path, "a.csv", "text,label\na,x\nb,y\nc,x\n")
    spec = infer_task(path, ["text"], "label")
    write(tmp_path, "a.csv", "text,label\na,x\nb,z\nc,x\n")
    with pytest.raises(DataError, match=r"a\.csv:3: 'z' in column 'label' is not a label of a"):
        load_split(spec, "train")


def test_missing_group_column_is_reported(tmp_path):
    write(tmp_path, "a.csv", "text,label,page\n" + "".join(f"row {n},{'xy'[n % 2]},{n}\n" for n in range(9)))
    spec = infer_task(tmp_path / "a.csv", ["text"], "label").model_copy(update={"group": "pages"})
    with pytest.raises(DataError, match=r"no column 'pages'.*Did you mean 'page'"):
        load_split(spec, "train")
