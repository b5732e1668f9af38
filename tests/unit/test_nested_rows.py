"""Paths into the objects of a JSONL or Parquet file."""

import json

import pytest
from fuzz import Parrot

from adjudge.errors import DataError
from adjudge.experiments.predict_file import predict_file
from adjudge.tasks import examples_for_prediction, infer_task, load_split, read_table


def nested(folder, rows, name="rows.jsonl"):
    path = folder / name
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def row(text, label):
    return {"id": 1, "data": {"text": text, "lang": "en"}, "annotations": [{"label": label, "by": "a1"}]}


ROWS = [row("lovely", "good"), row("rude", "bad"), row("quick", "good"), row("stale", "bad")]


def test_a_path_names_a_text_and_a_label(tmp_path):
    spec = infer_task(nested(tmp_path, ROWS), ["data.text"], "annotations.0.label")
    assert spec.fields == {"data_text": "data.text"} and list(spec.labels) == ["bad", "good"]
    assert spec.template == "Text: {{ data_text }}" and spec.instruction.startswith("Judge the label of the text below")
    found = {each.fields["data_text"]: each.gold for split in ("train", "dev") for each in load_split(spec, split)}
    assert found == {"lovely": "good", "rude": "bad", "quick": "good", "stale": "bad"}


def test_paths_with_equal_ends_keep_their_parts(tmp_path):
    path = nested(tmp_path, [{"a": {"text": str(n)}, "b": {"text": "x"}, "label": "yn"[n % 2]} for n in range(4)])
    spec = infer_task(path, ["a.text", "b.text"], "label")
    assert spec.template == "A text: {{ a_text }}\nB text: {{ b_text }}"


def test_wrong_paths_name_the_nearest(tmp_path):
    path = nested(tmp_path, ROWS)
    with pytest.raises(DataError, match=r"no column 'data\.txt'\. Did you mean 'data\.text'"):
        infer_task(path, ["data.txt"], "annotations.0.label")
    with pytest.raises(DataError, match=r"no column 'annotations\.1\.label'"):
        infer_task(path, ["data.text"], "annotations.1.label")


@pytest.mark.parametrize("lacking", [{"data": {}}, {"data": None}, {}, {"data": {"text": None}}, {"data": ["text"]}])
def test_a_row_without_the_path_is_an_empty_text(tmp_path, lacking):
    path = nested(tmp_path, [*ROWS, {**row("", "good"), "data": None, **lacking}])
    with pytest.raises(DataError, match=r"rows\.jsonl:5: field 'data\.text' is empty"):
        infer_task(path, ["data.text"], "annotations.0.label")


def test_a_key_with_a_dot_is_found_before_a_path(tmp_path):
    path = nested(tmp_path, [{"data.text": "flat", "data": {"text": "nested"}, "x": 1}])
    table = read_table(path)[1][0]
    assert table["data.text"] == "flat" and table.get("data.lang") is None


def test_nested_values_keep_the_spelling_of_numbers(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text('{"a": {"n": 1.50, "list": [1e5, true, null, "é"], "big": 12345678901234567890}}\n')
    (table,) = read_table(path)[1]
    assert table["a.n"] == "1.50" and table["a.list"] == '[1e5, true, null, "é"]' and table["a.list.0"] == "1e5"
    assert table["a"] == '{"n": 1.50, "list": [1e5, true, null, "é"], "big": 12345678901234567890}'


def test_predict_reads_paths_and_keeps_the_objects(tmp_path):
    path = nested(tmp_path, ROWS)
    spec = infer_task(path, ["data.text"], "annotations.0.label")
    new = nested(tmp_path, [{"data": {}, "x": 0}, {"data": {"text": "new", "n": [1]}}], "new.jsonl")
    with pytest.raises(DataError, match=r"new\.jsonl:1: field 'data_text' \(column 'data\.text'\) is empty"):
        predict_file(Parrot(spec), spec, new, tmp_path / "out.jsonl")
    predict_file(Parrot(spec), spec, new, tmp_path / "out.jsonl", bad_rows="drop")
    (written,) = map(json.loads, (tmp_path / "out.jsonl").read_text().splitlines())
    assert written["data"] == {"text": "new", "n": [1]} and written["label"] == "bad"
    predict_file(Parrot(spec), spec, path, tmp_path / "out.csv")
    again = read_table(tmp_path / "out.csv")[1]
    assert [each["data.text"] for each in again] == ["lovely", "rude", "quick", "stale"]
    assert [each.fields for each in examples_for_prediction(spec, again)] == [
        {"data_text": "lovely"},
        *({"data_text": text} for text in ("rude", "quick", "stale")),
    ]


def test_parquet_has_paths_too(tmp_path):
    import pyarrow
    import pyarrow.parquet

    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(ROWS), tmp_path / "a.parquet")
    spec = infer_task(tmp_path / "a.parquet", ["data.text"], "annotations.0.label")
    assert len(load_split(spec, "train")) + len(load_split(spec, "dev")) == 4
    with pytest.raises(DataError, match=r"Did you mean 'data\.text'"):
        infer_task(tmp_path / "a.parquet", ["data.texts"], "annotations.0.label")


def test_deep_and_wide_objects_are_read(tmp_path):
    deep = "1"
    for _ in range(300):
        deep = f'{{"k": {deep}}}'
    wide = json.dumps({f"k{n}": n for n in range(5000)})
    path = tmp_path / "a.jsonl"
    path.write_text(f'{{"deep": {deep}, "wide": {wide}, "text": "x", "label": "y"}}\n')
    (table,) = read_table(path)[1]
    assert table["wide.k4999"] == "4999" and table["deep." + ".".join("k" * 300)] == "1"
    with pytest.raises(DataError, match="every row has"):  # the path is found among more than are remembered
        infer_task(path, ["wide.k4999"], "label")
