"""Rows from Python: every library's frames, columns and missing values follow one rule."""

from __future__ import annotations

import datetime
import enum
import sys
from decimal import Decimal
from types import SimpleNamespace
from uuid import uuid4

import datasets
import numpy
import pandas
import pyarrow
import pytest
from specs import label_task

from adjudge.errors import DataError
from adjudge.tasks import given_examples

ONE = label_task("Bad", "Good")
TWO = ONE.model_copy(
    update={"fields": {"question": "question", "text": "body"}, "template": "{{ question }} {{ text }}"}
)
TABLE = {"id": [7, 8], "text": ["bad x", "good y"], "meta": [[1], [2, 3]]}


class Exported:
    """A data frame of a library that is not installed here: all it has is Arrow's interface."""

    def __init__(self, table: pyarrow.Table) -> None:
        self.table = table
        self.columns = table.column_names

    def __arrow_c_stream__(self, requested_schema=None):
        return self.table.__arrow_c_stream__(requested_schema)


def polars(name: str, *arguments):
    """A frame or column of polars, where it is installed."""
    return getattr(pytest.importorskip("polars"), name)(*arguments)


FRAMES = {
    "pandas": pandas.DataFrame,
    "arrow": pyarrow.table,
    "arrow batch": pyarrow.RecordBatch.from_pydict,
    "datasets": datasets.Dataset.from_dict,
    "another library": lambda columns: Exported(pyarrow.table(columns)),
    "polars": lambda columns: polars("DataFrame", columns),
    "list of mappings": lambda columns: [
        dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)
    ],
}
COLUMNS = {
    "pandas": pandas.Series,
    "pandas, another index": lambda cells: pandas.Series(cells, index=[f"row {cell}" for cell in cells]),
    "numpy": lambda cells: numpy.array(cells, dtype=object),
    "arrow": pyarrow.array,
    "arrow chunks": lambda cells: pyarrow.chunked_array([cells[:1], cells[1:]]),
    "datasets": lambda cells: datasets.Dataset.from_dict({"a": cells})["a"],
    "polars": lambda cells: polars("Series", cells),
    "generator": lambda cells: (cell for cell in cells),
}


def texts(spec, rows):
    examples = given_examples(spec, rows)
    assert [example.id for example in examples] == [f"rows:{number}" for number in range(1, len(examples) + 1)]
    return [dict(example.fields) for example in examples]


@pytest.mark.parametrize("make", FRAMES.values(), ids=FRAMES)
def test_frames_of_every_library_are_read(make):
    assert texts(ONE, make(TABLE)) == [{"text": "bad x"}, {"text": "good y"}]
    pair = {"body": ["b", "d"], "question": ["a", "c"]}
    assert texts(TWO, make(pair)) == [{"question": "a", "text": "b"}, {"question": "c", "text": "d"}]
    by_field = {"text": ["b"], "question": ["a"]}
    assert texts(TWO, make(by_field)) == [{"question": "a", "text": "b"}]


@pytest.mark.parametrize("make", COLUMNS.values(), ids=COLUMNS)
def test_a_column_is_the_text_of_a_task_with_one_field(make):
    assert texts(ONE, make(["bad x", "good y"])) == [{"text": "bad x"}, {"text": "good y"}]
    with pytest.raises(DataError, match=r"rows:1: task has the fields question, text: give mappings or a data frame"):
        given_examples(TWO.model_copy(update={"name": "task"}), make(["bad x", "good y"]))


@pytest.mark.parametrize("make", FRAMES.values(), ids=FRAMES)
def test_a_missing_value_in_a_frame_is_an_empty_cell(make):
    for cell in (None, "", " \t"):
        with pytest.raises(DataError, match=r"rows:2: field 'text' is empty"):
            given_examples(ONE, make({"text": ["a", cell], "n": [1, 2]}))
    with pytest.raises(DataError, match=r"rows:1: field 'text' \(column 'body'\) is empty"):
        given_examples(TWO, make({"question": ["a"], "body": pyarrow.array([None], pyarrow.string()).to_pylist()}))
    assert texts(ONE, make({"text": ["a", "b"], "n": [1, None]})) == [{"text": "a"}, {"text": "b"}]
    optional = ONE.model_copy(update={"optional": ("text",)})
    assert texts(optional, make({"text": ["a", None]})) == [{"text": "a"}, {"text": ""}]


