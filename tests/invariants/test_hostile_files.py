"""Read hostile files: each loads fully or raises our error with its location, in bounded resources."""

from __future__ import annotations

import csv
import gzip
import json
import time
import tracemalloc

import pyarrow
import pyarrow.parquet
import pytest
from fuzz import Parrot
from hypothesis import given, settings
from hypothesis import strategies as st

from adjudge.errors import DataError
from adjudge.experiments.predict_file import predict_file
from adjudge.tasks import infer_task, load_split, read_table, validate_task
from adjudge.tasks.validate import mistakes_of

CSV = b'text,label\n"a, b",x\n\xc3\xa9t\xc3\xa9,y\nthird,x\n'
ROWS = [{"text": "a, b", "label": "x"}, {"text": "été", "label": "y"}, {"text": "third", "label": "x"}]
CONTENT = {
    ".csv": CSV,
    ".tsv": "text\tlabel\na, b\tx\nété\ty\nthird\tx\n".encode(),
    ".jsonl": "".join(json.dumps(row) + "\n" for row in ROWS).encode(),
}


def put(folder, name, content):
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8", "surrogatepass"))
    return path


@pytest.mark.parametrize("kind", CONTENT)
@pytest.mark.parametrize("change", ["plain", "mark", "crlf", "gzip", "gzip in parts"])
def test_bom_line_ends_and_gzip_do_not_change_the_rows(tmp_path, kind, change):
    content = CONTENT[kind]
    if change == "mark":
        content = b"\xef\xbb\xbf" + content
    elif change == "crlf":
        content = content.replace(b"\n", b"\r\n")
    elif change == "gzip":
        content = gzip.compress(b"\xef\xbb\xbf" + content)
    elif change == "gzip in parts":
        content = gzip.compress(content[:20]) + gzip.compress(content[20:])
    path = put(tmp_path, f"rows{kind}{'.gz' if 'gzip' in change else ''}", content)
    assert read_table(path)[1] == ROWS
    assert infer_task(path, ["text"], "label").name == "rows"


def test_gzip_table_is_judged_like_a_plain_one(tmp_path):
    for kind, content in CONTENT.items():
        path = put(tmp_path, f"rows{kind}.gz", gzip.compress(content))
        spec = infer_task(path, ["text"], "label")
        for out in ("out.csv", "out.jsonl"):
            predict_file(Parrot(spec), spec, path, tmp_path / out)
            assert [row["text"] for row in read_table(tmp_path / out)[1]] == [row["text"] for row in ROWS]


DAMAGED = [
    ("a.csv.gz", gzip.compress(CSV)[:-12], r"a\.csv\.gz: is not a complete gzip file"),
    ("a.csv.gz", gzip.compress(CSV)[:-5] + b"\0" * 5, r"a\.csv\.gz: is not a complete gzip file"),
    ("a.tsv.gz", CSV, r"a\.tsv\.gz: is not a complete gzip file"),
    ("a.jsonl.gz", b"", r"a\.jsonl\.gz: the file is empty"),
    ("a.parquet.gz", b"", r"a\.parquet\.gz: a Parquet file is already compressed inside"),
    ("a.gz", b"", r"a\.gz: '' is not a supported kind of table"),
    ("a.csv.gz", gzip.compress(b"text,label\na,x\n\xff,y\n"), r"a\.csv\.gz:3: byte 0xff is not valid UTF-8"),
    (
        "a.tsv.gz",
        gzip.compress(b"text\tlabel\na\t\xff" + b"x" * 50_000)[:-8] + b"\0" * 8,
        r"a\.tsv\.gz: is not a complete gzip file",
    ),
    ("a.csv", CSV.decode().encode("utf-16"), r"a\.csv:1: byte 0xff is not valid UTF-8.*seems to be UTF-16"),
    ("a.csv", CSV + "été,x\n".encode("latin-1"), r"a\.csv:5: byte 0xe9 is not valid UTF-8"),
    ("a.csv", b"\xef\xbb\xbf", r"a\.csv: the file is empty"),
    ("a.tsv", b"\r\n\r\n", r"a\.tsv: the file is empty"),
    ("a.jsonl", b'{"text": "a", "text": "b"}\n', r"a\.jsonl:1: is not JSON: the key 'text' occurs twice"),
    ("a.jsonl", b'{"text": ' + b"[" * 100_000, r"a\.jsonl:1: is not JSON"),
    ("a.jsonl", b'{"n": ' + b"9" * 5000 + b"}", r"a\.jsonl:1: is not JSON"),
    ("a.csv", b"a," * 200_000 + b"a\n1\n", r"a\.csv:1: the column 'a' occurs twice"),
    ("a.csv", b"x" * 10**6 + b",y\n1\n", r"(?s)^.{0,400}the row has 1 cells"),
    ("a.parquet", b"PAR1" + b"\0" * 40 + b"PAR1", r"a\.parquet: cannot be read as Parquet"),
]


