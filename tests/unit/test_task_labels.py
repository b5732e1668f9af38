"""What a label column means: spellings, numbers, lists, class names, and what is pointed out."""

import json
import re
import shlex

import pyarrow
import pyarrow.parquet
import pytest

from adjudge.errors import ConfigError, DataError, TaskError
from adjudge.tasks import infer_task, load_split
from adjudge.tasks.answer_words import label_key, unreadable_mark, without_invisible


def table(folder, labels, name="rows.csv"):
    path = folder / name
    lines = [f'text {number},"{label}"' for number, label in enumerate(labels)]
    path.write_text("\n".join(["text,label", *lines]) + "\n", encoding="utf-8", newline="")
    return path


def infer(folder, labels, *more, **options):
    return infer_task(table(folder, labels), ["text"], "label", *more, **options)


def golds(spec):
    return sorted(str(row.gold) for split in ("train", "dev") for row in load_split(spec, split))


def printed(capsys):
    return " ".join(capsys.readouterr().err.split())


FAMILY = "\U0001f469\u200d\U0001f469\u200d\U0001f467"
PERSIAN = "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645"
HINDI = "\u0915\u094d\u200d\u0937"
CHILLU = "\u0d05\u0d35\u0d28\u0d4d\u200d"
HEART = "\u2764\ufe0f\u200d\U0001f525"


@pytest.mark.parametrize("word", ["plain", "Überblick", "日本", FAMILY, PERSIAN, HINDI, CHILLU, HEART])
def test_words_whose_marks_all_mean_something_stay_as_they_are(word):
    assert without_invisible(word) == word and label_key(word) == label_key(label_key(word))
    assert unreadable_mark(word) is None


@pytest.mark.parametrize("mark", ["\u200b", "\ufeff", "\u00ad", "\u2060", "\u200d", "\u200c", "\u3164"])
def test_invisible_marks_are_no_part_of_a_label(tmp_path, capsys, mark):
    cells = ["good", f"good{mark}", "bad", f"b{mark}ad", f"{mark}bad"] * 3
    spec = infer(tmp_path, cells)
    assert spec.labels == {"bad": "bad", "good": "good"}
    assert golds(spec) == ["bad"] * 9 + ["good"] * 6
    assert f"good{mark.encode('unicode_escape').decode()} is read as 'good'" in printed(capsys)
    assert unreadable_mark(f"good{mark}") == f"U+{ord(mark):04X}"


def test_labels_that_look_alike_in_emoji_and_persian_are_one(tmp_path):
    spec = infer(tmp_path, [FAMILY, f"{FAMILY}\u200b", PERSIAN, f"{PERSIAN}\u200c"] * 3)
    assert sorted(spec.words) == sorted([PERSIAN, FAMILY])


@pytest.mark.parametrize(
    ("cells", "labels"),
    [
        (["caf\u00e9", "cafe\u0301", "bar"], ["bar", "caf\u00e9"]),
        (["very good", "very\u00a0good", "very  good", "bad"], ["bad", "very good"]),
        (["0", "0.0", "1", "1.00"], ["0", "1"]),
        (["0.0", "1.0", "2.0"], ["0", "1", "2"]),
        (["-0.0", "0", "-1", "-1.0"], ["-1", "0"]),
        (["007", "7"], ["007", "7"]),
        (["v1.0", "v1"], ["v1", "v1.0"]),
    ],
)
def test_one_label_however_it_is_written(tmp_path, cells, labels):
    spec = infer(tmp_path, cells * 3)
    assert list(spec.words) == labels
    assert len(golds(spec)) == 3 * len(cells)


