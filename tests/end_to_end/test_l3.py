"""An L3-style stream on a tiny model: what a stage takes from the base, what it leaves, and what is refused."""

from __future__ import annotations

import json
import shutil

import pytest
from policies import watched_loads
from running import EPOCHS_ALONE

from adjudge.config import load_config
from adjudge.errors import ConfigError, RunError
from adjudge.experiments.continual import plan_streams, run_streams, with_base
from adjudge.experiments.evaluate import load_judge
from adjudge.experiments.execute import execute
from adjudge.experiments.lifelong import answers, centroid, near_of, read_base, training_rows
from adjudge.report.stream import stream_markdown
from adjudge.runs.folder import Run
from adjudge.tasks import infer_task
from adjudge.types import Example

KINDS = {
    "films": [("a warm and funny film", "Good"), ("a dull and slow film", "Bad")],
    "pairs": [("the plot is tired", "No"), ("the scene is charming", "Yes")],
    "books": [("a charming book", "Good"), ("a tired and dull book", "Bad")],
}
ROWS = 20
WEIGHTS = "adapter/adapter_model.safetensors"


@pytest.fixture(scope="module")
def specs(tmp_path_factory):
    folder, made = tmp_path_factory.mktemp("tasks"), []
    for name, kinds in KINDS.items():
        for split, count in (("train", ROWS), ("dev", 6)):
            lines = "".join("{},{}\n".format(*kinds[index % 2]) for index in range(count))
            (folder / f"{name}-{split}.csv").write_text("text,label\n" + lines)
        spec = infer_task(folder / f"{name}-train.csv", ["text"], "label", dev=folder / f"{name}-dev.csv")
        made.append(spec.model_copy(update={"name": name}))
    return made


@pytest.fixture(scope="module")
def config(able):
    values = {"sft.batch_size": 8, "sft.epochs": 2, "sft.optimizer.lr": 1e-2, "evaluation.resamples": 100}
    fixed = {"model": str(able), "method": "sft", "runtime.device": "cpu", "runtime.dtype": "float32"}
    return load_config(values={**EPOCHS_ALONE, **fixed, **values, "data.train_rows": ROWS})


def stream(config, specs, out, *strategies, base=None):
    streams = plan_streams(config, specs, strategies, (), (0,), out)
    return run_streams(config, streams, out, base=base, runner=execute)


@pytest.fixture(scope="module")
def done(config, specs, tmp_path_factory):
    """Every task is near enough."""
    out = tmp_path_factory.mktemp("stream")
    return out, stream(config, specs, out, "l3=-1")


def place(out):
    return out / "l3--1" / "order-films-pairs-books" / "seed-0"


def test_with_nothing_in_the_base_a_stage_is_plain_sft(done, config, specs, tmp_path):
    out, result = done
    assert result["folders"][0] == str(out / "single" / "films" / "seed-0")
    execute(config, specs[0], tmp_path / "plain")
    first = Run.open(result["folders"][0])
    assert (first.folder / WEIGHTS).read_bytes() == (tmp_path / "plain" / WEIGHTS).read_bytes()
    assert first.predictions("dev") == Run.open(tmp_path / "plain").predictions("dev")
    assert result["l3"][0] == {
        "task": "films", "similarity": {}, "warm_start": None, "held_out": 0, "weights": {"own": 1.0}
    }  # fmt: skip


def test_where_no_task_is_near_every_stage_is_plain_sft(done, config, specs):
    far = stream(config, specs[:2], done[0], "l3=1")
    assert far["folders"] == [str(done[0] / "single" / name / "seed-0") for name in ("films", "pairs")]
    assert [stage["warm_start"] for stage in far["l3"]] == [None] * 2


