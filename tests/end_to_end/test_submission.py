"""A submission from the command line: a tiny random model judges test sets of official size."""

import json
import zipfile

import pytest
from processes import adjudge
from submissions import write

FAST = ["evaluation.resamples=100", "evaluation.batch_size=250", "runtime.dtype=float32", "runtime.threads=1"]


@pytest.fixture
def data(tmp_path):
    """SuperGLUE's folder for COPA: a few dev rows, and all test rows of the official size."""
    for split, rows in (("val", 4), ("test", 500)):
        label = {"label": 1} if split == "val" else {}
        row = {"choice1": "wet", "choice2": "dry", "question": "effect"}
        lines = "".join(
            json.dumps({**row, "premise": f"it rained {idx}", "idx": idx, **label}) + "\n" for idx in range(rows)
        )
        write(tmp_path / f"data/superglue/COPA/{split}.jsonl", lines.encode())
    return tmp_path / "data"


def test_a_run_becomes_a_right_zip(data, tmp_path, tiny_llama):
    run, out = tmp_path / "copa", tmp_path / "superglue.zip"
    model = ["--method", "zero-shot", "--model", tiny_llama, "--data-dir", data, *FAST]
    adjudge("evaluate", "--task", "superglue/copa", "--out", run, *model)
    submission = ["submit", "--run", run, "--out", out, "--partial"]
    assert (
        "500 of 500 answers could not be read" in adjudge(*submission, code=2).stderr
    )  # a random model gives no readable answer
    adjudge(*submission, "--decode", "labels")
    with zipfile.ZipFile(out) as archive:
        records = [json.loads(line) for line in archive.read("COPA.jsonl").decode().splitlines()]
    lines = (run / "predictions/superglue-copa-test-labels.jsonl").read_text().splitlines()
    likeliest = [max(row, key=row.get) for row in (json.loads(line)["probabilities"] for line in lines)]
    assert records == [
        {"idx": idx, "label": ("Option one", "Option two").index(word)} for idx, word in enumerate(likeliest)
    ]
    chosen = out.read_bytes()
    adjudge(*submission, "--unreadable", "likeliest")
    assert out.read_bytes() == chosen
    assert "are missing; the site wants every file" in adjudge("submit", "--check", out, code=2).stderr
