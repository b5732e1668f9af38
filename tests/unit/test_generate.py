"""`adjudge generate`: rows of a task or of labels; killed at any moment, it goes on as if it had not been."""

from __future__ import annotations

import csv
import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer
from typer.testing import CliRunner
from writing_model import save_writing_model

from adjudge.cli.main import app
from adjudge.config import load_config
from adjudge.generation.decoding import Repetition, TextEnd
from adjudge.generation.work import Work
from adjudge.models.policy import load_policy
from adjudge.rollout.sampler import Sampling, respond
from adjudge.tasks import load_split, load_task
from adjudge.tasks.reading.same_text import text_key

FILES = ("rows.csv", "rows.json")
SEED = 3
"""With it the tiny model ends enough of its sentences."""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_writing_model(tmp_path_factory.mktemp("writing") / "model")


def invoke(model: Path, out: Path, *arguments: Any) -> Any:
    words = ["generate", "--model", model, "--out", out, *arguments, "runtime.device=cpu", "evaluation.batch_size=8"]
    words += ["runtime.dtype=float32", *([] if "--seed" in arguments else ["--seed", SEED])]
    return CliRunner().invoke(app, [str(word) for word in words])


def made(model: Path, out: Path, *arguments: Any) -> str:
    result = invoke(model, out, *arguments)
    assert result.exit_code == 0, result.output
    return " ".join(result.stderr.split())


def refused(model: Path, out: Path, *arguments: Any) -> str:
    result = invoke(model, out, *arguments)
    assert result.exit_code == 2 and "Traceback" not in result.output, result.output
    return " ".join(result.stderr.split())


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


LABELS = ("--labels", "Good,Bad", "--rows", 6, "--oversample", 20, "--max-tokens", 8)


def test_rows_of_labels(model: Path, tmp_path: Path) -> None:
    output = made(model, tmp_path / "deep" / "rows.csv", *LABELS)
    rows = rows_of(tmp_path / "deep" / "rows.csv")
    assert [[*row] for row in rows[:1]] == [["text", "label"]] and len(rows) == 6
    assert [row["label"] for row in rows] == ["Good", "Bad"] * 3
    assert all(row["text"].endswith(".") for row in rows) and len({row["text"] for row in rows}) == 6
    record = json.loads((tmp_path / "deep" / "rows.json").read_text())
    assert record["scores"][::2] == sorted(record["scores"][::2], reverse=True)
    assert record["kept"] == {"Good": 3, "Bad": 3} and record["written"] >= 30
    assert record["written"] == sum(record["dropped"].values()) + sum(record["passed"].values())
    assert record["csv_sha256"] == hashlib.sha256((tmp_path / "deep" / "rows.csv").read_bytes()).hexdigest()
    assert f"Good: 3 rows of {record['passed']['Good']} different texts" in output
    assert "--data" in output and not list(tmp_path.rglob(".*")) and not list(tmp_path.rglob("*.yaml"))


def test_without_reward_and_penalty_it_is_plain_sampling(model: Path) -> None:
    policy = load_policy(load_config(values={"model": str(model), "runtime.device": "cpu"})).eval()
    prompts = [policy.tokenizer(text).input_ids for text in ("The film", "A dull plot is", "the")]
    end, drawn = TextEnd(policy.tokenizer, (2,), 12), []
    for adjust in (None, Repetition([[]] * 3, [[]] * 3, 1, 1, 1), Repetition([[]] * 3, [[]] * 3, 1, 3, 1)):
        sampling = Sampling(torch.Generator().manual_seed(SEED), top_k=4)
        with torch.no_grad():
            drawn.append(respond(policy, policy.prefill(prompts), end, sampling, adjust))
    assert drawn[0].ids == drawn[1].ids != drawn[2].ids
    assert torch.equal(drawn[0].logp_BR, drawn[1].logp_BR)


# Tasks

TASK = """
name: my/tone
title: Tone
fields: {text: message}
instruction: Judge the tone. Answer "Polite" or "Rude".
template: '{{ text }}'
label: tone
labels: {p: Polite, r: Rude}
metrics: [macro_f1]
source: {table: {train: own.csv, dev: dev.csv}}
generate:
  labels: {Polite: {prompt: 'The film:'}, Rude: {prompt: 'A plot:', penalty: 1.5}}
  starts: [The film, A]
  max_tokens: 12
"""


@pytest.fixture
def task(tmp_path: Path) -> Path:
    (tmp_path / "tone.yaml").write_text(TASK, encoding="utf-8")
    for name in ("own", "dev"):
        (tmp_path / f"{name}.csv").write_text("message,tone\nHello there.,p\nGo away.,r\n", encoding="utf-8")
    return tmp_path / "tone.yaml"