@pytest.mark.parametrize(("name", "content", "message"), DAMAGED, ids=[f"{number}" for number in range(len(DAMAGED))])
def test_damaged_files_raise_errors_with_location(tmp_path, name, content, message):
    began = time.process_time()
    with pytest.raises(DataError, match=message):
        read_table(put(tmp_path, name, content))
    assert time.process_time() - began < 3


def traced(run):
    tracemalloc.start()
    try:
        run()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_a_gzip_bomb_is_refused_before_it_is_unpacked(tmp_path, monkeypatch):
    monkeypatch.setattr("adjudge.tasks.reading.text_files.SURELY_NO_BOMB", 2**17)
    for name, row in (("rows", b"a,x\n"), ("line", b"a")):
        bomb = put(tmp_path, f"{name}.csv.gz", gzip.compress(b"text,label\n" + row * (10**6 // len(row)), 9))

        def load(bomb=bomb):
            with pytest.raises(DataError, match=r"csv\.gz: expands to more than 100 times its size"):
                for _ in read_table(bomb)[1]:
                    pass

        assert traced(load) < 2**26


def test_endless_line_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("adjudge.tasks.reading.text_files.MOST_LINE", 2**16)
    for name in ("a.csv", "a.tsv", "a.jsonl"):
        with pytest.raises(DataError, match="a line has more than"):
            read_table(put(tmp_path, name, b"x" * 2**17))


def test_a_megabyte_of_keys_does_not_fill_the_memory(tmp_path):
    path = put(tmp_path, "keys.jsonl", "".join(f'{{"k{n}": 1}}\n' for n in range(20_000)))

    def load():
        with pytest.raises(DataError, match="20,000 objects have 20,000 different keys"):
            read_table(path)

    assert traced(load) < 2**27


def test_a_parquet_file_with_more_rows_than_bytes_is_refused(tmp_path):
    table = pyarrow.table({"text": pyarrow.array(["a"] * 1_500_000).dictionary_encode()})
    pyarrow.parquet.write_table(table, tmp_path / "a.parquet", row_group_size=1_500_000)
    with pytest.raises(DataError, match="1,500,000 rows, more than it has bytes"):
        read_table(tmp_path / "a.parquet")


def test_cell_of_a_megabyte_is_read(tmp_path):
    huge = "word " * 200_000
    for name, content in {
        "a.csv": f'text,label\n"{huge}",x\nb,y\n',
        "a.tsv": f"text\tlabel\n{huge}\tx\nb\ty\n",
        "a.jsonl": f'{{"text": "{huge}", "label": "x"}}\n{{"text": "b", "label": "y"}}\n',
    }.items():
        assert read_table(put(tmp_path, name, content))[1][0]["text"] == huge
    put(tmp_path, "b.csv", f'text,label\n"{huge}",x\nb,x\nc,y\n')
    spec = infer_task(tmp_path / "b.csv", ["text"], "label")
    lengths = [len(row.fields["text"]) for split in ("train", "dev") for row in load_split(spec, split)]
    assert sorted(lengths) == [1, 1, len(huge)]


@pytest.mark.parametrize("rows", [1_000, 4_000])
def test_memory_per_row_does_not_grow_with_the_table(tmp_path, rows):
    path = put(
        tmp_path, "rows.csv", "text,label\n" + "".join(f"{'text ' * 20}{n},{'xy'[n % 2]}\n" for n in range(rows))
    )
    spec = infer_task(path, ["text"], "label")
    assert traced(lambda: infer_task(path, ["text"], "label")) < 400 * rows + 2**18
    assert traced(lambda: load_split(spec, "train")) < 1500 * rows + 2**18


def test_ids_come_from_lines_not_from_an_id_column(tmp_path):
    path = put(tmp_path, "rows.csv", "id,text,label\n" + "".join(f"7,text {n},{'xy'[n % 2]}\n" for n in range(20)))
    spec = infer_task(path, ["text"], "label")
    ids = [example.id for split in ("train", "dev") for example in load_split(spec, split)]
    assert sorted(ids) == sorted(f"rows.csv:{line}" for line in range(2, 22))


FORMULAS = ["=HYPERLINK(A1)", "+1+1", "-2+3", "@SUM(A1)", "\t=1", "=cmd|' /C calc'!A0"]


def test_formula_cells_are_kept_and_reported(tmp_path, capsys):
    path = tmp_path / "rows.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(
            [["text", "label", "n"], *([text, "xy"[n % 2], "-1.5"] for n, text in enumerate(FORMULAS))]
        )
    spec = infer_task(path, ["text"], "label")
    for out in ("out.csv", "out.jsonl", "out.parquet"):
        predict_file(Parrot(spec), spec, path, tmp_path / out)
        assert [row["text"] for row in read_table(tmp_path / out)[1]] == FORMULAS
        assert ("6 cells begin with '='" in capsys.readouterr().err.replace("\n", " ")) == (out == "out.csv")


TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=8) | st.sampled_from(
    ["a\rb", "\r", "\ufeffa", '"', "a\x00", "", "\n"]
)


@settings(max_examples=60, derandomize=True, deadline=None, database=None)
@given(st.lists(st.tuples(TEXT, TEXT), min_size=1, max_size=5), st.sampled_from(["csv", "jsonl", "parquet"]))
def test_cells_survive_prediction_unchanged(tmp_path_factory, rows, kind):
    folder = tmp_path_factory.mktemp("cells")
    objects = [
        {"text": f"x{first}", "more": more, "label": "ab"[n % 2]}
        for n, (first, more) in enumerate([*rows, *rows, ("", "")])
    ]
    path = put(folder, "in.jsonl", "".join(json.dumps(row) + "\n" for row in objects))
    spec = infer_task(path, ["text"], "label")
    predict_file(Parrot(spec), spec, path, folder / f"out.{kind}")
    columns, rows_read = read_table(folder / f"out.{kind}")
    assert columns == ["text", "more", "label", "predicted_label", "p_a", "p_b", "unreadable"]
    assert [{name: row[name] for name in objects[0]} for row in rows_read] == objects


def test_lone_surrogate_is_written_as_its_escape(tmp_path):
    path = put(tmp_path, "in.jsonl", '{"text": "a \\ud800", "label": "x"}\n{"text": "b", "label": "y"}\n')
    spec = infer_task(path, ["text"], "label")
    for kind, expected in {"csv": "a \\ud800", "jsonl": "a \ud800", "parquet": "a \\ud800"}.items():
        predict_file(Parrot(spec), spec, path, tmp_path / f"out.{kind}")
        assert read_table(tmp_path / f"out.{kind}")[1][0]["text"] == expected


@pytest.mark.parametrize("word", ["label", "unreadable", "number"])
def test_labels_named_like_output_columns(tmp_path, word):
    path = put(tmp_path, "in.csv", f"text,gold\na,{word}\nb,other\nc,other\n")
    spec = infer_task(path, ["text"], "gold")
    predict_file(Parrot(spec), spec, path, tmp_path / "out.parquet")
    assert read_table(tmp_path / "out.parquet")[1][0][f"p_{word}"] == "0.5"


GOOD = {
    **{"name": "a", "title": "a", "fields": {"text": "text"}, "instruction": "Judge.", "template": "{{ text }}"},
    **{"labels": {"0": "No", "1": "Yes"}, "metrics": ["accuracy"], "source": {"table": {"train": "a.csv"}}},
}
LAUGHS = (
    "a0: &a0 [x, x]\n"
    + "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 12))
    + "title: *a11\n"
)
BAD_YAML = [
    LAUGHS,
    "a: " + "[" * 5000,
    "a: !!int x",
    "a: !!bool x",
    "a: !!timestamp x",
    'a: "\\UFFFFFFFF"',
    "a: *b",
    "&a\nb: *a",
    "a\x00",
]


@pytest.mark.parametrize("text", [*BAD_YAML, "x" * 2**19], ids=[f"{number}" for number in range(len(BAD_YAML) + 1)])
def test_invalid_task_files_are_refused_fast(tmp_path, text):
    began = time.process_time()
    (mistake,) = validate_task(put(tmp_path, "task.yaml", text))
    assert "task.yaml" in mistake and len(mistake) < 400
    assert time.process_time() - began < 3


ODD = [
    ("metrics", [["accuracy"], {"a": "b"}]),
    ("source", {"hook": ["a"], "table": {"train": "a.csv"}}),
    ("source", {"hub": {"path": "a", "revision": "b", "splits": {}, "labels": [["0"], {"1": "2"}]}}),
    ("template", "{{ " + "(" * 3000 + "text" + ")" * 3000 + " }}"),
    ("template", "{{ text }}" * 5000),
    ("template", "{{ text | upper > 3 }}"),
    ("labels", {"0": "a\rb", "1": "b"}),
    ("number", {"low": "-inf", "high": "inf"}),
    ("number", {"low": "-1e308", "high": "1e308"}),
]


@pytest.mark.parametrize(("key", "value"), ODD, ids=[f"{number}" for number in range(len(ODD))])
def test_odd_values_in_a_task_are_reported_as_mistakes(key, value):
    assert mistakes_of(GOOD) == []
    assert any(key in mistake for mistake in mistakes_of(GOOD | {key: value}))