def test_a_stage_starts_from_the_nearest_and_is_judged_with_those_of_its_words(done):
    out, result = done
    second, third = result["l3"][1:]
    assert second["warm_start"] == "1-films" and second["weights"] == {"own": 1.0} and second["held_out"] == 0
    assert third["warm_start"] == max(third["similarity"], key=third["similarity"].get)
    assert set(third["similarity"]) == {"1-films", "2-pairs"} and set(third["weights"]) == {"own", "1-films"}
    assert third["held_out"] == 8 and sum(third["weights"].values()) == pytest.approx(1)
    runs = [Run.open(folder).config for folder in result["folders"]]
    base = place(out) / "base"
    assert [run.init for run in runs] == [None, str(base / "1-films"), str(base / third["warm_start"])]
    assert [run.data.train_rows for run in runs] == [ROWS, ROWS, ROWS - 8]
    ensemble = Run.open(place(out) / "stage-3-books" / "ensemble")
    assert result["R"][3][2] == ensemble.scores()["metrics"]["accuracy"]["value"]
    assert json.loads((ensemble.folder.parent / "ensemble.json").read_text())["weights"] == third["weights"]
    assert result["bwt"] == result["forgetting"] == result["fwt"] == 0


def test_the_model_that_reads_a_tasks_rows_is_gone_before_any_stage(config, specs, tmp_path):
    with watched_loads("adjudge.models.policy") as loads:
        for spec in specs[:2]:
            centroid(config, spec, training_rows(config, spec), tmp_path / spec.name)
            assert loads.alive == 0
    assert len(loads.weights) == 2


def test_the_ensemble_mixes_the_experts_probabilities(done, able, config, specs):
    """With weights of the test: those of so few rows may be 0 and 1, and then nothing is mixed."""
    out, _ = done
    (plain,) = plan_streams(config, specs, ["l3=-1"], (), (0,), out)
    third = with_base(plain, out, ()).stages[2].transfer
    record, weights = third.run / "ensemble.json", {"own": 0.3, "1-films": 0.7}
    found, before = record.read_text(), third.run / "ensemble"
    before.rename(third.run / "before")
    record.write_text(json.dumps({**json.loads(found), "weights": weights}))
    kept, mixed = answers(third)
    record.write_text(found)
    shutil.rmtree(before)
    (third.run / "before").rename(before)
    assert mixed == weights
    run = Run.open(place(out) / "stage-3-books")
    rows = [Example(each.id, each.fields, each.gold) for each in kept]
    _, spec, own = load_judge(run.folder, decode="labels")
    other = load_judge(place(out) / "base/1-films/adapter", spec=spec, decode="labels", model=str(able))[2]
    parts = [judge.judge(rows, probabilities=True) for judge in (own, other)]
    for each, one, two in zip(kept, *parts, strict=True):
        for word in spec.words:
            expected = weights["own"] * one.probabilities[word] + weights["1-films"] * two.probabilities[word]
            assert each.probabilities[word] == pytest.approx(expected, abs=1e-5)
        assert each.value == max(each.probabilities, key=each.probabilities.get)


def test_the_command_given_again_changes_nothing_and_mends_what_is_missing(done, config, specs):
    out, result = done
    files = [*out.rglob("*.safetensors"), *out.rglob("scores.json")]
    before = {path: path.stat().st_mtime_ns for path in files}
    assert stream(config, specs, out, "l3=-1") == result
    assert before == {path: path.stat().st_mtime_ns for path in files}
    shutil.rmtree(place(out) / "stage-3-books" / "ensemble")
    shutil.rmtree(place(out) / "base" / "3-books")
    shutil.rmtree(place(out) / "stage-2-pairs")
    again = stream(config, specs, out, "l3=-1")
    assert again["R"] == result["R"] and again["l3"] == result["l3"]


def test_an_ensemble_of_the_own_adapter_alone_is_its_run(done, config, specs):
    out, _ = done
    (plain,) = plan_streams(config, specs, ["l3=-1"], (), (0,), out)
    third = with_base(plain, out, ()).stages[2].transfer
    record = third.run / "ensemble.json"
    kept = record.read_text()
    record.write_text(json.dumps({**json.loads(kept), "weights": {"own": 1.0, "1-films": 0.0}}))
    assert answers(third) == (Run.open(third.run).predictions("dev"), {"own": 1.0, "1-films": 0.0})
    record.write_text(kept)