@pytest.mark.parametrize(
    "cell",
    [
        *(None, float("nan"), numpy.nan, numpy.float32("nan"), pandas.NA, pandas.NaT, Decimal("nan"), Decimal("snan")),
        *(numpy.datetime64("NaT"), numpy.timedelta64("NaT"), pyarrow.scalar(None), pyarrow.scalar(float("nan"))),
    ],
    ids=repr,
)
def test_every_librarys_missing_value_is_an_empty_cell(cell):
    for rows in (
        [{"text": "a"}, {"text": cell}],
        ["a", cell],
        pandas.DataFrame({"text": pandas.Series(["a", cell], dtype=object)}),
        pandas.Series(["a", cell], dtype=object),
    ):
        with pytest.raises(DataError, match=r"rows:2: field 'text' is empty. Fill it in, or remove the row"):
            given_examples(ONE, rows)


@pytest.mark.parametrize(
    "column",
    [
        pandas.Series(["a", None]),
        pandas.Series(["a", None], dtype="string"),
        pandas.Series(["a", None], dtype="category"),
        pandas.Series(["a", None], dtype=pandas.ArrowDtype(pyarrow.string())),
        pandas.Series([1.5, None]),
        pandas.Series([1, None], dtype="Int64"),
        pandas.Series([True, None], dtype="boolean"),
        pandas.to_datetime(pandas.Series(["2026-01-02", None])),
        pyarrow.array([1.5, None]),
        pyarrow.array([1.5, float("nan")]),
        pyarrow.array(["a", None]).dictionary_encode(),
    ],
    ids=lambda column: str(getattr(column, "dtype", getattr(column, "type", ""))),
)
def test_missing_values_of_every_kind_of_column(column):
    for rows in (column, {"text": column}):
        frame = rows
        if isinstance(rows, dict):
            frame = pandas.DataFrame(rows) if isinstance(column, pandas.Series) else pyarrow.table(rows)
        with pytest.raises(DataError, match=r"rows:2: field 'text' is empty"):
            given_examples(ONE, frame)


class Word(str, enum.Enum):  # noqa: UP042
    A = "the text"


@pytest.mark.parametrize(
    ("cell", "text"),
    [
        (3, "3"),
        (numpy.int64(3), "3"),
        (3.5, "3.5"),
        (numpy.float32(3.8), "3.8"),
        (True, "true"),
        (numpy.bool_(False), "false"),
        (Decimal("1.50"), "1.50"),
        (datetime.date(2026, 1, 2), "2026-01-02"),
        (numpy.datetime64("2026-01-02"), "2026-01-02"),
        (numpy.str_("a"), "a"),
        (Word.A, "the text"),
        (pyarrow.scalar("a"), "a"),
        ("nan", "nan"),
        ("NA", "NA"),
    ],
    ids=repr,
)
def test_numbers_and_dates_are_judged_as_their_text(cell, text):
    assert texts(ONE, [{"text": cell}]) == [{"text": text}]


def test_single_precision_keeps_its_short_form():
    cells = numpy.array([3.8], dtype=numpy.float32)
    for frame in (pandas.DataFrame({"text": cells}), pyarrow.table({"text": cells}), pandas.Series(cells), cells):
        assert texts(ONE, frame) == [{"text": "3.8"}]


@pytest.mark.parametrize(
    "cell", [["a", "b"], ("a",), {"a": 1}, {"a"}, b"text", numpy.array(["a"]), numpy.array([]), uuid4(), object()]
)
def test_a_cell_that_is_not_one_text_is_refused(cell):
    message = rf"rows:1: field 'text' is a {type(cell).__name__}, not text"
    for rows in ([{"text": cell}], pandas.DataFrame({"text": pandas.Series([cell], dtype=object)})):
        with pytest.raises(DataError, match=message):
            given_examples(ONE, rows)


@pytest.mark.parametrize("make", FRAMES.values(), ids=FRAMES)
def test_a_list_in_a_frame_is_refused(make):
    with pytest.raises(DataError, match=r"rows:1: field 'text' is a (list|ndarray), not text"):
        given_examples(ONE, make({"text": [["a", "b"]]}))


