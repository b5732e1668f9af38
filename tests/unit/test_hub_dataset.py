"""Any data set of the hub by its name: from a local fake of the hub, from the cache, and from a folder."""

from __future__ import annotations

import shutil

import datasets
import pytest
from fake_datasets import fake_dataset
from huggingface_hub import constants
from typer.testing import CliRunner

from adjudge.cli.main import app
from adjudge.errors import ConfigError, DataError
from adjudge.experiments.own_rows import chosen_tasks, dataset_task
from adjudge.runs.folder import read_json
from adjudge.runs.tasks import read_task
from adjudge.tasks import load_split
from adjudge.tasks.reading.hub_dataset import dataset_origin

COMMIT = "3" * 40
SIZES = {"train": 24, "validation": 6, "test": 4}


def save(folder, sizes=SIZES, below="data"):
    features = datasets.Features(
        {
            "sentence": datasets.Value("string"),
            "label": datasets.ClassLabel(names=["worse", "better"]),
            "picture": datasets.Image(),
        }
    )
    (folder / below).mkdir(parents=True, exist_ok=True)
    begin = 0
    for split, count in sizes.items():
        numbers = range(begin, begin + count)
        begin += count
        columns = {
            "sentence": [f"{'good' if number % 2 else 'bad'} film {number}" for number in numbers],
            "label": [number % 2 for number in numbers],
            "picture": [None for _ in numbers],
        }
        datasets.Dataset.from_dict(columns, features).to_parquet(folder / below / f"{split}-00000-of-00001.parquet")
    return folder


@pytest.fixture(autouse=True)
def places(tmp_path, monkeypatch):
    """Give the run, the cache and the hub's client places of their own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ADJUDGE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "datasets")
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)


@pytest.fixture
def hub(tmp_path, monkeypatch):
    with fake_dataset(save(tmp_path / "films"), COMMIT) as served:
        reach(monkeypatch, served.url)
        yield served


def reach(monkeypatch, address):
    """Let the hub's client and `datasets` find the hub at an address."""
    monkeypatch.setattr(constants, "ENDPOINT", address)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", address + "/{repo_id}/resolve/{revision}/{filename}")
    monkeypatch.setattr(datasets.config, "HF_ENDPOINT", address)


def unreachable(monkeypatch):
    reach(monkeypatch, "http://127.0.0.1:9")


def task(name="owner/name", **options):
    return dataset_task(name, ["sentence"], "label", **options)


def texts(spec, split):
    return [row.fields["sentence"] for row in load_split(spec, split)]


