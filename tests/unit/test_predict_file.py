"""Files that `predict` writes: the cells of the input, unchanged and in their order."""

import csv
from typing import ClassVar

import pytest
from fuzz import Parrot
from specs import label_task

from adjudge.errors import DataError
from adjudge.experiments import kept_predictions
from adjudge.experiments.predict_file import predict_file
from adjudge.tasks import read_table
from adjudge.tasks.table_format import TableFormat

UNNAMED = [["v1", "text", "", "", ""], ["ham", "late, again", "", "a", ""], ["spam", 'win "now"', "b\tc", "", " "]]


def spec():
    return label_task("ham", "spam")


def write_csv(path, rows, separator=",", encoding="utf-8"):
    with path.open("w", encoding=encoding, newline="") as file:
        csv.writer(file, delimiter=separator).writerows(rows)
    return path


def judged(source, out, **options):
    predict_file(Parrot(spec()), spec(), source, out, **options)
    return out


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_unnamed_columns_are_written_back_in_order(tmp_path, suffix):
    out = judged(write_csv(tmp_path / "new.csv", UNNAMED), tmp_path / f"out{suffix}")
    columns, rows = read_table(out)
    assert columns == [*UNNAMED[0], "label", "p_ham", "p_spam", "unreadable"]
    assert [list(row.cells) for row in rows] == [[*row, "ham", "0.5", "0.5", "false"] for row in UNNAMED[1:]]


def test_unnamed_columns_in_a_tsv(tmp_path):
    rows = [[cell.replace("\t", " ") for cell in row] for row in UNNAMED]
    out = judged(write_csv(tmp_path / "new.csv", rows), tmp_path / "out.tsv")
    assert [line.split("\t")[:5] for line in out.read_text().splitlines()] == rows


def test_several_unnamed_columns_are_refused_for_json(tmp_path):
    source = write_csv(tmp_path / "new.csv", UNNAMED)
    with pytest.raises(DataError, match=r"several columns named '', which a \.jsonl cannot hold. Write a \.csv"):
        judged(source, tmp_path / "out.jsonl")
    one = write_csv(tmp_path / "one.csv", [["", "text"], ["0", "fine"]])
    assert judged(one, tmp_path / "out.jsonl").read_text().startswith('{"": "0", "text": "fine", "label"')


def test_a_repeated_column_that_is_not_judged_is_kept(tmp_path):
    rows = [["note", "text", "note"], ["1", "fine", "2"]]
    out = judged(write_csv(tmp_path / "new.csv", rows), tmp_path / "out.csv")
    assert out.read_text().splitlines()[1].startswith("1,fine,2,ham")
    with pytest.raises(DataError, match="'text' occurs twice"):
        judged(write_csv(tmp_path / "twice.csv", [["text", "text"], ["a", "b"]]), tmp_path / "out.csv", force=True)


@pytest.mark.parametrize(("separator", "given"), [(";", None), ("\t", None), ("|", None), ("^", "^"), (";", ";")])
def test_a_csv_keeps_its_separator(tmp_path, separator, given):
    rows = [["id", "text", "note"], ["1", "so, so", f"x{separator}y"], ["2", "a;b", 'c"d']]
    source = write_csv(tmp_path / "new.csv", rows, separator)
    form = TableFormat(separator=given)
    out = judged(source, tmp_path / "out.csv", form=form)
    with out.open(encoding="utf-8", newline="") as file:
        assert [row[:3] for row in csv.reader(file, delimiter=separator)] == rows
    assert [list(row.cells)[:3] for row in read_table(out, form)[1]] == rows[1:]
    assert read_table(judged(source, tmp_path / "out.parquet", form=form))[0][:3] == rows[0]


