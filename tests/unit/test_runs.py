"""The run folder: what is refused, what is replaced, what is left behind."""

import json

import pytest
from folders import content_of
from running import logged

from adjudge.config import Config, load_config
from adjudge.errors import RunError
from adjudge.runs.folder import Run, read_json, read_jsonl
from adjudge.system.files import write_json, write_text
from adjudge.types import Prediction

OTHER = load_config(overrides=["seed=1"])


def finished(folder, config=None):
    with Run.create(folder, config or Config()) as run:
        run.write_scores({"n": 1})
    return run


def test_a_new_folder_holds_its_settings_and_says_that_it_runs(tmp_path):
    run = Run.create(tmp_path / "a" / "b", OTHER)
    assert run.state == "running"
    assert Run.open(run.folder).config == OTHER


def test_a_finished_run_is_complete(tmp_path):
    assert finished(tmp_path / "r").state == "complete"


@pytest.mark.parametrize(("error", "state"), [(KeyboardInterrupt(), "interrupted"), (ValueError("bad"), "failed")])
def test_a_run_that_ends_early_says_how(error, state, tmp_path):
    run = Run.create(tmp_path / "r", Config())
    with pytest.raises(type(error)), run:
        raise error
    found, reason = Run.open(run.folder).status()
    assert found == state
    assert reason
    if state == "failed":
        assert "ValueError: bad" in reason


def test_another_configuration_is_not_overwritten(tmp_path):
    finished(tmp_path / "r")
    with pytest.raises(RunError, match=r"another configuration.*--force"):
        Run.create(tmp_path / "r", OTHER)
    assert Run.open(tmp_path / "r").config == Config()


def test_a_complete_run_is_not_done_again(tmp_path):
    finished(tmp_path / "r")
    with pytest.raises(RunError, match="complete"):
        Run.create(tmp_path / "r", Config())


@pytest.mark.parametrize("state", ["running", "interrupted", "failed"])
def test_an_unfinished_run_of_the_same_settings_begins_again(state, tmp_path):
    Run.create(tmp_path / "r", Config()).set_state(state)
    assert Run.create(tmp_path / "r", Config()).state == "running"


@pytest.mark.parametrize("resume", [False, True])
@pytest.mark.parametrize("state", ["running", "interrupted", "failed"])
def test_a_run_that_did_no_step_is_in_nobodys_way(state, resume, tmp_path):
    folder = Run.create(tmp_path / "r", OTHER).folder  # the lock ends with the object
    write_text(folder / "task.yaml", "of the run that failed")
    (folder / "checkpoints" / "step-00000000").mkdir(parents=True)
    (folder / "metrics.jsonl").touch()
    Run.open(folder).set_state(state)
    again = Run.create(tmp_path / "r", Config(), resume=resume)
    assert (again.config, again.state, again.resumed) == (Config(), "running", False)
    assert sorted(path.name for path in again.folder.glob("[!.]*")) == ["config.yaml", "status.json"]


@pytest.mark.parametrize("work", ["checkpoints/step-00000004/x", "metrics.jsonl", "adapter/x", "encoder/x"])
def test_what_a_run_trained_is_never_removed_without_force(work, tmp_path):
    folder = Run.create(tmp_path / "r", Config()).folder
    write_text(folder / work, '{"step": 1}\n')
    Run.open(folder).set_state("failed")
    before = content_of(folder)
    with pytest.raises(RunError, match=r"failed after \d steps.*--resume to continue"):
        Run.create(tmp_path / "r", Config())
    for resume in (False, True):
        with pytest.raises(RunError, match="another configuration"):
            Run.create(tmp_path / "r", OTHER, resume=resume)
    assert content_of(folder) == before
    assert Run.create(tmp_path / "r", Config(), resume=True).resumed


def test_force_removes_what_the_old_run_wrote_and_nothing_else(tmp_path):
    run = finished(tmp_path / "r")
    run.log({"step": 1})
    run.write_predictions("dev", [])
    (run.folder / "adapter").mkdir()
    (run.folder / "adapter" / "old.safetensors").write_text("old")
    write_json(run.folder / "training.json", {})
    write_json(run.folder / "environment.json", {})
    (run.folder / "notes.txt").write_text("mine")
    again = Run.create(tmp_path / "r", OTHER, force=True)
    assert sorted(path.name for path in again.folder.iterdir() if path.name != ".adjudge.lock") == [
        "config.yaml",
        "notes.txt",
        "status.json",
    ]


