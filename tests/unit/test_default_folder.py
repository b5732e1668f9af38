"""Where runs go when nobody names a folder: other data or columns never meet in one."""

import shutil

import pytest
from fake_method import by_first_word, install, write_reviews
from typer.testing import CliRunner

from adjudge.cli.main import app
from adjudge.runs.default_folder import comparison_folder, default_folder
from adjudge.runs.folder import Run
from adjudge.system.files import Lock, write_text
from adjudge.tasks import infer_task, load_task

COLUMNS = ("--text", "text", "--label", "label")


@pytest.fixture(autouse=True)
def fake(monkeypatch, tmp_path):
    install(monkeypatch, "sft", by_first_word)
    monkeypatch.chdir(tmp_path)
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        table = write_reviews(tmp_path / folder / "reviews.csv", rows=40 if folder == "one" else 44)
        lines = table.read_text().splitlines()
        more = [
            "title,kind",
            *(f"title {number},{('good', 'bad')[number % 3 == 0]}" for number in range(len(lines) - 1)),
        ]
        added = [f"{line},{cells}" for line, cells in zip(lines, more, strict=True)]
        table.write_text("\n".join(added) + "\n")


def run_folder(*arguments, code=0):
    """Train and return the run's folder and what was said."""
    result = CliRunner().invoke(app, ["train", "sft", *map(str, arguments)])
    assert result.exit_code == code, result.output
    line = next((line for line in result.stdout.splitlines() if line.startswith("run folder: ")), "")
    return line.removeprefix("run folder: "), result.stderr


def test_the_first_run_has_the_name_of_the_table_alone():
    folder, said = run_folder("--data", "one/reviews.csv", *COLUMNS)
    assert folder == "runs/reviews/sft-seed0"
    assert "training sft on reviews → runs/reviews/sft-seed0" in said


@pytest.mark.parametrize(
    ("other", "why"),
    [
        (("--data", "two/reviews.csv", *COLUMNS), "other data ("),
        (("--data", "one/reviews.csv", "--text", "text", "--label", "kind"), "another label column (label)"),
        (("--data", "one/reviews.csv", "--text", "title", "--label", "label"), "other text columns (text)"),
        (("--data", "one/reviews.csv", "--text", "text,title", "--label", "label"), "other text columns (text)"),
        (("--data", "one/reviews.csv", "--dev", "two/reviews.csv", *COLUMNS), "other data ("),
        (("--data", "one/reviews.csv", *COLUMNS, "--labels", "good,bad"), "another wording"),
    ],
)
def test_other_data_or_columns_go_to_a_folder_of_their_own(other, why):
    first = ("--data", "one/reviews.csv", *COLUMNS)
    run_folder(*first)
    folder, said = run_folder(*other)
    assert folder.startswith("runs/reviews-")
    assert len(folder) == len("runs/reviews-123456/sft-seed0")
    assert f"runs/reviews is of {why}" in said
    assert f"so this goes to {folder.removesuffix('/sft-seed0')}." in said
    for arguments, where in ((first, "runs/reviews/sft-seed0"), (other, folder)):
        refused = run_folder(*arguments, code=2)[1]
        assert f"{where} already holds this run, complete" in refused
        assert f"{where} is complete; there is nothing to resume" in run_folder(*arguments, "--resume")[1]


def test_another_seed_of_the_same_task_lies_beside_it():
    run_folder("--data", "one/reviews.csv", *COLUMNS)
    assert run_folder("--data", "one/reviews.csv", *COLUMNS, "--seed", 1)[0] == "runs/reviews/sft-seed1"


def test_a_run_that_did_no_step_does_not_take_the_name(tmp_path):
    specs = [infer_task(tmp_path / place / "reviews.csv", ["text"], "label") for place in ("one", "two")]
    folder = Run.create(default_folder(specs[:1], "sft", 0), Run.open(run_of(specs[0])).config).folder
    assert str(folder) == "runs/reviews/sft-seed0"
    assert default_folder(specs[1:], "sft", 0) == folder
    lock = Lock(folder)
    lock.acquire()
    write_text(folder / "task.yaml", "name: [")
    assert default_folder(specs[1:], "sft", 0) != folder, "another process works there"
    lock.release()


def run_of(spec):
    """Train once elsewhere, for settings."""
    run_folder("--data", spec.source.table.train, *COLUMNS, "--out", "elsewhere")
    return "elsewhere"


def test_what_is_resumed_is_compared_where_it_lies(tmp_path):
    run_folder("--data", "one/reviews.csv", *COLUMNS)
    refused = run_folder("--data", "two/reviews.csv", *COLUMNS, "--resume", code=2)[1]
    assert "runs/reviews/sft-seed0 holds a run of other rows" in " ".join(refused.split())
    shutil.move(tmp_path / "one", tmp_path / "moved")
    assert "nothing to resume" in run_folder("--data", "moved/reviews.csv", *COLUMNS, "--resume")[1]


def test_comparisons_do_not_meet_either(tmp_path):
    specs = [infer_task(tmp_path / place / "reviews.csv", ["text"], "label") for place in ("one", "two")]
    assert str(comparison_folder(specs[:1])) == "runs/compare-reviews"
    run_folder("--data", "one/reviews.csv", *COLUMNS, "--out", "runs/compare-reviews/reviews/sft/seed-0")
    assert str(comparison_folder(specs[:1])) == "runs/compare-reviews"
    assert str(comparison_folder(specs[1:])).startswith("runs/compare-reviews-")


def test_built_in_tasks_keep_their_names():
    specs = [load_task("glue/cola"), load_task("glue/rte")]
    assert str(default_folder(specs, "multi-sft", 3)) == "runs/glue-cola-glue-rte/multi-sft-seed3"
    assert str(comparison_folder(specs)) == "runs/compare-glue-cola-glue-rte"