def test_tables_call_it_l3_style(done):
    text = stream_markdown(done[1])
    assert "## sft, L3-style=-1, seed 0: films → pairs → books" in text
    assert "- L3-style, films: from the untrained model; judged by own 1.000" in text
    assert "- L3-style, pairs: from 1-films (nearest: 1-films, cosine " in text


@pytest.fixture
def base(done, tmp_path):
    """Return a copy of the base that the stream left."""
    return shutil.copytree(place(done[0]) / "base", tmp_path / "base")


def test_a_stream_begins_with_an_earlier_base(base, done, config, specs):
    (plain,) = plan_streams(config, specs[1:], ["l3=-1"], (), (0,), done[0])
    first, second = with_base(plain, done[0], read_base(base, config)).stages
    known = {each.name: value for each, value in first.transfer.cosines}
    before = {"base/1-films", "base/2-pairs", "base/3-books"}
    assert set(known) == before and known["base/2-pairs"] == pytest.approx(1)
    assert {each.name for each, _ in second.transfer.cosines} == before | {"1-pairs"}, "known apart from its own"
    assert first.config.init == str(base / "2-pairs") and first.transfer.held_out == second.transfer.held_out == 8
    assert [each.folder for each in second.transfer.experts] == [
        each.folder for each, _ in sorted(second.transfer.cosines, key=lambda pair: pair[1]) if "pairs" not in each.name
    ]


def test_a_base_of_another_model_is_refused(base, config, specs, tiny_llama, tmp_path):
    other = load_config(values={**config.model_dump(), "model": str(tiny_llama)})
    with pytest.raises(RunError, match=r"is not the model that .*base/1-films was made with"):
        stream(other, specs, tmp_path / "out", "l3", base=base)
    assert not (tmp_path / "out" / "single").exists()


@pytest.mark.parametrize("part", ["entry.json", "centroid.safetensors", "adapter/judge.json", "adapter"])
def test_an_entry_that_is_incomplete_is_refused(part, base, config, specs, tmp_path):
    path = base / "2-pairs" / part
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    with pytest.raises(RunError, match=r"base/2-pairs: .* is missing. Copy the whole entry again"):
        stream(config, specs, tmp_path / "out", "l3", base=base)


def test_a_damaged_entry_and_no_base_are_refused(base, config, specs, tmp_path):
    (base / "1-films" / "entry.json").write_text("{}")
    with pytest.raises(RunError, match="1-films: is no entry of a base, or is damaged"):
        stream(config, specs, tmp_path / "out", "l3", base=base)
    with pytest.raises(RunError, match="there is no such folder"):
        stream(config, specs, tmp_path / "out", "l3", base=tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(RunError, match="holds no entry"):
        stream(config, specs, tmp_path / "out", "l3", base=tmp_path / "empty")
    own = tmp_path / "own" / "l3" / "order-films-pairs-books" / "seed-0" / "base"
    shutil.copytree(base, own, ignore=shutil.ignore_patterns("1-films"))
    with pytest.raises(ConfigError, match=r"is this stream's own: a base is only read\. Name another --out"):
        stream(config, specs, tmp_path / "own", "l3", base=own)
    with pytest.raises(ConfigError, match="use it with --strategy l3"):
        stream(config, specs, tmp_path / "out", "separate", base=base)


def test_too_few_rows_to_hold_some_out_are_refused(config, specs, tmp_path):
    few = config.model_copy(update={"data": config.data.model_copy(update={"train_rows": 12})})
    with pytest.raises(ConfigError, match=r"weighs its experts on 8 held-out .* there are 12 rows"):
        stream(few, [specs[0], specs[2]], tmp_path / "out", "l3=-1")


@pytest.mark.parametrize("strategy", ["l3=2", "l3=near", "l3=", "l3=nan"])
def test_a_threshold_is_a_cosine(strategy):
    with pytest.raises(ConfigError, match="write l3, or l3=COSINE"):
        near_of(strategy)


def test_rows_must_be_counted(config, specs, tmp_path):
    unlimited = config.model_copy(update={"data": config.data.model_copy(update={"train_rows": None})})
    with pytest.raises(ConfigError, match="replay and l3 count rows: give --train-rows"):
        plan_streams(unlimited, specs, ["l3"], (), (0,), tmp_path)
