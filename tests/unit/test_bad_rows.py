"""Rows that cannot be read: an error that counts them, or rows that are listed and dropped."""

import json

import pytest
from fuzz import Parrot

from adjudge.config import load_config
from adjudge.errors import DataError
from adjudge.experiments.predict_file import predict_file
from adjudge.experiments.rows import load_pools
from adjudge.tasks import infer_task, load_split, read_table

GOOD = [f"text {n},{'yn'[n % 2]}" for n in range(8)]
BAD = ["too,many,y", "short", " ,y", "text,", 'a "quoted" text" "x,y', "text 9,n"]


def write(folder, lines, name="a.csv"):
    path = folder / name
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return path


def test_the_first_bad_row_is_an_error_that_counts_all(tmp_path):
    path = write(tmp_path, ["text,label", *GOOD, *BAD])
    message = (
        r"a\.csv:10: the row has 3 cells .* There are 4 bad rows in all \(also: 11, 12, 13\); "
        r"data\.bad_rows=drop goes on without them\.$"
    )
    with pytest.raises(DataError, match=message):
        infer_task(path, ["text"], "label")
    with pytest.raises(DataError, match=r"a\.csv:10: .* There are 2 bad rows in all \(also: 11\)"):
        read_table(path)  # cells may be empty as long as no task needs them
    write(tmp_path, ["text,label", *GOOD, "text 9,"])
    with pytest.raises(DataError, match=r"a\.csv:10: the label column .* It is the only bad row; data\.bad_rows=drop"):
        infer_task(path, ["text"], "label")


def test_dropped_rows_are_listed_once_and_counted(tmp_path, capsys):
    path = write(tmp_path, ["text,label", *GOOD, *BAD])
    spec = infer_task(path, ["text"], "label", bad_rows="drop")
    train, dev = (load_split(spec, split, bad_rows="drop") for split in ("train", "dev"))
    assert len(train) + len(dev) == 10 and train.dropped == dev.dropped == {str(path): 4}
    said = capsys.readouterr().err
    assert said.count("4 bad rows are dropped (data.bad_rows=drop):\n") == 1
    for line in (10, 11, 12, 13):
        assert f"\n  {path}:{line}: " in said
    with pytest.raises(DataError, match="4 bad rows in all"):
        load_split(spec, "train")


def test_a_label_unknown_to_the_task_is_a_bad_row(tmp_path):
    path = write(tmp_path, ["text,label", *GOOD, "text 8,maybe", "text 9,maybe"])
    with pytest.raises(DataError, match=r"a\.csv:10: 'maybe' .*not among --labels .*There are 2 bad rows"):
        infer_task(path, ["text"], "label", ["y", "n"])
    spec = infer_task(path, ["text"], "label", ["y", "n"], bad_rows="drop")
    assert spec.words == ("y", "n") and load_split(spec, "dev", bad_rows="drop").dropped == {str(path): 2}


def test_a_cell_that_is_no_number_is_a_bad_row(tmp_path):
    lines = ["text,score", *(f"text {n},{n / 2}" for n in range(24)), "text 24,n/a"]
    path = write(tmp_path, lines)
    with pytest.raises(DataError, match=r"a\.csv:26: 'n/a' in column 'score' is not a number.*the only bad row"):
        infer_task(path, ["text"], "score")
    spec = infer_task(path, ["text"], "score", bad_rows="drop")
    assert spec.number.high == 11.5 and load_split(spec, "train", bad_rows="drop").dropped == {str(path): 1}


def test_json_lines_and_broken_quotes_are_bad_rows(tmp_path):
    lines = [json.dumps({"text": f"text {n}", "label": "yn"[n % 2]}) for n in range(6)]
    path = write(tmp_path, [*lines, "{", "[1]", '{"text": "a", "text": "b"}'], "a.jsonl")
    with pytest.raises(DataError, match=r"a\.jsonl:7: is not JSON.*There are 3 bad rows in all \(also: 8, 9\)"):
        read_table(path)
    spec = infer_task(path, ["text"], "label", bad_rows="drop")
    assert load_split(spec, "dev", bad_rows="drop").dropped == {str(path): 3}
    path = write(tmp_path, ["text,label", '"a" b,y', *GOOD, '"over\n two" x,y', "last,n"])
    spec = infer_task(path, ["text"], "label", bad_rows="drop")
    train, dev = (load_split(spec, split, bad_rows="drop") for split in ("train", "dev"))
    assert len(train) + len(dev) == 9 and train.dropped == {str(path): 2}


