"""Rows from the hub and from a folder in its layout, without a network."""

import socket
from pathlib import Path

import datasets
import pyarrow
import pyarrow.parquet
import pytest
from huggingface_hub import constants

from adjudge.errors import DataError
from adjudge.tasks import list_tasks, load_split, load_task
from adjudge.tasks.reading.hub import load_from_hub

PAIR = {"sentence1": ["one", "two"], "sentence2": ["eins", "zwei"]}
HUB = {
    "glue/cola": ({"sentence": ["one", "two"]}, [0, 1], ["No", "Yes"]),
    "glue/sst2": ({"sentence": ["one", "two"]}, [0, 1], ["Negative", "Positive"]),
    "glue/mrpc": (PAIR, [0, 1], ["No", "Yes"]),
    "glue/qqp": ({"question1": ["one", "two"], "question2": ["eins", "zwei"]}, [0, 1], ["No", "Yes"]),
    "glue/qnli": ({"question": ["one", "two"], "sentence": ["eins", "zwei"]}, [0, 1], ["Yes", "No"]),
    "glue/rte": (PAIR, [0, 1], ["Yes", "No"]),
    "glue/wnli": (PAIR, [0, 1], ["No", "Yes"]),
    "glue/mnli": ({"premise": ["one", "two"], "hypothesis": ["eins", "zwei"]}, [1, 2], ["Neutral", "Contradiction"]),
    "glue/mnli-mm": ({"premise": ["one", "two"], "hypothesis": ["eins", "zwei"]}, [0, 1], ["Entailment", "Neutral"]),
}
"""Columns of the hub's data set, its integer labels, and the answers they stand for."""


def save(path: Path, columns: dict[str, list], labels: list | None, kind: pyarrow.DataType | None = None) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    table = dict(columns, idx=list(range(len(next(iter(columns.values()))))))
    if labels is not None:
        table["label"] = pyarrow.array(labels, kind or pyarrow.int64())
    pyarrow.parquet.write_table(pyarrow.table(table), path)


def test_all_glue_label_tasks_are_covered():
    assert set(HUB) == {name for name in list_tasks() if name.startswith("glue/")} - {"glue/stsb", "glue/ax"}


@pytest.mark.parametrize("name", sorted(HUB))
@pytest.mark.parametrize("above", ["", "glue"])
def test_folder_in_the_hubs_layout(tmp_path, name, above):
    columns, labels, golds = HUB[name]
    spec = load_task(name)
    assert spec.source.hub is not None
    hub = spec.source.hub
    for split in ("train", "dev"):
        save(tmp_path / above / hub.config / f"{hub.splits[split]}-00000-of-00001.parquet", columns, labels)
        examples = load_split(spec, split, tmp_path)
        assert [list(e.fields.values()) for e in examples] == [list(row) for row in zip(*columns.values(), strict=True)]
        assert [e.gold for e in examples] == golds
        assert examples[1].id == f"{hub.splits[split]}-00000-of-00001.parquet:2"


def test_single_precision_scores_keep_their_spelling(tmp_path):
    save(tmp_path / "stsb" / "validation-00000-of-00001.parquet", PAIR, [3.8, 0.0], pyarrow.float32())
    assert [e.gold for e in load_split(load_task("glue/stsb"), "dev", tmp_path)] == [3.8, 0.0]


@pytest.mark.parametrize("name", sorted({*HUB, "glue/stsb", "glue/ax"}))
def test_unlabelled_hub_rows_have_the_index_and_no_gold(tmp_path, name):
    hub = load_task(name).source.hub
    columns = HUB[name][0] if name in HUB else PAIR if name == "glue/stsb" else HUB["glue/mnli"][0]
    kind = pyarrow.float32() if name == "glue/stsb" else pyarrow.int64()
    save(
        tmp_path / "glue" / hub.config_of("test") / f"{hub.splits['test']}-00000-of-00001.parquet",
        columns,
        [-1, -1],
        kind,
    )
    examples = load_split(load_task(name), "test", tmp_path)
    assert [(list(e.fields.values()), e.gold, e.tags) for e in examples] == [
        (list(row), None, {"idx": str(number)}) for number, row in enumerate(zip(*columns.values(), strict=True))
    ]


def test_hub_configurations_of_the_diagnostic():
    hub = load_task("glue/ax").source.hub
    assert (hub.config_of("train"), hub.config_of("test")) == ("mnli", "ax")


def test_shards_are_read_in_order_and_a_missing_one_is_reported(tmp_path):
    folder = tmp_path / "sst2"
    for number in range(3):
        save(folder / f"train-{number:05d}-of-00003.parquet", {"sentence": [f"text {number}"]}, [number % 2])
    spec = load_task("glue/sst2")
    assert [e.fields["sentence"] for e in load_split(spec, "train", tmp_path)] == ["text 0", "text 1", "text 2"]
    (folder / "train-00001-of-00003.parquet").unlink()
    with pytest.raises(DataError, match=r"train-00001-of-00003\.parquet: the file is missing"):
        load_split(spec, "train", tmp_path)