@pytest.mark.parametrize("make", FRAMES.values(), ids=FRAMES)
def test_a_missing_column_names_the_nearest(make):
    with pytest.raises(DataError, match=r"rows.*there is no .*'text', which .* needs. Did you mean 'txt'\?"):
        given_examples(ONE, make({"txt": ["a"], "id": [1]}))


def test_each_mapping_may_name_the_field_or_the_column():
    assert texts(TWO, [{"question": "a", "body": "b"}, {"question": "c", "text": "d"}])[1] == {
        "question": "c",
        "text": "d",
    }
    with pytest.raises(DataError, match=r"rows:2: there is no 'body' or 'text'"):
        given_examples(TWO, [{"question": "a", "body": "b"}, {"question": "c"}])


def test_the_chosen_rows_of_a_data_set_are_read_in_their_order():
    data = datasets.Dataset.from_dict({"text": ["a", "b", "c", "d"]})
    assert [row["text"] for row in texts(ONE, data.select([3, 1]))] == ["d", "b"]
    assert [row["text"] for row in texts(ONE, data.filter(lambda row: row["text"] != "a").with_format("numpy"))] == [
        *"bcd"
    ]
    assert [row["text"] for row in texts(ONE, data.to_iterable_dataset())] == [*"abcd"]


def test_names_of_columns_that_are_numbers_or_occur_twice():
    zero = ONE.model_copy(update={"fields": {"text": "0"}})
    assert texts(zero, pandas.DataFrame([["a", "b"]])) == [{"text": "a"}]
    assert texts(zero, [{0: "a"}]) == [{"text": "a"}]
    twice = pandas.DataFrame([["a", "b", "c"]], columns=["id", "text", "text"])
    with pytest.raises(DataError, match="the column 'text' occurs twice"):
        given_examples(ONE, twice)
    assert texts(ONE, pandas.DataFrame([["a", "b", "c"]], columns=["id", "id", "text"])) == [{"text": "c"}]
    with pytest.raises(DataError, match="the column 'text' occurs twice"):
        given_examples(ONE, pyarrow.table([pyarrow.array(["a"])] * 2, names=["text", "text"]))


def test_columns_of_mixed_objects_that_the_task_does_not_use_do_no_harm():
    frame = pandas.DataFrame({"text": ["a"], "other": pandas.Series([object()], dtype=object)})
    assert texts(ONE, frame) == [{"text": "a"}]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ("good film", "Give a list of rows, even for one"),
        (b"good film", "Give a list of rows, even for one"),
        ({"text": "good film"}, "Give a list of rows, even for one"),
        (datasets.DatasetDict({"train": datasets.Dataset.from_dict({"text": ["a"]})}), "give one split"),
        (SimpleNamespace(collect=None), "compute it first"),
        (3, "not a int"),
        (None, "not a NoneType"),
        ([3], "rows:1: a row is a text or a mapping of fields, not a int"),
        ([("a", "b")], "rows:1: a row is a text or a mapping of fields, not a tuple"),
        ([["a"]], "not a list"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_holds_no_rows_is_refused(rows, message):
    with pytest.raises(DataError, match=message):
        given_examples(ONE, rows)


def test_nothing_gives_nothing():
    for rows in ([], pandas.DataFrame({"text": []}), pandas.Series([], dtype=object), pyarrow.table({"text": []})):
        assert given_examples(ONE, rows) == []


def test_a_frame_that_arrow_cannot_hold_says_so():
    class Broken(Exported):
        def __arrow_c_stream__(self, requested_schema=None):
            raise RuntimeError("no such type")

    with pytest.raises(DataError, match=r"This Broken cannot be read as an Arrow table \(no such type\)"):
        given_examples(ONE, Broken(pyarrow.table({"text": ["a"]})))


def test_rows_of_texts_import_no_library_of_frames(tmp_path):
    import subprocess

    code = (
        "import sys; from adjudge.tasks import given_examples, load_task\n"
        "given_examples(load_task('glue/sst2'), ['a', {'sentence': 'b'}])\n"
        "assert not {'pandas', 'pyarrow', 'polars', 'datasets'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=tmp_path)
