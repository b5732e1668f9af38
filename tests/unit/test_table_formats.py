"""Tables as people have them: separators, encodings, decimal commas, unnamed and repeated columns."""

import pytest

from adjudge.errors import DataError, TaskError
from adjudge.tasks import infer_task, load_split, load_task, read_table, spec_to_yaml
from adjudge.tasks.table_format import TableFormat, parse_encoding, parse_separator

ROWS = [["fine, really", "good"], ["late|again", "bad"], ["so; so", "bad"], ["a\tb", "good"]]


def write(folder, name, content, encoding="utf-8"):
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode(encoding))
    return path


def separated(separator, rows):
    return "".join(separator.join(f'"{cell}"' for cell in row) + "\n" for row in rows)


def loaded(spec):
    return sorted((row.fields["text"], row.gold) for split in ("train", "dev") for row in load_split(spec, split))


@pytest.mark.parametrize(("separator", "name"), [(";", "semicolons"), ("|", "pipes"), ("\t", "tabs")])
def test_the_header_tells_the_separator(tmp_path, capsys, separator, name):
    path = write(tmp_path, "a.csv", f"text{separator}label\n" + separated(separator, ROWS))
    for _ in range(2):
        spec = infer_task(path, ["text"], "label")
        assert loaded(spec) == sorted(map(tuple, ROWS))
    assert capsys.readouterr().err == f"a.csv is separated by {name} (--separator), as its header tells.\n"
    assert "separator" not in spec_to_yaml(spec)


def test_commas_and_no_separator_at_all_say_nothing(tmp_path, capsys):
    read_table(write(tmp_path, "a.csv", "text,label;x\n1,2\n"))
    read_table(write(tmp_path, "b.csv", 'text\n"a;b,c"\n'))
    assert read_table(write(tmp_path, "c.csv", '"one;\n""two""|","b"\n1,2\n'))[0] == ['one;\n"two"|', "b"]
    assert capsys.readouterr().err == ""


def test_a_header_with_several_marks_must_be_explained(tmp_path):
    path = write(tmp_path, "a.csv", "text;label|sure\na;1|0\n")
    with pytest.raises(DataError, match=r"a\.csv:1: .*semicolons or by pipes.*--separator semicolon or pipe"):
        read_table(path)
    assert read_table(path, TableFormat(separator="|"))[0] == ["text;label", "sure"]


def test_a_named_separator_is_used_and_kept(tmp_path):
    path = write(tmp_path, "a.csv", "text^label,really\n" + separated("^", ROWS))
    spec = infer_task(path, ["text"], "label,really", separator="^")
    assert loaded(spec) == sorted(map(tuple, ROWS))
    (tmp_path / "task.yaml").write_text(spec_to_yaml(spec), encoding="utf-8")
    assert load_task(tmp_path / "task.yaml") == spec and spec.source.table.separator == "^"
    assert loaded(infer_task(path, ["text"], "label,really", separator=spec.source.table.separator)) == loaded(spec)


@pytest.mark.parametrize(
    ("written", "read"), [("tab", "\t"), ("\\t", "\t"), ("Semicolon", ";"), (" pipe ", "|"), (";", ";"), ("~", "~")]
)
def test_separators_have_names(written, read):
    assert parse_separator(written) == read


@pytest.mark.parametrize("written", ["", ";;", '"', "\n", "semikolon"])
def test_what_separates_no_columns(written):
    with pytest.raises(DataError, match="write one character, or comma, semicolon, tab or pipe"):
        parse_separator(written)


@pytest.mark.parametrize("written", ["", "utf-9", "base64", "idna", "x\0"])
def test_what_is_no_encoding(written):
    with pytest.raises(DataError, match="is no text encoding"):
        parse_encoding(written)


def test_a_wrong_separator_in_a_task_file_is_a_mistake(tmp_path):
    path = write(tmp_path, "a.csv", "text,label\na,x\nb,y\n")
    text = spec_to_yaml(infer_task(path, ["text"], "label"))
    write(tmp_path, "task.yaml", text.replace("  table:\n", "  table:\n    separator: ;;\n"))
    with pytest.raises(TaskError, match=r"source\.table\.separator.*write one character"):
        load_task(tmp_path / "task.yaml")


