"""`adjudge submit`: from runs of a fake method on test sets of official size to a checked zip."""

import io
import json
import zipfile
from pathlib import Path

import pytest
from fake_method import install
from submissions import form_of, right_file, right_files, write, zipped
from typer.testing import CliRunner

from adjudge.cli.main import app
from adjudge.config import load_config
from adjudge.errors import DataError, RunError
from adjudge.experiments import kept_predictions
from adjudge.experiments.execute import execute
from adjudge.runs.folder import Run
from adjudge.runs.tasks import write_task, write_tasks
from adjudge.submission.check import check_zip
from adjudge.submission.formats import FORMS, form_of_task
from adjudge.submission.submit import plan
from adjudge.tasks import load_task

COLUMNS = {
    "glue/cola": ("index", "sentence"),
    "glue/mnli": ("index", "sentence1", "sentence2"),
    "glue/mnli-mm": ("index", "sentence1", "sentence2"),
    "glue/ax": ("index", "sentence1", "sentence2"),
    "glue/rte": ("index", "sentence1", "sentence2"),
    "glue/stsb": ("index", "sentence1", "sentence2"),
    "glue/wnli": ("index", "sentence1", "sentence2"),
}
"""The columns of the official test files in these tests."""


def write_test_set(folder: Path, task: str, rows: int | None = None) -> None:
    """Write the unlabelled test file of a GLUE task, with all official rows or fewer."""
    form, files = form_of_task(task), load_task(task).source.files
    index, *texts = COLUMNS[task]
    lines = ["\t".join([index, *texts])]
    lines += ["\t".join([str(row), *(f"{text} of row {row}" for text in texts)]) for row in range(rows or form.rows)]
    write(folder / files.folder / files.splits["test"], "".join(f"{line}\n" for line in lines).encode())


def run_of(task: str, folder: Path, *more: str) -> Path:
    """Return a run that was trained on one or several tasks and not evaluated."""
    run = Run.create(folder / task, load_config(values={"method": "sft", "task": ",".join([task, *more])}))
    if more:
        write_tasks(run, [load_task(name) for name in (task, *more)])
    else:
        write_task(run, load_task(task))
    write(run.folder / "training.json", b"{}")
    write(run.folder / "adapter/fake.txt", b"trained")
    run.set_state("complete")
    return run.folder


def in_turn(example):
    """Answer No for an even row, Yes for an odd one."""
    return ("No", "Yes")[int(example.tags["idx"]) % 2]


def submit(*arguments):
    return CliRunner().invoke(app, ["submit", *(str(argument) for argument in arguments)])


def made(*arguments):
    result = submit(*arguments)
    assert result.exit_code == 0, result.output
    return result


def refused(*arguments):
    result = submit(*arguments)
    assert result.exit_code == 2, result.output
    assert "Traceback" not in result.output
    return " ".join(result.stderr.split())


def lines_of(path: Path, name: str) -> list[str]:
    with zipfile.ZipFile(path) as archive:
        return archive.read(name).decode().splitlines()


@pytest.fixture
def wnli(tmp_path, monkeypatch):
    """Return the arguments for a submission of WNLI alone; the fake judge answers No and Yes in turn."""
    install(monkeypatch, "sft", in_turn)
    write_test_set(tmp_path / "data", "glue/wnli")
    run = run_of("glue/wnli", tmp_path / "runs")
    return ["--run", run, "--data-dir", tmp_path / "data", "--out", tmp_path / "glue.zip", "--partial"]


def test_test_rows_are_judged_kept_and_written(wnli, tmp_path):
    result = made(*wnli)
    out = tmp_path / "glue.zip"
    assert lines_of(out, "WNLI.tsv")[:3] == ["index\tprediction", "0\t0", "1\t1"]
    assert "WNLI.tsv 146 rows" in " ".join(result.stdout.split())
    predictions = Run.open(tmp_path / "runs/glue/wnli").predictions("test")
    assert len(predictions) == 146
    assert (predictions[1].id, predictions[1].value, predictions[1].gold) == ("test.tsv:3", "Yes", None)
    assert predictions[1].probabilities == {"No": 0.5, "Yes": 0.5}
    assert check_zip(io.BytesIO(out.read_bytes()), "glue.zip", partial=True) == []
    assert Run.open(tmp_path / "runs/glue/wnli").state == "complete"