def test_an_open_quote_is_never_one_bad_row(tmp_path):
    """It has all the rows behind it in its cell, or leaves the rest of a row that looks like one."""
    path = write(tmp_path, ["text,label", *GOOD, '"never closed,y', *GOOD])
    with pytest.raises(DataError, match=r"a\.csv:10: is not valid CSV: unexpected end of data"):
        infer_task(path, ["text"], "label", bad_rows="drop")
    path = write(tmp_path, ["text,label", *GOOD, '"a" b,"c\nd",y', *GOOD])
    with pytest.raises(DataError, match=r"a\.csv:10: is not valid CSV: ',' expected"):
        infer_task(path, ["text"], "label", bad_rows="drop")


def test_only_bad_rows_are_an_error_all_the_same(tmp_path):
    path = write(tmp_path, ["text,label", "a", "b"])
    with pytest.raises(DataError, match=r"a\.csv:2: the row has 1 cells.*There are 2 bad rows"):
        infer_task(path, ["text"], "label", bad_rows="drop")
    spec = infer_task(write(tmp_path, ["text,label", *GOOD], "good.csv"), ["text"], "label")
    with pytest.raises(DataError, match=r"new\.csv:2: field 'text' is empty"):
        predict_file(
            Parrot(spec), spec, write(tmp_path, ["text", " "], "new.csv"), tmp_path / "out.csv", bad_rows="drop"
        )


def test_many_bad_rows_are_counted_and_the_first_listed(tmp_path, capsys):
    path = write(tmp_path, ["text,label", *GOOD, *["short"] * 100])
    spec = infer_task(path, ["text"], "label", bad_rows="drop")
    load_split(spec, "train", bad_rows="drop")
    said = capsys.readouterr().err
    assert "100 bad rows are dropped" in said and said.endswith(f"{path}:29: {said.rpartition(':29: ')[2]}")
    assert said.count(f"  {path}:") == 20 and "\n  and 80 more\n" in said
    with pytest.raises(DataError, match=r"a\.csv:10: .* There are 100 bad rows in all \(also: 11, .*, 30, …\)"):
        infer_task(path, ["text"], "label")


def test_dropped_rows_to_judge_reach_the_drawn_rows(tmp_path):
    train = write(tmp_path, ["text,label", *GOOD], "train.csv")
    dev = write(tmp_path, ["text,label", *GOOD, *BAD], "dev.csv")
    spec = infer_task(train, ["text"], "label", dev=dev, bad_rows="drop")
    config = load_config(values={"data.bad_rows": "drop", "data.eval_rows": 3, "method": "sft"})
    pools = load_pools(config, [spec])
    assert len(pools.eval_rows[0]) == 3 and pools.eval_rows[0].dropped == {str(dev): 4}
    with pytest.raises(DataError, match=r"dev\.csv:10"):
        load_pools(load_config(values={"method": "sft"}), [spec])


def test_predict_drops_rows_only_when_told(tmp_path, capsys):
    spec = infer_task(write(tmp_path, ["text,label", *GOOD]), ["text"], "label")
    new = write(tmp_path, ["id,text", "1,a", "2, ", "3,c", "4", "5,e"], "new.csv")
    with pytest.raises(DataError, match=r"new\.csv:3: field 'text' is empty.*There are 2 bad rows in all \(also: 5\)"):
        predict_file(Parrot(spec), spec, new, tmp_path / "out.csv")
    predict_file(Parrot(spec), spec, new, tmp_path / "out.csv", bad_rows="drop")
    assert [row["id"] for row in read_table(tmp_path / "out.csv")[1]] == ["1", "3", "5"]
    assert "2 bad rows are dropped" in capsys.readouterr().err


def test_unknown_words_for_bad_rows_are_refused(tmp_path):
    with pytest.raises(DataError, match="bad_rows is 'skip': write 'error' or 'drop'"):
        infer_task(write(tmp_path, ["text,label", *GOOD]), ["text"], "label", bad_rows="skip")