def test_the_hint_at_a_separator_comes_with_the_width_error(tmp_path):
    path = write(tmp_path, "a.csv", "id;name, first;label\n1;Ann;x\n")
    with pytest.raises(DataError, match=r"a\.csv:2: the row has 1 cells.*semicolons: add --separator semicolon"):
        read_table(path)
    assert read_table(path, TableFormat(";"))[1] == [{"id": "1", "name, first": "Ann", "label": "x"}]
    told = write(tmp_path, "b.csv", "what | why\na,b\n")
    with pytest.raises(DataError, match=r"Pipes separate the columns, as the header tells; .*--separator comma"):
        read_table(told)
    with pytest.raises(DataError, match=r"no column 'text'.*separated by semicolons: add --separator semicolon"):
        infer_task(write(tmp_path, "c.tsv", "text;label\na;1\n"), ["text"], "label")


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32"])
@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl"])
def test_a_byte_order_mark_tells_the_encoding(tmp_path, capsys, encoding, suffix):
    content = {
        ".csv": "Größe,label\r\n“ß”,x\r\n",
        ".tsv": "Größe\tlabel\r\n“ß”\tx\r\n",
        ".jsonl": '{"Größe": "“ß”", "label": "x"}\r\n',
    }[suffix]
    mark = "\ufeff" if encoding.endswith("e") else ""
    path = write(tmp_path, f"a{suffix}", mark + content, encoding)
    assert read_table(path)[1] == [{"Größe": "“ß”", "label": "x"}]
    assert f"a{suffix} is written in {encoding[:6].upper()} (--encoding)" in capsys.readouterr().err
    assert read_table(path, TableFormat(encoding=encoding))[1] == [{"Größe": "“ß”", "label": "x"}]


@pytest.mark.parametrize("encoding", ["utf-16", "utf-32"])
def test_a_named_encoding_without_its_mark_is_that_of_windows(tmp_path, encoding):
    path = write(tmp_path, "a.csv", "Größe,label\r\nß,x\r\n", f"{encoding}-le")
    assert read_table(path, TableFormat(encoding=encoding))[1] == [{"Größe": "ß", "label": "x"}]


def test_another_encoding_is_named(tmp_path):
    path = write(tmp_path, "a.csv", "text;label\ncafé – 5 €;good\nfade;bad\nà point;good\n", "cp1252")
    with pytest.raises(DataError, match=r"a\.csv:2: byte 0xe9 is not valid UTF-8.*--encoding cp1252"):
        infer_task(path, ["text"], "label")
    spec = infer_task(path, ["text"], "label", encoding="CP1252")
    assert loaded(spec) == [("café – 5 €", "good"), ("fade", "bad"), ("à point", "good")]
    assert spec.source.table.encoding == "cp1252"
    with pytest.raises(DataError, match=r"a\.csv:2: has bytes that are not valid ascii.*--encoding"):
        infer_task(path, ["text"], "label", encoding="ascii")


def test_formats_that_a_file_does_not_have(tmp_path):
    path = write(tmp_path, "a.jsonl", '{"text": "a"}\n')
    with pytest.raises(DataError, match=r"--separator is for CSV and TSV files; leave it out for a \.jsonl"):
        read_table(path, TableFormat(separator=";"))
    with pytest.raises(DataError, match="--encoding is for text files"):
        read_table(write(tmp_path, "a.parquet", b"x"), TableFormat(encoding="utf-8"))


def test_tsv_quotes_are_text_and_those_of_other_separators_are_not(tmp_path):
    path = write(tmp_path, "a.tsv", 'text;label\n"a;b";1\n')
    assert read_table(path, TableFormat(separator=";"))[1] == [{"text": "a;b", "label": "1"}]
    path = write(tmp_path, "b.csv", 'text\tlabel\n"a\tb"\t1\n')
    assert read_table(path, TableFormat(separator="\t"))[1] == [{"text": "a\tb", "label": "1"}]


def test_unnamed_columns_keep_their_cells(tmp_path):
    path = write(tmp_path, "a.csv", 'v1,v2,,,\nham,late bus,,,\nspam,"win, now",a,,b\n')
    columns, rows = read_table(path)
    assert columns == ["v1", "v2", "", "", ""]
    assert [row.cells for row in rows] == [("ham", "late bus", "", "", ""), ("spam", "win, now", "a", "", "b")]
    write(tmp_path, "a.csv", 'v1,v2,,,\nham,late bus,,,\nspam,"win, now",a,,b\nham,at six,,,\n')
    assert loaded_spam(path) == ["at six", "late bus", "win, now"]


def loaded_spam(path):
    spec = infer_task(path, ["v2"], "v1")
    return sorted(row.fields["v2"] for split in ("train", "dev") for row in load_split(spec, split))