def test_judged_rows_are_not_judged_again(wnli, tmp_path, monkeypatch):
    made(*wnli)
    first = (tmp_path / "glue.zip").read_bytes()
    install(monkeypatch, "sft", lambda example: pytest.fail("judged again"))
    assert "already judged" in made(*wnli).stderr
    assert (tmp_path / "glue.zip").read_bytes() == first
    (tmp_path / "data/glue/WNLI/test.tsv").unlink()  # judged rows need no data
    made(*wnli)


def test_another_decoding_is_judged_separately(wnli, tmp_path, monkeypatch):
    made(*wnli)
    install(monkeypatch, "sft", lambda example: "Yes")
    made(*wnli, "--decode", "labels")
    assert set(lines_of(tmp_path / "glue.zip", "WNLI.tsv")[1:]) == {f"{row}\t1" for row in range(146)}
    made(*wnli)
    assert lines_of(tmp_path / "glue.zip", "WNLI.tsv")[1] == "0\t0"


def test_training_again_removes_the_judged_rows(wnli, tmp_path):
    made(*wnli)
    run = Run.open(tmp_path / "runs/glue/wnli")
    write_task(Run.create(run.folder, run.config, force=True), load_task("glue/wnli"))
    assert "training is not complete" in refused(*wnli)


@pytest.mark.parametrize("cut", [b"", b'{"id": "test.tsv:9", "fie'])
def test_an_interrupted_submission_continues(cut, wnli, tmp_path, monkeypatch):
    monkeypatch.setattr(kept_predictions, "FIRST_ROWS", 50)
    monkeypatch.setattr(kept_predictions, "CHUNK_ROWS", 50)
    judged_rows = []

    def stop_at(row):
        def answer(example):
            judged_rows.append(int(example.tags["idx"]))
            if judged_rows[-1] == row:
                raise KeyboardInterrupt
            return in_turn(example)

        return answer

    install(monkeypatch, "sft", stop_at(120))
    result = submit(*wnli)
    partial = tmp_path / "runs/glue/wnli/predictions/test.jsonl.partial"
    assert result.exit_code == 130
    assert "test.jsonl.partial" in result.stderr
    assert not (tmp_path / "glue.zip").exists()
    assert partial.read_text().count("\n") == 100
    with partial.open("ab") as file:
        file.write(cut)  # as when the machine stops within a line
    judged_rows.clear()
    install(monkeypatch, "sft", stop_at(None))
    assert "continuing after row 100 of 146" in made(*wnli).stderr
    assert judged_rows == list(range(100, 146))
    assert not partial.exists()
    assert [prediction.tags["idx"] for prediction in Run.open(tmp_path / "runs/glue/wnli").predictions("test")] == [
        str(row) for row in range(146)
    ]


def test_judged_rows_of_another_test_file_are_not_reused(wnli, tmp_path, monkeypatch):
    judged_rows = []
    install(monkeypatch, "sft", lambda example: judged_rows.append(example.id) or "No")
    row = {
        "id": "test.tsv:2",
        "fields": {"sentence1": "other", "sentence2": "text"},
        "gold": None,
        "value": "Yes",
        "text": "Yes",
    }
    write(tmp_path / "runs/glue/wnli/predictions/test.jsonl.partial", json.dumps(row).encode() + b"\n")
    assert "has other rows" in made(*wnli).stderr
    assert len(judged_rows) == 146


@pytest.mark.parametrize(
    ("line", "message"), [("{", ":1: is not JSON"), ('{"id": 1, "x": 2}', ":1: is not a judged row")]
)
def test_damaged_judged_rows_are_reported_with_their_line(line, message, wnli, tmp_path):
    write(tmp_path / "runs/glue/wnli/predictions/test.jsonl", f"{line}\n".encode())
    assert f"test.jsonl{message}" in refused(*wnli)


def test_a_test_file_of_another_size_is_refused_before_judging(wnli, tmp_path, monkeypatch):
    install(monkeypatch, "sft", lambda example: pytest.fail("judged for nothing"))
    write_test_set(tmp_path / "data", "glue/wnli", rows=140)
    assert "6 of the 146 rows of the official test set are missing: 140 to 145" in refused(*wnli)