def test_rows_of_a_task(model: Path, task: Path, tmp_path: Path) -> None:
    """Its own block counts; what it judges is not generated; the task over the rows asks the same question."""
    output = made(model, tmp_path / "rows.csv", "--task", task, "--rows", 4)
    assert "Polite: The film: The film" in output and f"--task {tmp_path / 'rows.yaml'}" in output
    rows = rows_of(tmp_path / "rows.csv")
    assert [row["label"] for row in rows] == ["Polite", "Rude"] * 2
    assert all(row["text"].startswith(("The film", "A")) for row in rows)

    dev = tmp_path / "dev.csv"
    dev.write_text(f"message,tone\n{rows[0]['text'].upper()},p\nGo away.,r\n", encoding="utf-8")
    made(model, tmp_path / "again.csv", "--task", task, "--rows", 4)
    record = json.loads((tmp_path / "again.json").read_text())
    assert record["dropped"]["in_dev"] >= 1
    judged = {text_key(row.fields) for row in load_split(load_task(task), "dev")}
    assert not judged & {text_key({"text": row["text"]}) for row in rows_of(tmp_path / "again.csv")}
    assert "figures on them would flatter" in made(
        model, tmp_path / "third.csv", "--task", task, "--rows", 4, "--skip-dev"
    )
    assert (tmp_path / "third.csv").read_bytes() == (tmp_path / "rows.csv").read_bytes()

    over = load_task(tmp_path / "rows.yaml")
    assert over.instruction == load_task(task).instruction and over.words == ("Polite", "Rude")
    assert over.generate is None and over.metrics == ("macro_f1",)
    learned = [row for split in ("train", "dev") for row in load_split(over, split)]
    assert sorted((row.fields["text"], row.gold) for row in learned) == sorted(
        (row["text"], row["label"]) for row in rows
    )


def test_a_score_is_the_mean_logp_of_the_model_itself(model: Path, task: Path, tmp_path: Path) -> None:
    """Temperature, top-k and penalty change what is drawn, and not what the model thinks of it."""
    made(model, tmp_path / "rows.csv", "--task", task, "--rows", 4, "--temperature", "0.7")
    lm, tokenizer = AutoModelForCausalLM.from_pretrained(model), AutoTokenizer.from_pretrained(model)
    scores = json.loads((tmp_path / "rows.json").read_text())["scores"]
    prompts = {"Polite": "The film:", "Rude": "A plot:"}
    for row, score in zip(rows_of(tmp_path / "rows.csv"), scores, strict=True):
        start = next(start for start in ("The film", "A") if row["text"].startswith(start))
        prompt = tokenizer(f"{prompts[row['label']]} {start}", add_special_tokens=False).input_ids
        text = tokenizer(row["text"].removeprefix(start), add_special_tokens=False).input_ids
        with torch.no_grad():
            logps = lm(input_ids=torch.tensor([[*prompt, *text]])).logits[0].log_softmax(-1)
        own = logps[len(prompt) - 1 : -1].gather(1, torch.tensor(text)[:, None])
        assert score == pytest.approx(float(own.mean()), abs=1e-4)


PAIR = TASK.replace("{text: message}", "{one: one, two: two}").replace("'{{ text }}'", "'{{ one }} {{ two }}'")
PAIR = PAIR.replace("'The film:'", "'{{ one }} That is:', reward: 0.5").replace("'A plot:'", "'{{ one }} But:'")


def test_rows_of_pairs(model: Path, task: Path, tmp_path: Path) -> None:
    task.write_text(PAIR, encoding="utf-8")
    for name in ("own", "dev"):
        (tmp_path / f"{name}.csv").write_text("one,two,tone\nThe sun  shines.,x,p\nIt rains.,y,r\n", encoding="utf-8")
    output = made(model, tmp_path / "rows.csv", "--task", task, "--rows", 4)
    assert "first texts are those of the training rows, without their labels" in output
    rows = rows_of(tmp_path / "rows.csv")
    assert [*rows[0]] == ["one", "two", "label"] and {row["one"] for row in rows} <= {"The sun shines.", "It rains."}
    corpus = tmp_path / "texts.txt"
    corpus.write_text(f"\nA new text.\n{'long ' * 2000}\n", encoding="utf-8")
    output = made(model, tmp_path / "b.csv", "--task", task, "--rows", 2, "--corpus", corpus)
    assert {row["one"] for row in rows_of(tmp_path / "b.csv")} == {"A new text."}
    assert "1 first texts are longer than" in output
    corpus.write_text("long " * 2000, encoding="utf-8")
    out = tmp_path / "c.csv"
    assert "Every first text is longer" in refused(model, out, "--task", task, "--rows", 2, "--corpus", corpus)
    for content, message in ((b"\xff", "is not UTF-8 (byte 0)"), (b" \n", "no line with text")):
        corpus.write_bytes(content)
        assert message in refused(model, out, "--task", task, "--rows", 2, "--corpus", corpus)


# Stopped and resumed


def stop_after(monkeypatch: pytest.MonkeyPatch, batches: int) -> None:
    """Let the process end in the middle of writing a batch to the disk."""
    real, count = Work.add, [0]

    def add(work: Work, texts: Any) -> None:
        if count[0] == batches:
            with (work.folder / "texts.jsonl").open("a") as file:
                file.write('[["Good", "", "cut in')
            raise KeyboardInterrupt
        count[0] += 1
        real(work, texts)

    monkeypatch.setattr(Work, "add", add)