def test_one_unnamed_column_is_a_column(tmp_path):
    columns, rows = read_table(write(tmp_path, "a.csv", ",text\n0,a\n"))
    assert columns == ["", "text"] and rows == [{"": "0", "text": "a"}]


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_a_repeated_column_is_an_error_only_when_it_is_used(tmp_path, suffix):
    import pyarrow.parquet

    path = tmp_path / f"a{suffix}"
    if suffix == ".csv":
        write(tmp_path, path.name, "note,text,note,label\n1,a,2,x\n3,b,4,y\n1,c,2,x\n")
    else:
        arrays = [["1", "3", "1"], ["a", "b", "c"], ["2", "4", "2"], ["x", "y", "x"]]
        pyarrow.parquet.write_table(pyarrow.table(arrays, names=["note", "text", "note", "label"]), path)
    assert [row.cells for row in read_table(path)[1]] == [("1", *"a2x"), ("3", *"b4y"), ("1", *"c2x")]
    assert loaded(infer_task(path, ["text"], "label")) == [("a", "x"), ("b", "y"), ("c", "x")]
    with pytest.raises(DataError, match=rf"a{suffix}: the column 'note' occurs twice"):
        infer_task(path, ["note"], "label")


def test_official_files_with_a_repeated_column_are_refused(tmp_path):
    (tmp_path / "SST-2").mkdir()
    write(tmp_path / "SST-2", "dev.tsv", "sentence\tlabel\tsentence\ngood\t1\tbad\n")
    with pytest.raises(DataError, match="'sentence' occurs twice"):
        load_split(load_task("glue/sst2"), "dev", tmp_path)


def numbers(values):
    return "".join(f"text {index};{value}\n" for index, value in enumerate(values))


COMMAS = ["0,5", "1,25", "2", "3,75", "-4,5", "5,0", "6,1", "7,2", "8,3", "9,4", "10,5", "11,6"]


@pytest.mark.parametrize("separator", [";", ","])
def test_decimal_commas_are_read_as_numbers(tmp_path, capsys, separator):
    content = f"text{separator}score\n" + "".join(f'text {n}{separator}"{cell}"\n' for n, cell in enumerate(COMMAS))
    spec = infer_task(write(tmp_path, "a.csv", content), ["text"], "score")
    assert (spec.number.low, spec.number.high) == (-4.5, 11.6)
    assert sorted(gold for _, gold in loaded(spec)) == sorted(float(cell.replace(",", ".")) for cell in COMMAS)
    assert "column 'score' has decimal commas: 0,5 is read as 0.5.\n" in capsys.readouterr().err
    (tmp_path / "task.yaml").write_text(spec_to_yaml(spec), encoding="utf-8")
    assert loaded(load_task(tmp_path / "task.yaml")) == loaded(spec)


def test_thousands_are_not_taken_for_decimals(tmp_path):
    content = "text,price\n" + "".join(f'text {n},"{n + 1},500"\n' for n in range(12))
    with pytest.raises(DataError, match=r"column 'price': '1,500' may be 1500 or 1\.500"):
        infer_task(write(tmp_path, "a.csv", content), ["text"], "price")
    german = infer_task(
        write(tmp_path, "b.csv", "text;price\n" + numbers(f"{n},500" for n in range(12))), ["text"], "price"
    )
    assert german.number.high == 11.5


def test_a_decimal_comma_among_points_is_explained(tmp_path):
    spec = infer_task(write(tmp_path, "a.csv", "text;n\n" + numbers(n / 2 for n in range(24))), ["text"], "n")
    write(tmp_path, "a.csv", "text;n\n" + numbers(["0,5", *(n / 2 for n in range(23))]))
    with pytest.raises(DataError, match=r"a\.csv:2: '0,5' in column 'n' is not a number. Numbers have a decimal point"):
        load_split(spec, "train")


def test_a_folder_is_not_a_table(tmp_path):
    (tmp_path / "reviews.csv").mkdir()
    with pytest.raises(DataError, match=r"reviews\.csv: is a folder, and there is no table in it. Name a file: CSV"):
        infer_task(tmp_path / "reviews.csv", ["text"], "label")
    for name in ("train.csv", "dev.jsonl.gz", "notes.txt"):
        write(tmp_path / "reviews.csv", name, "x")
    with pytest.raises(DataError, match=r"is a folder. Name one file in it: \S+dev\.jsonl\.gz, \S+train\.csv\."):
        read_table(tmp_path / "reviews.csv")


def test_a_comma_in_a_name_is_explained(tmp_path):
    path = write(tmp_path, "a.csv", '"Name, first",label\nAnn,x\n')
    with pytest.raises(DataError, match=r"no column 'Name'.*Write a comma in a name as '\\,'"):
        infer_task(path, ["Name", "first"], "label")