def test_unreadable_answers_are_refused_or_replaced_by_the_rule(wnli, tmp_path, monkeypatch):
    install(monkeypatch, "sft", lambda example: None if example.tags["idx"] == "7" else "No")
    message = refused(*wnli)
    assert "1 of 146 answers could not be read (the first: row test.tsv:9)" in message
    assert not (tmp_path / "glue.zip").exists()
    result = made(*wnli, "--unreadable", "Yes")
    assert lines_of(tmp_path / "glue.zip", "WNLI.tsv")[7:10] == ["6\t0", "7\t1", "8\t0"]
    assert "1 unreadable: Yes" in result.stdout
    made(*wnli, "--unreadable", "majority")
    assert lines_of(tmp_path / "glue.zip", "WNLI.tsv")[8] == "7\t0"
    assert "Did you mean 'likeliest'?" in refused(*wnli, "--unreadable", "likelyest")
    assert "There is:" in refused(*wnli, "--unreadable", "2.5")


def test_unreadable_answers_are_reported_for_every_file(tmp_path, monkeypatch):
    install(monkeypatch, "sft", lambda example: None)
    runs = [run_of(task, tmp_path / "runs") for task in ("glue/wnli", "glue/stsb")]
    for task in ("glue/wnli", "glue/stsb"):
        write_test_set(tmp_path / "data", task)
    arguments = ["--run", *runs, "--data-dir", tmp_path / "data", "--out", tmp_path / "a.zip", "--partial"]
    message = refused(*arguments)
    assert "WNLI.tsv needs one" in message
    assert "STS-B.tsv needs one" in message
    made(*arguments, "--unreadable", "No,2.5")
    assert (lines_of(tmp_path / "a.zip", "WNLI.tsv")[1], lines_of(tmp_path / "a.zip", "STS-B.tsv")[1]) == (
        "0\t0",
        "0\t2.5",
    )


def test_a_run_of_mnli_also_judges_mnli_mm_and_ax(tmp_path, monkeypatch):
    install(monkeypatch, "sft", lambda example: "Neutral" if "7" in example.tags["idx"] else "Entailment")
    run = run_of("glue/mnli", tmp_path / "runs")
    for task in ("glue/mnli", "glue/mnli-mm", "glue/ax"):
        write_test_set(tmp_path / "data", task)
    arguments = ["--run", run, "--data-dir", tmp_path / "data", "--out", tmp_path / "a.zip", "--partial"]
    made(*arguments)
    for name in ("MNLI-m.tsv", "MNLI-mm.tsv", "AX.tsv"):
        lines = lines_of(tmp_path / "a.zip", name)
        assert len(lines) == form_of(name).rows + 1
        assert lines[7:9] == ["6\tentailment", "7\tneutral"]
    assert {path.name for path in (run / "predictions").iterdir()} == {
        "test.jsonl",
        "glue-mnli-mm-test-greedy.jsonl",
        "glue-ax-test-greedy.jsonl",
    }
    made(*arguments, "--task", "glue/ax")
    with zipfile.ZipFile(tmp_path / "a.zip") as archive:
        assert archive.namelist() == ["AX.tsv"]
    assert "None of the runs judges glue/rte; they judge glue/mnli, glue/mnli-mm, glue/ax." in refused(
        *arguments, "--task", "glue/rte"
    )
    assert "Did you mean 'glue/rte'?" in refused(*arguments, "--task", "glue/rt")


def test_each_file_is_planned_with_its_run(tmp_path):
    runs = {task: run_of(task, tmp_path) for task in ("glue/mnli", "glue/ax", "superglue/rte", "glue/rte")}
    parts = plan([runs["glue/mnli"], runs["glue/ax"]], partial=True)
    assert [(part.form.file, part.run.folder) for part in parts] == [
        ("MNLI-m.tsv", runs["glue/mnli"]),
        ("MNLI-mm.tsv", runs["glue/mnli"]),
        ("AX.tsv", runs["glue/ax"]),
    ]
    parts = plan([runs["superglue/rte"]], partial=True)
    assert [part.form.file for part in parts] == ["RTE.jsonl", "AX-b.jsonl", "AX-g.jsonl"]
    with pytest.raises(DataError, match="which are two submissions"):
        plan(list(runs.values()), partial=True)
    assert [part.form.file for part in plan(list(runs.values()), ["glue/rte", "glue/ax"], partial=True)] == [
        "RTE.tsv",
        "AX.tsv",
    ]
    with pytest.raises(
        DataError, match=r"no run for glue/cola, glue/sst2, .*glue/wnli, and the site takes no zip without all 11 files"
    ):
        plan([runs["glue/mnli"]])