def test_whole_numbers_of_train_are_the_floats_of_dev(tmp_path, capsys):
    dev = table(tmp_path, ["0.0", "1.0"] * 3, "dev.csv")
    spec = infer(tmp_path, ["0", "1"] * 5, dev=dev)
    assert spec.labels == {"0": "0", "1": "1"}
    assert {row.gold for row in load_split(spec, "dev")} == {"0", "1"}
    assert "0.0 is read as '0'" in printed(capsys)
    chosen = infer(tmp_path, ["0.0", "1.0"] * 5, {"0.0": "Bad", "1.0": "Good"})
    assert chosen.words == ("Bad", "Good") and golds(chosen) == ["Bad"] * 5 + ["Good"] * 5


def test_a_later_file_may_spell_labels_its_own_way(tmp_path):
    spec = infer(tmp_path, ["no", "yes"] * 5)
    table(tmp_path, ["no\u200b", "yes"] * 5)
    assert golds(spec) == ["no"] * 5 + ["yes"] * 5
    table(tmp_path, ["NO", "yes"] * 5)
    with pytest.raises(DataError, match=r"rows\.csv:2: 'NO' in column 'label' is not a label of rows"):
        golds(spec)


SPELLINGS = ["Yes", "yes ", "YES", "Yes", "no", "No", "No"] * 3


def test_the_advice_for_several_spellings_works(tmp_path):
    with pytest.raises(DataError, match=r"spells one label in several ways, with rows: No \(6\), no \(3\);") as error:
        infer(tmp_path, SPELLINGS)
    option = re.search(r"--labels (.+)", str(error.value))[1]
    spec = infer(tmp_path, SPELLINGS, shlex.split(option)[0].split(","))
    assert spec.words == ("No", "Yes")
    assert golds(spec) == ["No"] * 9 + ["Yes"] * 12
    assert spec.instruction.endswith('Answer "No" or "Yes".')


def test_the_advice_for_spellings_with_commas_is_python(tmp_path):
    with pytest.raises(DataError, match="in several ways") as error:
        infer(tmp_path, ["a, b", "A, b", "c"] * 3)
    mapping = re.search(r"labels=(\{.+\})", str(error.value))[1]
    assert infer(tmp_path, ["a, b", "A, b", "c"] * 3, json.loads(mapping.replace("'", '"'))).words == ("A, b", "c")


def test_stars_are_joined_to_three_classes(tmp_path):
    spec = infer(tmp_path, [*"12345"] * 4, ["1=bad", "2=bad", "3=mixed", "4=good", "5=good"])
    assert spec.words == ("bad", "mixed", "good")
    assert golds(spec) == ["bad"] * 8 + ["good"] * 8 + ["mixed"] * 4
    with pytest.raises(TaskError, match="1 label: at least two are needed"):
        infer(tmp_path, ["1", "2"] * 4, ["1=same", "2=same"])


@pytest.mark.parametrize(
    ("cells", "ends"),
    [
        (["0.5", "1.5", "2.0"] * 4, (0.5, 2.0)),
        (["0.0", "0.25", "1.0"] * 4, (0.0, 1.0)),
        ([str(number) for number in range(77)] * 2, (0.0, 76.0)),
    ],
)
def test_numbers_are_classes_only_when_asked(tmp_path, capsys, cells, ends):
    spec = infer(tmp_path, cells)
    assert (spec.number.low, spec.number.high) == ends
    assert "read as a number. If they name classes: --kind labels." in printed(capsys)
    assert len(infer(tmp_path, cells, kind="labels").words) == len(set(cells))


def test_few_whole_numbers_are_labels_or_a_number_when_asked(tmp_path, capsys):
    assert infer(tmp_path, [*"12345"] * 3).words == tuple("12345")
    assert "5 whole numbers are read as 5 labels. --kind number" in printed(capsys)
    assert infer(tmp_path, [*"12345"] * 3, kind="number").number.high == 5
    infer(tmp_path, ["0", "1"] * 3)
    assert not printed(capsys)


def test_kind_takes_columns_that_do_not_look_like_labels(tmp_path):
    titles = [f"title {number}" for number in range(20)]
    with pytest.raises(DataError, match="--kind labels takes them all"):
        infer(tmp_path, titles)
    assert len(infer(tmp_path, titles, kind="labels").words) == 20