@pytest.mark.parametrize("force", [False, True])
def test_a_folder_of_other_files_is_never_taken(force, tmp_path):
    (tmp_path / "adapter").mkdir()
    (tmp_path / "adapter" / "precious").write_text("x")
    with pytest.raises(RunError, match="no run folder"):
        Run.create(tmp_path, Config(), force=force)
    assert (tmp_path / "adapter" / "precious").read_text() == "x"


def test_a_file_is_no_folder(tmp_path):
    (tmp_path / "f").write_text("x")
    with pytest.raises(RunError, match="is a file"):
        Run.create(tmp_path / "f", Config(), force=True)


def test_an_empty_folder_is_taken(tmp_path):
    (tmp_path / "r").mkdir()
    (tmp_path / "r" / ".config.yaml.abc").write_text("left by a process that was killed")
    assert Run.create(tmp_path / "r", Config()).state == "running"


@pytest.mark.parametrize("content", ["- 1", "a: [", "pppo: {clip: 1}", "seed: -4"])
def test_damaged_settings_are_a_run_error_that_names_the_file(content, tmp_path):
    (tmp_path / "config.yaml").write_text(content)
    with pytest.raises(RunError, match=r"config\.yaml"):
        Run.open(tmp_path)
    with pytest.raises(RunError, match=r"config\.yaml"):
        Run.create(tmp_path, Config())
    assert Run.create(tmp_path, Config(), force=True).state == "running"


def test_stopped_between_settings_and_status_counts_as_interrupted(tmp_path):
    folder = Run.create(tmp_path / "r", Config()).folder
    (folder / "status.json").unlink()
    assert Run.open(folder).state == "interrupted"
    assert Run.create(tmp_path / "r", Config()).state == "running"


@pytest.mark.parametrize("content", ["[]", "{}", "{", "3"])
def test_a_damaged_status_is_named(content, tmp_path):
    run = Run.create(tmp_path / "r", Config())
    (run.folder / "status.json").write_text(content)
    with pytest.raises(RunError, match=r"status\.json"):
        _ = run.state


def test_predictions_come_back_as_they_were(tmp_path):
    rows = [
        Prediction(
            "dev.tsv:1",
            {"text": 'a\u2028b\n"c" \ud83d\ude00'.encode("utf-16", "surrogatepass").decode("utf-16")},
            "Yes",
            " Yes",
            "Yes",
            {"Yes": 0.5, "No": 0.5},
        ),
        Prediction("dev.tsv:2", {"text": ""}, None, "?", None),
        Prediction("dev.tsv:3", {"text": "x"}, 2.5, "2.5", 2.5),
    ]
    run = Run.create(tmp_path / "r", Config())
    run.write_predictions("dev", rows)
    assert run.predictions("dev") == rows
    assert run.predictions("test") == []


def test_records_are_appended(tmp_path):
    run = Run.create(tmp_path / "r", Config())
    run.log({"step": 1, "loss": 0.5})
    run.log({"step": 2, "loss": 0.25})
    assert [record["step"] for record in logged(run)] == [1, 2]
    with pytest.raises(ValueError, match="JSON compliant"):
        run.log({"loss": float("nan")})
    assert len(logged(run)) == 2


def test_a_damaged_line_is_named_with_its_number(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"a": 1}\n{"a": \n')
    with pytest.raises(RunError, match=r"metrics\.jsonl:2"):
        list(read_jsonl(path))


def test_scores_carry_the_schema(tmp_path):
    run = finished(tmp_path / "r")
    assert run.scores() == {"schema": 1, "n": 1}
    assert read_json(run.folder / "scores.json")["schema"] == 1


def test_scores_that_are_not_there_are_a_run_error(tmp_path):
    with pytest.raises(RunError, match=r"scores\.json"):
        Run.create(tmp_path / "r", Config()).scores()


def test_a_write_that_fails_leaves_the_old_file_and_no_other(tmp_path):
    write_json(tmp_path / "a.json", {"old": 1})
    with pytest.raises(ValueError, match="JSON compliant"):
        write_json(tmp_path / "a.json", {"new": float("inf")})
    with pytest.raises(TypeError):
        write_text(tmp_path / "a.json", 7)
    assert json.loads((tmp_path / "a.json").read_text()) == {"old": 1}
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]


def test_a_lone_surrogate_is_written_and_reads_back(tmp_path):
    run = Run.create(tmp_path / "r", Config())
    run.log({"text": "a\ud800b"})
    run.write_predictions("dev", [Prediction("1", {"text": "\udfff é"}, "Yes", "\ud800", None)])
    assert logged(run) == [{"text": "a\ud800b"}]
    assert run.predictions("dev")[0].fields == {"text": "\udfff é"}