@pytest.mark.parametrize(
    ("columns", "labels", "message"),
    [
        ({"sentence": ["fine", "bad"]}, [1, 7], r"row 2: '7' in column 'label' is not a label; there is: 0, 1"),
        ({"sentence": ["fine", "bad"]}, [-1, 0], r"row 1: '-1'.*no gold answer"),
        ({"sentence": ["fine", None]}, [0, 1], r"row 2: field 'sentence' is empty"),
        ({"sentense": ["fine", "bad"]}, [0, 1], r"there is no column 'sentence'. Did you mean 'sentense'"),
        ({"sentence": ["fine", "bad"]}, None, r"there is no column 'label'"),
        ({"sentence": ["fine", "bad"]}, [0, None], r"row 2: the label column 'label' is empty"),
    ],
)
def test_wrong_rows_raise_errors_with_location(tmp_path, columns, labels, message):
    save(tmp_path / "sst2" / "validation-00000-of-00001.parquet", columns, labels)
    with pytest.raises(DataError, match=rf"validation-00000-of-00001\.parquet: {message}"):
        load_split(load_task("glue/sst2"), "dev", tmp_path)


def test_damaged_file_is_reported(tmp_path):
    (tmp_path / "sst2").mkdir()
    (tmp_path / "sst2" / "validation-00000-of-00001.parquet").write_bytes(b"not parquet at all")
    with pytest.raises(DataError, match=r"validation-00000-of-00001\.parquet: cannot be read as Parquet"):
        load_split(load_task("glue/sst2"), "dev", tmp_path)


def test_hub_rows_come_from_the_pinned_revision(monkeypatch):
    requests = []

    def load_dataset(path, config, *, revision, split):
        requests.append((path, config, revision, split))
        return datasets.Dataset.from_dict({"premise": ["p"], "hypothesis": ["h"], "label": [2], "idx": [0]})

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    monkeypatch.setattr("adjudge.tasks.reading.hub.connection_problem", lambda endpoint: None)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    examples = load_split(load_task("glue/mnli-mm"), "dev")
    assert requests == [("nyu-mll/glue", "mnli", "bcdcba79d07bc864c1c254ccfcedcce55bcc9a8c", "validation_mismatched")]
    assert [(e.id, dict(e.fields), e.gold) for e in examples] == [
        ("validation_mismatched:1", {"premise": "p", "hypothesis": "h"}, "Contradiction")
    ]


def test_labelled_diagnostic_is_not_on_the_hub():
    with pytest.raises(
        DataError, match=r"the hub has no dev rows with gold answers. Name a folder with --data-dir \(DIR/glue/AX/diag"
    ):
        load_split(load_task("glue/ax"), "dev")


def test_error_without_a_network_names_both_options(monkeypatch):
    seen = []

    def load_dataset(*_, **__):
        seen.append(constants.HF_HUB_OFFLINE)
        raise ConnectionError("no copy")

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    monkeypatch.setattr("adjudge.tasks.reading.hub.connection_problem", lambda endpoint: "no route to host")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    with pytest.raises(
        DataError,
        match=r"(?s)cannot be reached \(no route to host\).*Go online, or.*--data-dir \(DIR/glue/SST-2/dev\.tsv\)",
    ):
        load_split(load_task("glue/sst2"), "dev")
    assert seen == [True], "the client must use only its cache and not retry the network"
    assert constants.HF_HUB_OFFLINE is False


def test_an_error_of_the_hubs_client_is_shown_in_one_line(monkeypatch):
    def load_dataset(*_, **__):
        raise ValueError("(Request ID: Root=1-2)\n\nBad request:\nthe reason")

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    monkeypatch.setattr("adjudge.tasks.reading.hub.connection_problem", lambda endpoint: None)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    with pytest.raises(DataError, match=r"the hub \(nyu-mll/glue, sst2\): Bad request: the reason\nGo online"):
        load_split(load_task("glue/sst2"), "dev")


def test_a_cached_copy_is_used_without_a_network(monkeypatch):
    copy = datasets.Dataset.from_dict({"sentence": ["fine"], "label": [1]})
    monkeypatch.setattr(datasets, "load_dataset", lambda *_, **__: copy)
    monkeypatch.setattr("adjudge.tasks.reading.hub.connection_problem", lambda endpoint: "no route to host")
    assert load_from_hub("a/b", None, "0" * 40, "train") is copy


def test_offline_mode_is_respected_and_reported(monkeypatch):
    def load_dataset(*_, **__):
        raise ConnectionError("no copy")

    def no_sockets(*_, **__):
        raise AssertionError("offline mode must not open a connection")

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    monkeypatch.setattr(socket, "create_connection", no_sockets)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(DataError, match="HF_HUB_OFFLINE is set"):
        load_split(load_task("glue/sst2"), "dev")
