"""The built-in tasks, tasks from the user's YAML, and messages about mistakes in it."""

from pathlib import Path

import pytest
import yaml
from jinja2.sandbox import SandboxedEnvironment

from adjudge.errors import TaskError
from adjudge.tasks import list_tasks, load_task, spec_to_yaml, validate_task

GOOD = """
name: my/task
title: A task
fields: {text: body}
instruction: Judge the text.
template: "Text: {{ text }}"
labels: {0: No, 1: Yes}
metrics: [accuracy, f1]
source: {table: {train: rows.csv}}
"""

EXPECTED = {
    "code/exec": ("False", "True"),
    "glue/ax": ("Entailment", "Contradiction", "Neutral"),
    "glue/cola": ("No", "Yes"),
    "glue/mnli": ("Entailment", "Contradiction", "Neutral"),
    "glue/mnli-mm": ("Entailment", "Contradiction", "Neutral"),
    "glue/mrpc": ("No", "Yes"),
    "glue/qnli": ("No", "Yes"),
    "glue/qqp": ("No", "Yes"),
    "glue/rte": ("No", "Yes"),
    "glue/sst2": ("Negative", "Positive"),
    "glue/stsb": (),
    "glue/wnli": ("No", "Yes"),
    "superglue/axb": ("No", "Yes"),
    "superglue/axg": ("No", "Yes"),
    "superglue/boolq": ("No", "Yes"),
    "superglue/cb": ("Entailment", "Contradiction", "Neutral"),
    "superglue/copa": ("Option one", "Option two"),
    "superglue/multirc": ("False", "True"),
    "superglue/record": ("No", "Yes"),
    "superglue/rte": ("No", "Yes"),
    "superglue/wic": ("Different", "Same"),
    "superglue/wsc": ("No", "Yes"),
    "vader/movies": ("Negative", "Positive"),
    "vader/movies-rating": (),
    "vader/news": ("Negative", "Positive"),
    "vader/products": ("Negative", "Positive"),
    "vader/tweets": ("Negative", "Positive"),
}
PRIMARY = {
    "glue/cola": "matthews",
    "glue/ax": "matthews",
    "superglue/axb": "matthews",
    "superglue/multirc": "f1a",
    "superglue/record": "record_f1",
    "glue/mrpc": "f1",
    "glue/qqp": "f1",
} | dict.fromkeys(("glue/stsb", "vader/movies-rating"), "pearson")


def write(folder: Path, text: str, name: str = "task.yaml") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def test_list_of_built_in_tasks():
    assert list_tasks() == sorted(EXPECTED)


@pytest.mark.parametrize("name", sorted(EXPECTED))
def test_built_in_task(name, tmp_path):
    spec = load_task(name)
    assert spec.name == name
    assert spec.words == EXPECTED[name]
    assert spec.is_number == (not EXPECTED[name])
    assert spec.primary == PRIMARY.get(name, "accuracy")
    assert "{{" not in spec.instruction and "Judgement" not in spec.instruction
    for word in spec.words:
        assert f'"{word}"' in spec.instruction
    shown = SandboxedEnvironment().from_string(spec.template).render({field: f"<{field}>" for field in spec.fields})
    assert all(f"<{field}>" in shown for field in spec.fields)
    assert load_task(write(tmp_path, spec_to_yaml(spec))) == spec


@pytest.mark.parametrize("name", sorted(EXPECTED))
def test_built_in_labels_survive_a_plain_yaml_reader(name):
    """Another YAML reader must not turn the answer word No into False."""
    spec = load_task(name)
    plain = yaml.safe_load(spec_to_yaml(spec))
    assert plain.get("labels") == spec.labels


def test_ranges_of_number_tasks():
    assert load_task("glue/stsb").number.model_dump() == {"low": 0, "high": 5, "decimals": 1}
    assert load_task("vader/movies-rating").number.model_dump() == {"low": -4, "high": 4, "decimals": 1}