def test_the_output_is_utf_8_whatever_the_input_is(tmp_path):
    rows = [["text", "prix"], ["café", "5 €"]]
    source = write_csv(tmp_path / "new.csv", rows, encoding="cp1252")
    with pytest.raises(DataError, match=r"new\.csv:2: byte 0xe9.*--encoding cp1252"):
        judged(source, tmp_path / "out.csv")
    out = judged(source, tmp_path / "out.csv", form=TableFormat(encoding="cp1252"))
    assert out.read_text(encoding="utf-8").splitlines()[1].startswith("café,5 €,")
    lines = tmp_path / "new.jsonl"
    lines.write_text('{"text": "café", "n": 1.50}\n', encoding="utf-16")
    assert judged(lines, tmp_path / "out.jsonl").read_text(encoding="utf-8").startswith('{"text": "café", "n": 1.50, ')


def test_a_tsv_cannot_hold_a_name_with_a_tab(tmp_path):
    source = write_csv(tmp_path / "new.csv", [["text", "a\tb"], ["fine", "x"]])
    with pytest.raises(DataError, match=r"out\.tsv: the name of column 'a\\tb' has a tab"):
        judged(source, tmp_path / "out.tsv")


def test_negative_numbers_with_a_decimal_comma_are_no_formulas(tmp_path, capsys):
    judged(write_csv(tmp_path / "new.csv", [["text", "n"], ["fine", "-4,5"]], ";"), tmp_path / "out.csv")
    assert "formulas" not in capsys.readouterr().err
    judged(write_csv(tmp_path / "new.csv", [["text", "n"], ["fine", "-4,5+1"]], ";"), tmp_path / "out.csv", force=True)
    assert "1 cells begin with" in capsys.readouterr().err


class Stopping(Parrot):
    """A parrot that is stopped at its third call."""

    calls: ClassVar[list[int]] = []

    def judge(self, examples, **options):
        self.calls.append(len(examples))
        if len(self.calls) == 3:
            raise KeyboardInterrupt
        return super().judge(examples, **options)


def test_rows_that_were_judged_before_a_stop_are_not_judged_again(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(kept_predictions, "FIRST_ROWS", 4)
    monkeypatch.setattr(kept_predictions, "CHUNK_ROWS", 5)
    monkeypatch.setattr(Stopping, "calls", [])
    source = write_csv(tmp_path / "new.csv", [["text"], *([f"row {number}"] for number in range(12))])
    with pytest.raises(KeyboardInterrupt, match=r"out\.csv\.judged\.partial"):
        predict_file(Stopping(spec()), spec(), source, tmp_path / "out.csv")
    predict_file(Stopping(spec()), spec(), source, tmp_path / "out.csv")
    assert Stopping.calls == [4, 5, 3, 3] and "continuing after row 9 of 12" in capsys.readouterr().err
    assert len((tmp_path / "out.csv").read_text().splitlines()) == 13
    assert sorted(path.name for path in tmp_path.iterdir()) == ["new.csv", "out.csv"]


def test_groups_are_read_and_judged_together(tmp_path, monkeypatch):
    monkeypatch.setattr(kept_predictions, "FIRST_ROWS", 3)
    monkeypatch.setattr(Stopping, "calls", [])
    grouped = label_task("ham", "spam", group="question")
    rows = [["text", "question"], *([f"row {number}", str(number // 2)] for number in range(4)), ["last", ""]]
    predictions = predict_file(Stopping(grouped), grouped, write_csv(tmp_path / "new.csv", rows), tmp_path / "out.csv")
    assert [each.group for each in predictions] == ["0", "0", "1", "1", ""] and Stopping.calls == [4, 1]
    monkeypatch.setattr(Stopping, "calls", [])
    mixed = [["text", "question"], *([f"row {number}", str(number % 2)] for number in range(5))]
    predict_file(Stopping(grouped), grouped, write_csv(tmp_path / "mixed.csv", mixed), tmp_path / "mixed-out.csv")
    assert Stopping.calls == [5]


def test_an_output_that_cannot_be_written_is_known_before_anything_is_judged(tmp_path):
    source = write_csv(tmp_path / "new.csv", [["text"], ["fine"]])
    with pytest.raises(DataError, match="its folder cannot be made"):
        judged(source, source / "out.csv")