def test_wrong_kinds(tmp_path):
    with pytest.raises(ConfigError, match=r"--kind is 'numbers'.*Did you mean 'number'"):
        infer(tmp_path, ["a", "b"], kind="numbers")
    with pytest.raises(ConfigError, match="give one of them"):
        infer(tmp_path, ["1", "2"], ["1", "2"], kind="number")
    with pytest.raises(DataError, match=r"rows\.csv:2: 'a' in column 'label' is not a number\. .*--kind labels"):
        infer(tmp_path, ["a", "b"], kind="number")
    with pytest.raises(DataError, match="every row has '1'"):
        infer(tmp_path, ["1", "1.0"], kind="number")


@pytest.mark.parametrize(
    ("cells", "warning"),
    [
        ([*"12345"] * 8 + ["500"], r"rows\.csv:42: 500 in column 'label' is far from the others \(1 to 5\)"),
        ([*"12345"] * 8 + ["-99"], r"rows\.csv:42: -99 in column 'label' is far from the others"),
        ([*"12345"] * 8, None),
        ([str(1.5**number) for number in range(12)], None),
    ],
)
def test_an_outlier_that_sets_the_range_is_reported(tmp_path, capsys, cells, warning):
    infer(tmp_path, cells, kind="number")
    text = printed(capsys)
    assert re.search(warning, text) if warning else "far from" not in text


@pytest.mark.parametrize("word", ["nan", "NULL", "n/a", "None"])
def test_a_label_that_may_be_a_missing_one_is_reported(tmp_path, capsys, word):
    infer(tmp_path, ["good", "bad", word] * 3)
    assert f"rows.csv:4: '{word}' in column 'label' is read as a label (3 rows)" in printed(capsys)


@pytest.mark.parametrize(
    ("cells", "reported"),
    [
        (["a", "b", "a;b"], True),
        (["a", "b", "b | a"], True),
        (["a;b", "b;c", "a;c"], True),
        (["yes; really", "no", "perhaps"], False),
        (["sports, games", "news"], False),
    ],
)
def test_several_labels_in_one_cell_are_reported(tmp_path, capsys, cells, reported):
    infer(tmp_path, cells * 3)
    assert ("seems to hold several labels" in printed(capsys)) == reported


@pytest.mark.parametrize(
    ("one", "other"), [("good", "g\u043e\u043ed"), ("A", "\uff21"), ("A", "\u0391"), ("\u0445\u043e", "xo")]
)
def test_labels_of_other_letters_that_look_alike_are_reported(tmp_path, capsys, one, other):
    assert len(infer(tmp_path, [one, other, "third"] * 3).words) == 3
    text = printed(capsys)
    assert "looks like" in text and ascii(one) in text and ascii(other) in text


def test_sixty_labels_are_pointed_out(tmp_path, capsys):
    infer(tmp_path, [f"intent {number}" for number in range(60)] * 3)
    assert "60 labels, and the prompt names all of them. --labels a=X,b=X" in printed(capsys)


@pytest.mark.parametrize("cell", ["['a', 'b']", "[1, 2]", "[]", "{1: 2}", "('a',)"])
def test_a_list_is_no_label(tmp_path, cell):
    with pytest.raises(DataError, match=r"rows\.csv:3: '.*' in column 'label' is (a list|an object), and a row has"):
        infer(tmp_path, ["a", cell, "b"])


@pytest.mark.parametrize("value", [["a"], {"name": "a"}, [["a"], ["b"]]])
def test_a_list_of_jsonl_is_no_label(tmp_path, value):
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps({"text": f"t {n}", "labels": value}) + "\n" for n in range(9)))
    with pytest.raises(DataError, match=r"rows\.jsonl:1: .*make one column per label with yes and no"):
        infer_task(path, ["text"], "labels")


def test_words_in_brackets_are_labels(tmp_path):
    assert infer(tmp_path, ["[deleted]", "(none)", "{x}", "ok"] * 3).words == ("(none)", "[deleted]", "ok", "{x}")