def test_unknown_name_suggests_the_nearest():
    with pytest.raises(TaskError, match=r"no task 'glue/sst-2'.*Did you mean 'glue/sst2'"):
        load_task("glue/sst-2")


def test_missing_file_is_named(tmp_path):
    with pytest.raises(TaskError, match=r"nowhere\.yaml: there is no such file"):
        load_task(tmp_path / "nowhere.yaml")


def test_yes_and_no_and_numbers_stay_text(tmp_path):
    spec = load_task(write(tmp_path, GOOD.replace("{0: No, 1: Yes}", "{007: No, 1.50: on, 'null': 2024-01-01}")))
    assert spec.labels == {"007": "No", "1.50": "on", "null": "2024-01-01"}


def test_table_is_relative_to_the_yaml_file(tmp_path, monkeypatch):
    (tmp_path / "deep").mkdir()
    path = write(tmp_path / "deep", GOOD.replace("rows.csv}", "../rows.csv, dev: dev.csv}"))
    monkeypatch.chdir(tmp_path)
    table = load_task("deep/task.yaml").source.table
    assert Path(table.train).resolve() == (tmp_path / "rows.csv").resolve()
    assert Path(table.dev).resolve() == (tmp_path / "deep" / "dev.csv").resolve()
    assert validate_task(path) == []


def test_round_trip_keeps_a_null_label_and_odd_words(tmp_path):
    text = GOOD.replace("{0: No, 1: Yes}", '{"a: b": "yes # no", "~": "  two  words\\u2028"}') + "label: null\n"
    spec = load_task(write(tmp_path, text))
    assert spec.label is None
    assert load_task(write(tmp_path, spec_to_yaml(spec), "again.yaml")) == spec


MISTAKES = [
    ("title: A task", "titel: A task", ["'titel' is not a key of a task. Did you mean 'title'?", "'title' is missing"]),
    ("{{ text }}", "{{ txt }}", ["'template' uses 'txt', which is not among the fields. Did you mean 'text'?"]),
    ("{{ text }}", "{{ text", ["'template' is not valid Jinja (line 1)"]),
    ("{{ text }}", "nothing", ["'template' uses no field"]),
    ("{text: body}", "{text: body, other: b}", ["'fields.other' is not used in the template"]),
    (
        "title: A task",
        "title: A task\noptional: [txt]",
        ["'optional' has 'txt', which is not among the fields. Did you mean 'text'?"],
    ),
    (
        "{table: {train: rows.csv}}",
        "{hook: wsk, files: {folder: a, splits: {}}}",
        ["'source.hook' is 'wsk'", "Did you mean 'wsc'?"],
    ),
    (
        "{table: {train: rows.csv}}",
        "{hook: wsc, table: {train: rows.csv}}",
        ["'source.hook' needs the rows of 'files' or 'hub'"],
    ),
    ("{table: {train: rows.csv}}", "{hook: wsc}", ["'source' is empty"]),
    ("{text: body}", "{text: body, my text: b}", ["'fields.my text' cannot be used in a template"]),
    ("{text: body}", "{text: body, self: b}", ["'fields.self' cannot be used in a template"]),
    ("{text: body}", "{}", ["'fields' is empty"]),
    ("{text: body}", "body", ["'fields' must be a mapping"]),
    ("{0: No, 1: Yes}", "{0: Yes, 1: yes.}", ["'labels.1' and 'labels.0' have the same answer word"]),
    ("{0: No, 1: Yes}", "{0: '', 1: Yes}", ["'labels.0' has the answer word ''"]),
    ("{0: No, 1: Yes}", "{0: No, 1: '</Judgement>'}", ["'labels.1'", "must not have a line break or '<'"]),
    ("{0: No, 1: Yes}", "{1: Yes}", ["at least two are needed"]),
    ("{0: No, 1: Yes}", "{0: No, 0: Yes}", [":7:", "the key '0' occurs twice"]),
    ("labels: {0: No, 1: Yes}\n", "", ["neither 'labels' nor 'number'"]),
    ("metrics", "number: {low: 0, high: 1}\nmetrics", ["both 'labels' and 'number'"]),
    (
        "labels: {0: No, 1: Yes}",
        "number: {low: 5, high: 5}",
        ["low must be below high", "'accuracy', which does not fit"],
    ),
    ("labels: {0: No, 1: Yes}", "number: {low: a, high: 5}", ["'number.low' must be a number"]),
    ("labels: {0: No, 1: Yes}", "number: {low: 1}", ["'number.high' is missing"]),
    ("[accuracy, f1]", "[acuracy]", ["'acuracy', which is not a metric. Did you mean 'accuracy'?"]),
    ("[accuracy, f1]", "[pearson]", ["'pearson', which does not fit answers that are labels"]),
    ("[accuracy, f1]", "[]", ["'metrics' is empty"]),
    ("[accuracy, f1]", "[f1, f1]", ["'f1' twice"]),
    ("[accuracy, f1]", "[accuracy, group_exact]", ["'group_exact', which scores groups of rows", "as 'group'"]),
    ("labels: {0: No, 1: Yes}", "number: {low: 0, high: 5}\ngroup: page", ["'group' is only for tasks with labels"]),
    ("[accuracy, f1]", "accuracy", ["'metrics' must be a list"]),
    ("metrics", "positive: Maybe\nmetrics", ["'positive' is 'Maybe', which is not an answer word"]),
    ("{table: {train: rows.csv}}", "{}", ["'source' is empty"]),
    (
        "{table: {train: rows.csv}}",
        "{tabel: {train: rows.csv}}",
        ["'source.tabel' is not a key of a task. Did you mean 'table'?"],
    ),
    (
        "{table: {train: rows.csv}}",
        "{table: {trian: rows.csv}}",
        ["'source.table.train' is missing", "Did you mean 'train'?"],
    ),
    (
        "{table: {train: rows.csv}}",
        "{vader: {part: movis}}",
        ["'source.vader.part' is 'movis'. Did you mean 'movies'?"],
    ),
    ("name: my/task", "name: ../task", ["'name' is '../task'"]),
    ("name: my/task", "name: [", ["is not valid YAML"]),
    ("Judge the text.", "''", ["'instruction' is empty"]),
]