def test_one_run_over_several_tasks_gives_one_file_per_task(tmp_path, monkeypatch):
    install(monkeypatch, "sft", lambda example: "Entailment" if "premise" in example.fields else "Yes")
    run = run_of("glue/wnli", tmp_path / "runs", "vader/movies", "glue/mnli")
    for task in ("glue/wnli", "glue/ax"):
        write_test_set(tmp_path / "data", task)
    arguments = ["--run", run, "--data-dir", tmp_path / "data", "--out", tmp_path / "a.zip", "--partial"]
    assert "No site takes answers for the task vader/movies" in refused(*arguments)
    made(*arguments, "--task", "glue/wnli,glue/ax")
    assert lines_of(tmp_path / "a.zip", "WNLI.tsv")[1] == "0\t1"
    assert lines_of(tmp_path / "a.zip", "AX.tsv")[1] == "0\tentailment"
    assert {path.name for path in (run / "predictions").iterdir()} == {
        "glue-wnli-test-greedy.jsonl",
        "glue-ax-test-greedy.jsonl",
    }
    other = run_of("glue/wnli", tmp_path / "other")
    assert "are both runs of glue/wnli" in refused(*arguments, "--run", other, "--task", "glue/wnli")


def test_two_runs_of_one_task_and_tasks_of_no_site_are_refused(tmp_path):
    first, second = run_of("glue/rte", tmp_path / "a"), run_of("glue/rte", tmp_path / "b")
    with pytest.raises(RunError, match=r"a/glue/rte and .*b/glue/rte are both runs of glue/rte"):
        plan([first, second], partial=True)
    with pytest.raises(RunError, match="both runs of glue/rte"):
        plan([first, first], partial=True)
    with pytest.raises(DataError, match="No site takes answers for the task vader/movies"):
        plan([run_of("vader/movies", tmp_path)])
    with pytest.raises(RunError, match="is no run folder"):
        plan([tmp_path])


def test_the_runs_own_dev_predictions_are_not_touched(tmp_path, monkeypatch):
    """The predictions of the run's own evaluation are dev rows and stay unchanged."""
    install(monkeypatch, "sft", in_turn)
    folder = tmp_path / "data"
    header = "index\tsentence1\tsentence2\tlabel"
    for split in ("train", "dev"):
        rows = "".join(f"{row}\t{split} {row}\tso {row}\t{row % 2}\n" for row in range(8))
        write(folder / f"glue/WNLI/{split}.tsv", f"{header}\n{rows}".encode())
    write_test_set(folder, "glue/wnli")
    config = load_config(
        values={"method": "sft", "task": "glue/wnli", "data.data_dir": str(folder), "evaluation.resamples": 100},
    )
    execute(config, load_task("glue/wnli"), tmp_path / "run")
    before = (tmp_path / "run/predictions/dev.jsonl").read_bytes()
    made("--run", tmp_path / "run", "--out", tmp_path / "a.zip", "--partial")  # the data folder is the run's
    assert (tmp_path / "run/predictions/dev.jsonl").read_bytes() == before
    assert len(Run.open(tmp_path / "run").predictions("test")) == 146