def invoke(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_a_data_set_is_trained_on_by_its_name(hub, tmp_path):
    result = invoke(
        *("train", "tfidf", "--dataset", "owner/name", "--text", "sentence", "--label", "label"),
        "evaluation.resamples=100",
    )
    assert result.exit_code == 0, result.output
    run = tmp_path / "runs" / "owner-name" / "tfidf-seed0"
    spec = read_task(run)
    assert (spec.words, spec.on_hub) == (("worse", "better"), ("owner/name", COMMIT))
    assert read_json(run / "scores.json")["n"] == SIZES["validation"]
    record = read_json(run / "environment.json")["data"]["tasks"]["owner-name"]
    assert (record["hub"], record["revision"], len(record["files"])) == ("owner/name", COMMIT, 2)
    judged = invoke("evaluate", "--run", run, "--split", "test")
    assert judged.exit_code == 0, judged.output
    assert f"owner-name test: {SIZES['test']} rows" in judged.stdout
    assert COMMIT in (run / "regression" / "README.md").read_text()
    assert not [path for path in hub.asked if path.endswith(".py") and path.startswith("GET")], "no code is fetched"


def test_rows_in_the_cache_are_not_fetched_again_and_serve_without_a_network(hub, monkeypatch, capsys):
    expected = texts(task(), "train")
    hub.asked.clear()
    assert texts(task(), "train") == expected
    assert hub.asked[-1] == "GET /api/datasets/owner/name" and not [line for line in hub.asked if "resolve" in line]
    unreachable(monkeypatch)
    assert texts(task(), "train") == expected
    assert f"those of commit {COMMIT[:12]}, from the cache" in " ".join(capsys.readouterr().err.split())
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert task().source == task(f"owner/name@{COMMIT}").source


def test_the_client_s_own_cache_serves_without_a_network(hub, tmp_path, monkeypatch):
    expected = texts(task(), "train")
    shutil.rmtree(tmp_path / "cache")
    unreachable(monkeypatch)
    again = task()
    assert (texts(again, "train"), again.on_hub) == (expected, ("owner/name", COMMIT))


def test_rows_that_are_gone_are_fetched_again_at_their_commit(hub, tmp_path):
    spec = task()
    expected = texts(spec, "train")
    shutil.rmtree(tmp_path / "cache")
    shutil.rmtree(tmp_path / "datasets")
    assert texts(spec, "train") == expected
    assert f"/api/datasets/owner/name/tree/{COMMIT}/data" in " ".join(hub.asked)


def test_without_a_network_the_error_says_what_to_do(monkeypatch):
    unreachable(monkeypatch)
    with pytest.raises(DataError, match=r"the hub cannot be reached \(.*\).*Go online once.*--data .*--dataset DIR"):
        task()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(DataError, match=r"the hub cannot be reached \(HF_HUB_OFFLINE is set\)"):
        task()


def test_a_name_that_is_not_on_the_hub(hub):
    with pytest.raises(DataError, match=r"owner/nothing: cannot get its rows: the hub has no such data set, or it is"):
        task("owner/nothing")


def test_a_data_set_whose_access_must_be_asked_for(hub, monkeypatch):
    refusal = 403, {"X-Error-Code": "GatedRepo"}, b""
    monkeypatch.setattr(hub, "answer", lambda *_: refusal)
    with pytest.raises(DataError, match=r"rows: the data set is gated: ask for access on the hub's page of the data"):
        task()


def test_another_error_of_the_hub_is_shown_with_what_to_check(hub, monkeypatch):
    monkeypatch.setattr(hub, "answer", lambda *_: (418, {}, b'{"error": "short and stout"}'))
    with pytest.raises(DataError, match=r"get its rows: .*short and stout Check the name.*hf auth login") as caught:
        task()
    assert "Request ID" not in str(caught.value)


def test_a_folder_in_the_hubs_layout(tmp_path):
    spec = task(str(save(tmp_path / "films")))
    assert (spec.name, len(texts(spec, "train")), len(texts(spec, "dev")), len(texts(spec, "test"))) == (
        "films",
        24,
        6,
        4,
    )
    assert spec.on_hub is None, "a place on this machine means nothing to others"
    save(tmp_path / "films", SIZES | {"train": 30})
    assert len(texts(task("films"), "train")) == 30, "a changed folder is read again"


def test_test_is_judged_where_there_is_no_validation_and_a_fifth_where_there_is_neither(tmp_path):
    spec = task(str(save(tmp_path / "a", {"train": 20, "test": 4})))
    assert len(texts(spec, "dev")) == 4
    spec = task(str(save(tmp_path / "b", {"train": 20})))
    assert (len(texts(spec, "train")), len(texts(spec, "dev"))) == (16, 4)
    with pytest.raises(DataError, match="needs 'train'; it has test"):
        task(str(save(tmp_path / "c", {"test": 4})))


def test_a_configuration_is_named(tmp_path):
    for config in ("one", "two"):
        save(tmp_path / "both", SIZES if config == "one" else {"train": 10}, below=config)
    configs = "".join(f"- config_name: {name}\n  data_dir: {name}\n" for name in ("one", "two"))
    (tmp_path / "both" / "README.md").write_text(f"---\nconfigs:\n{configs}---\n")
    assert len(texts(task("both", config="one"), "train")) == 24
    assert task("both", config="two").name == "both-two"
    for config in (None, "three"):
        with pytest.raises(DataError, match=r"(?s)needs another configuration: .*one.*two.*--dataset NAME:CONFIG"):
            task("both", config=config)


def test_the_code_of_a_data_set_never_runs(tmp_path):
    save(tmp_path / "films")
    (tmp_path / "films" / "films.py").write_text("raise SystemExit('this ran')")
    with pytest.raises(DataError, match=r"never run here.*@refs/convert/parquet"):
        task("films")


@pytest.mark.parametrize(
    ("name", "path", "config", "revision"),
    [
        ("owner/name", "owner/name", None, None),
        ("owner/name:sst2", "owner/name", "sst2", None),
        ("owner/name@main", "owner/name", None, "main"),
        ("owner/name:a b@refs/convert/parquet", "owner/name", "a b", "refs/convert/parquet"),
        ("imdb", "imdb", None, None),
    ],
)
def test_names(name, path, config, revision):
    origin = dataset_origin(name)
    assert (origin.path, origin.config, origin.revision) == (path, config, revision)


def test_wrong_names(tmp_path):
    (tmp_path / "films.csv").write_text("a,b\n")
    for name, message in (
        ("a/b/c", "no data set of the hub"),
        ("", "no data set of the hub"),
        ("films.csv", "is a file: name it with --data"),
    ):
        with pytest.raises(DataError, match=message):
            dataset_origin(name)
    with pytest.raises(DataError, match="give one"):
        dataset_origin("a/b:one", "two")


def test_the_columns_are_named_and_the_error_lists_them(tmp_path):
    save(tmp_path / "films")
    result = invoke("train", "tfidf", "--dataset", "films")
    assert result.exit_code == 2
    assert "--text COL and --label COL. The columns: sentence, label." in " ".join(result.stderr.split())
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--dataset", "a/b", "--data", "x.csv"], "--data and --dataset both say which rows"),
        (["--dataset", "a/b", "--task", "glue/sst2"], "--task and --dataset both say which rows"),
        (["--dataset-config", "x"], "--dataset-config belongs to a data set"),
        (["--dataset", "a/b", "--dev", "x.csv"], "--dev is for a table"),
        (["--dataset", "a/b", "--separator", "tab"], "--separator is for a table"),
    ],
)
def test_options_that_contradict_each_other(options, message):
    result = invoke("train", "tfidf", *options)
    assert result.exit_code == 2
    assert message in " ".join(result.stderr.split())


def test_python_names_a_data_set_too(tmp_path):
    save(tmp_path / "films")
    own = {"data": None, "dataset": "films", "text": "sentence", "label": "label"}
    with chosen_tasks(None, own) as (spec,):
        assert len(texts(spec, "train")) == 24
    with pytest.raises(ConfigError, match="data and dataset both say"), chosen_tasks(None, own | {"data": []}):
        pass
    with pytest.raises(ConfigError, match="dev is for data"), chosen_tasks(None, own | {"dev": []}):
        pass