@pytest.mark.parametrize(("old", "new", "parts"), MISTAKES, ids=[f"{number}" for number in range(len(MISTAKES))])
def test_every_mistake_is_explained(old, new, parts, tmp_path):
    assert old in GOOD
    path = write(tmp_path, GOOD.replace(old, new))
    mistakes = "\n".join(validate_task(path))
    for part in parts:
        assert part in mistakes
    with pytest.raises(TaskError) as raised:
        load_task(path)
    for part in parts:
        assert part in str(raised.value)


def test_a_good_task_has_no_mistakes(tmp_path):
    assert validate_task(write(tmp_path, GOOD)) == []


def test_group_metrics_fit_a_task_with_groups(tmp_path):
    text = GOOD.replace("[accuracy, f1]", "[f1a, group_exact]\ngroup: page")
    assert validate_task(write(tmp_path, text)) == []


def test_all_mistakes_are_reported_at_once(tmp_path):
    text = GOOD.replace("title", "titel").replace("{{ text }}", "{{ txt }}").replace("accuracy", "acuracy")
    assert len(validate_task(write(tmp_path, text))) == 4


@pytest.mark.parametrize("content", [b"", b"- a\n- b\n", b"\xff\xfe", b"just text"])
def test_files_without_a_task(content, tmp_path):
    path = tmp_path / "task.yaml"
    path.write_bytes(content)
    assert len(validate_task(path)) == 1
    with pytest.raises(TaskError, match=r"task\.yaml"):
        load_task(path)


def test_yaml_cannot_build_objects(tmp_path):
    mistakes = validate_task(write(tmp_path, GOOD.replace("A task", "!!python/object/apply:os.getcwd []")))
    assert len(mistakes) == 1 and "not valid YAML" in mistakes[0]