def test_a_cell_of_invisible_marks_is_empty(tmp_path):
    with pytest.raises(DataError, match=r"rows\.csv:3: the label column 'label' is empty \(it holds only \\u200b\)"):
        infer(tmp_path, ["a", "\u200b", "b"])


def classes(folder, numbers, names=("card_arrival", "lost_phone", "top_up"), kind="ClassLabel"):
    features = {"text": {"dtype": "string", "_type": "Value"}, "label": {"names": list(names), "_type": kind}}
    rows = pyarrow.table({"text": [f"text {n}" for n in range(len(numbers))], "label": pyarrow.array(numbers)})
    metadata = {b"huggingface": json.dumps({"info": {"features": features}}).encode()}
    pyarrow.parquet.write_table(rows.replace_schema_metadata(metadata), folder / "rows.parquet")
    return folder / "rows.parquet"


def test_class_names_of_parquet_are_the_words(tmp_path):
    path = classes(tmp_path, [2, 0, 1, 0] * 5)
    spec = infer_task(path, ["text"], "label")
    assert list(spec.labels.items()) == [("0", "card arrival"), ("1", "lost phone"), ("2", "top up")]
    assert golds(spec) == ["card arrival"] * 10 + ["lost phone"] * 5 + ["top up"] * 5
    assert infer_task(path, ["text"], "label", ["top_up=Top", "1=Lost", "card_arrival"]).labels == {
        "2": "Top",
        "1": "Lost",
        "0": "card_arrival",
    }
    assert infer_task(path, ["text"], "label", kind="number").number.high == 2


def test_many_class_names_are_labels_not_a_number(tmp_path):
    path = classes(tmp_path, [*range(77)] * 2, [f"intent_{number}" for number in range(77)])
    assert infer_task(path, ["text"], "label").words[:2] == ("intent 0", "intent 1")


def test_class_numbers_without_a_name_are_an_error(tmp_path):
    path = classes(tmp_path, [0, 1, -1, 0] * 5)
    with pytest.raises(
        DataError, match=r"rows\.parquet:3: -1 in column 'label' is no class.*5 bad rows.*bad_rows=drop"
    ):
        infer_task(path, ["text"], "label")
    spec = infer_task(path, ["text"], "label", bad_rows="drop")
    assert spec.words == ("card arrival", "lost phone")
    assert len(load_split(spec, "train", bad_rows="drop")) + len(load_split(spec, "dev", bad_rows="drop")) == 15


@pytest.mark.parametrize(("names", "kind"), [([], "ClassLabel"), (["a"], "Value"), ([1, 2], "ClassLabel")])
def test_damaged_class_names_are_ignored(tmp_path, names, kind):
    assert infer_task(classes(tmp_path, [0, 1] * 5, names, kind), ["text"], "label").words == ("0", "1")


@pytest.mark.parametrize(
    ("text", "label", "labels", "message"),
    [
        ("text", "label", None, r"text is 'text': write a list of column names, also for one: text=\['text'\]"),
        ([0], "label", None, "write a list of column names"),
        (["text"], ["label"], None, 'write the name of one column, as in label="sentiment"'),
        (["text"], "label", "0=Bad,1=Good", r'labels is .*write a list, as in \["0=Bad", "1=Good"\], or a mapping'),
        (["text"], "label", {0: "Bad", 1: "Good"}, r"has 0, which is no text.*labels=\{'0': 'Bad', '1': 'Good'\}"),
        (["text"], "label", [0, 1], r"has 0, which is no text.*labels=\['0', '1'\]"),
        (["text"], "label", {"0": True, "1": False}, "has True, which is no text"),
    ],
)
def test_slips_in_python_say_what_to_write(tmp_path, text, label, labels, message):
    with pytest.raises(DataError, match=message):
        infer_task(table(tmp_path, ["0", "1"]), text, label, labels)