def test_axg_is_judged_from_its_labelled_official_file(tmp_path, monkeypatch):
    install(monkeypatch, "sft", lambda example: "Yes")
    rows = [
        {
            "idx": row // 2 * 2 + row % 2,
            "premise": f"{'he' if row % 2 else 'she'} {row // 2}",
            "hypothesis": f"{row // 2}",
        }
        for row in range(356)
    ]
    lines = "".join(json.dumps({**row, "label": "entailment", "pair_id": row["idx"] // 2}) + "\n" for row in rows)
    write(tmp_path / "data/superglue/AX-g/AX-g.jsonl", lines.encode())
    run = run_of("superglue/rte", tmp_path / "runs")
    made(
        "--run",
        run,
        "--task",
        "superglue/axg",
        "--data-dir",
        tmp_path / "data",
        "--out",
        tmp_path / "a.zip",
        "--partial",
    )
    assert lines_of(tmp_path / "a.zip", "AX-g.jsonl")[355] == '{"idx": 355, "label": "entailment"}'
    assert (run / "predictions/superglue-axg-dev-greedy.jsonl").is_file()


def question(idx, options):
    answers = [{"idx": answer, "text": f"answer {answer}"} for answer in options]
    return {"idx": idx, "question": f"which {idx}?", "answers": answers}


def passages(rows):
    """Return MultiRC's file: passages with five questions of six options each."""
    lines = []
    for number, start in enumerate(range(0, rows, 30)):
        ranges = [range(at, min(at + 6, rows)) for at in range(start, min(start + 30, rows), 6)]
        questions = [question(options.start // 6, options) for options in ranges]
        lines.append(json.dumps({"idx": number, "passage": {"text": f"Passage {number}.", "questions": questions}}))
    return "".join(f"{line}\n" for line in lines).encode()


def test_multirc_rows_are_nested_again(tmp_path, monkeypatch):
    install(monkeypatch, "sft", lambda example: ("False", "True")[example.fields["answer"] == "answer 33"])
    write(tmp_path / "data/superglue/MultiRC/test.jsonl", passages(9693))
    run = run_of("superglue/multirc", tmp_path / "runs")
    made("--run", run, "--data-dir", tmp_path / "data", "--out", tmp_path / "a.zip", "--partial")
    lines = lines_of(tmp_path / "a.zip", "MultiRC.jsonl")
    assert len(lines) == 324
    second = json.loads(lines[1])
    assert (second["idx"], [question["idx"] for question in second["passage"]["questions"]]) == (1, [5, 6, 7, 8, 9])
    assert second["passage"]["questions"][0]["answers"] == [
        {"idx": idx, "label": int(idx == 33)} for idx in range(30, 36)
    ]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "Name the runs with --run DIR"),
        (["runs/a"], "Name the runs with --run DIR"),
        (["--run", "runs/a"], "Name the zip with --out"),
        (["--run", "runs/a", "--out", "a.tar"], "name a file that ends in .zip"),
        (["--run", "runs/a", "--out", "a.zip"], "runs/a is no run folder"),
        (["--run", "runs/a", "--out", "a.zip", "--decode", "beam"], "'greedy', 'labels' or 'mean'"),
        (["--run", "runs/a", "--out", "a.zip", "--task", "a,,b"], "empty part"),
        (["--check", "a.zip"], "a.zip: cannot be read: No such file"),
        (["--check", "a.zip", "--run", "runs/a"], "does not go with --run"),
        (["--check", "a.zip", "runs/a"], "does not go with --run"),
        (["--check", "a.zip", "--out", "b.zip"], "does not go with --out"),
        (["--check", "a.zip", "--unreadable", "No"], "does not go with --unreadable"),
    ],
)
def test_usage_errors_say_what_to_do(arguments, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert message in refused(*arguments)


def test_check_reports_all_problems(tmp_path):
    files = right_files("superglue")
    right = write(tmp_path / "right.zip", zipped(files))
    assert "nothing is wrong" in made("--check", right).stdout
    lines = files["COPA.jsonl"].decode().splitlines()
    lines[4] = '{"idx": 4, "label": "0"}'
    del files["WiC.jsonl"]
    wrong = write(tmp_path / "wrong.zip", zipped(files | {"COPA.jsonl": "\n".join(lines[:-1]).encode()}))
    result = submit("--check", wrong)
    assert result.exit_code == 2
    assert [line.strip() for line in result.stderr.splitlines()] == [
        f"error: {wrong} would be refused, or scored wrongly:",
        '- COPA.jsonl:5: label: is "0", not one of 0, 1',
        "- COPA.jsonl: idx: 1 of 500 rows is missing: 499",
        "- wrong.zip: WiC.jsonl is missing; the site wants every file",
    ]
    assert "WiC.jsonl" not in refused("--check", wrong, "--partial")


def test_check_of_one_file_and_of_a_partial_zip(tmp_path):
    file = write(tmp_path / "CB.jsonl", right_file(form_of("CB.jsonl")))
    assert "nothing is wrong" in made("--check", file).stdout
    part = write(tmp_path / "part.zip", zipped({"CB.jsonl": file.read_bytes()}))
    assert "--partial, so missing files were not looked for" in made("--check", part, "--partial").stdout
    assert "ReCoRD.jsonl" in refused("--check", part)


def test_every_file_of_a_site_has_its_task():
    for form in FORMS:
        spec = load_task(form.task)
        assert spec.is_number == (form.shape == "number")
        assert "idx" in spec.tags
        assert form.split in spec.source.files.splits
        assert not form.judged_by or load_task(form.judged_by).words == spec.words