def test_a_stopped_generate_goes_on(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made(model, tmp_path / "whole" / "rows.csv", *LABELS)
    out = tmp_path / "stopped" / "rows.csv"
    for _ in range(2):
        with monkeypatch.context() as patched:
            stop_after(patched, 1)
            result = invoke(model, out, *LABELS)
        assert result.exit_code == 130 and "To continue:" in result.stderr
        assert [path.name for path in out.parent.iterdir()] == [".rows.csv.work"]
    assert "with other settings (rows 6 → 8)" in refused(model, out, *LABELS, "--rows", 8)
    assert "with other settings (seed 3 → 1)" in refused(model, out, *LABELS, "--seed", 1)
    output = made(model, out, *LABELS)
    assert "going on after 16 texts" in output
    for name in FILES:
        assert (out.parent / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    assert sorted(path.name for path in out.parent.iterdir()) == sorted(FILES)


def test_force_begins_again_and_replaces_by_another_seed(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "rows.csv"
    with monkeypatch.context() as patched:
        stop_after(patched, 1)
        invoke(model, out, *LABELS)
    assert "going on" not in made(model, out, *LABELS, "--seed", 1, "--force")
    first = out.read_bytes()
    assert "is there already. Name another --out, or add --force" in refused(model, out, *LABELS)
    assert out.read_bytes() == first
    made(model, out, *LABELS, "--force")
    assert out.read_bytes() != first


# Refused


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "either --task NAME or --labels WORD,WORD"),
        (["--labels", "A,B", "--task", "glue/sst2"], "either --task NAME or --labels WORD,WORD"),
        (["--labels", "A"], "--labels has one label: at least two"),
        (["--labels", "A,B,A"], "--labels has 'A' twice"),
        (["--labels", "yes,Yes,no"], "--labels has 'yes' and 'Yes': case and final punctuation do not count"),
        (["--labels", "A,,B"], "has an empty part"),
        (["--labels", "A,B", "--prompt", "C=x"], "--prompt: there is no label 'C'"),
        (["--labels", "A,B,C,D,E"], "--rows 4 is fewer than the 5 labels"),
        (["--labels", "A,B", "--corpus", "x.txt"], "--corpus is for a task"),
        (["--labels", "A,B", "--skip-dev"], "--skip-dev is for a task"),
        (["--labels", "A,B", "--form", "plain"], "write base or chat"),
        (["--labels", "A,B", "--select", "best"], "write top or random"),
        (["--labels", "A,B", "--out", "rows.txt"], "Name a file that ends in .csv"),
        (["--labels", "A,B", "--model", "random:llama-tiny"], "has random weights, and writes noise"),
        (["--task", "vader/movies-rating"], "answered with a number"),
        (["--task", "glue/sst3"], "Did you mean 'glue/sst2'?"),
        (["--task", "superglue/multirc", "--skip-dev"], "has 3 fields"),
    ],
)
def test_bad_input(model: Path, tmp_path: Path, arguments: list[str], message: str) -> None:
    assert message in refused(model, tmp_path / "rows.csv", "--rows", 4, *arguments)
    assert not list(tmp_path.iterdir())


def test_a_model_that_writes_no_sentence(tmp_path: Path) -> None:
    model = save_writing_model(tmp_path / "model", stops=False)
    message = refused(model, tmp_path / "rows.csv", *LABELS[:4], "--max-tokens", 3, "--oversample", 1)
    assert "No text of Good is left of the" in message and "without the end of a sentence" in message
    assert not (tmp_path / "rows.csv").exists()


def test_fewer_rows_than_asked(model: Path, tmp_path: Path) -> None:
    """Of two words and a stop few different sentences can be made."""
    output = made(model, tmp_path / "rows.csv", "--labels", "A,B", "--rows", 40, "--oversample", 1, "--max-tokens", 2)
    record = json.loads((tmp_path / "rows.json").read_text())
    assert record["written"] == 120 and record["dropped"]["repeated"] > 0
    assert "instead of 20 are left of the 120 texts" in output and 0 < sum(record["kept"].values()) < 40


def test_nothing_of_the_users_own_is_written_over(model: Path, task: Path, tmp_path: Path) -> None:
    for out in ("tone.csv", "own.csv", "dev.csv"):
        message = refused(model, tmp_path / out, "--task", task, "--rows", 4, "--force")
        assert f"--out {tmp_path / out} would write over" in message
    (tmp_path / "rows.json").write_text("{}")
    assert "rows.json is there already" in refused(model, tmp_path / "rows.csv", "--task", task, "--rows", 4)
    assert task.read_text() == TASK and (tmp_path / "rows.json").read_text() == "{}"


def test_a_field_called_label(model: Path, task: Path, tmp_path: Path) -> None:
    task.write_text(TASK.replace("{text: message}", "{label: message}").replace("{{ text }}", "{{ label }}"))
    assert "has a field called 'label'" in refused(model, tmp_path / "rows.csv", "--task", task, "--rows", 4)
