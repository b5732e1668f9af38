"""Searches for an instruction: what they choose, what they keep, what they count, and that they change nothing else."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from fake_api import fake_api, last_turn, problem, reply
from fake_method import reviews
from specs import label_task, number_task

from adjudge.config import load_config
from adjudge.errors import ConfigError, DataError, ModelError, RunError
from adjudge.evaluation.trials import Trial, problem_with, score_kind
from adjudge.experiments.compare import compare
from adjudge.experiments.evaluate import evaluate_run, load_judge
from adjudge.experiments.execute import execute
from adjudge.experiments.rerun import compare_runs, rerun
from adjudge.methods.prompting import bpo, gepa, gepa_edits
from adjudge.methods.prompting.searching import begin, is_wrong
from adjudge.models.chat_api import CONSENT, consent
from adjudge.runs.folder import Run
from adjudge.tasks import infer_task, load_split
from adjudge.training.mixture import TaskRows
from adjudge.types import Example

FILMS = label_task("bad", "good", instruction='Judge the film. Answer "bad" or "good".')
ROWS = [Example(str(number), {"text": f"film {number}"}, ("bad", "good")[number % 2]) for number in range(4)]


@pytest.fixture(autouse=True)
def _no_consent(monkeypatch):
    monkeypatch.delenv(CONSENT, raising=False)
    monkeypatch.setenv("OPENAI_API_KEY", "sk-test-0123456789")


def config(model, method, *overrides):
    plain = [f"method={method}", f"model={model}", "evaluation.resamples=100", "runtime.dtype=float32"]
    return load_config(overrides=[*plain, "data.train_rows=12", *overrides])


def finished(folder):
    return Run.open(folder), json.loads((folder / "search.json").read_text())


def answers(run):
    return [(each.value, each.text, dict(each.probabilities)) for each in run.predictions("dev")]


@pytest.mark.parametrize(
    ("method", "settings"),
    [
        ("bpo", ['bpo.texts=["Judge the label of the text below. Answer \\"bad\\" or \\"good\\"."]']),
        ("gepa", ["gepa.calls=1"]),
    ],
)
def test_without_a_better_instruction_it_is_zero_shot_bit_for_bit(method, settings, tiny_llama, tmp_path):
    spec = reviews(tmp_path)
    labels = "evaluation.decode=labels"
    execute(config(tiny_llama, "zero-shot", labels), spec, tmp_path / "zero")
    execute(config(tiny_llama, method, labels, *settings), spec, tmp_path / "run")
    run, _ = finished(tmp_path / "run")
    assert (run.folder / "instruction.txt").read_text() == spec.instruction
    assert answers(run) == answers(Run.open(tmp_path / "zero"))
    assert not (run.folder / "writer.jsonl").exists()


def test_the_best_of_given_instructions_is_taken_and_kept(tiny_llama, tmp_path):
    spec = reviews(tmp_path)
    texts = ['Say "bad" or "good".', "Is the text good?", 'bad or good? "bad"/"good".', 'Say "bad" or "good".']
    execute(
        config(tiny_llama, "bpo", "evaluation.decode=labels", f"bpo.texts={json.dumps(texts)}"), spec, tmp_path / "run"
    )
    run, record = finished(tmp_path / "run")
    assert record["rejected"] == [{"text": texts[1], "reason": "an answer is no longer named"}]
    assert [each["instruction"] for each in record["candidates"]] == [spec.instruction, texts[0], texts[2]]
    best = max(record["candidates"], key=lambda each: each["score"])["instruction"]
    assert (run.folder / "instruction.txt").read_text() == best
    assert record["budget"] == {**record["budget"], "calls": 12, "gold_labels": 4}
    assert run.scores()["budget"] == record["budget"]
    assert run.scores()["train_rows"] == 12
    _, _, judge = load_judge(run.folder)
    assert judge.task.spec.instruction == best
    values = [each.value for each in judge.judge([Example(p.id, p.fields) for p in run.predictions("dev")])]
    assert values == [each.value for each in run.predictions("dev")]
    assert {part.name for part in compare_runs(run.folder, rerun(run.folder)) if not part.equal} == set()


def test_an_instruction_says_nothing_of_another_task(tiny_llama, tmp_path):
    execute(config(tiny_llama, "bpo", "bpo.rewrites=0"), reviews(tmp_path), tmp_path / "run")
    with pytest.raises(RunError, match="found an instruction for reviews, which says nothing of others"):
        evaluate_run(tmp_path / "run", spec=reviews(tmp_path).model_copy(update={"name": "others"}))
    (tmp_path / "run" / "instruction.txt").unlink()
    with pytest.raises(RunError, match=r"instruction.txt is missing"):
        load_judge(tmp_path / "run")


def test_too_few_rows_are_an_error(tiny_llama, tmp_path):
    with pytest.raises(DataError, match="there are 1 with an answer"):
        execute(config(tiny_llama, "bpo", "data.train_rows=1"), reviews(tmp_path), tmp_path / "run")


def oracle(body, number):
    """Judge rightly with an instruction that says SECRET, else always "bad"; when asked to write, find it out."""
    asked = last_turn(body)
    if "Judgement:" in asked:
        told = "SECRET" in body["messages"][0]["content"]
        return reply(asked.removeprefix("Text: ").split()[0] if told else "bad")
    text = 'SECRET. Answer "bad" or "good".'
    return reply(f"They differ. {bpo.MARK} {text} {bpo.END} bye" if bpo.MARK in asked else f"Try:\n```\n{text}\n```")


@pytest.mark.parametrize(("method", "group"), [("bpo", "bpo"), ("gepa", "gepa")])
def test_a_writer_that_finds_the_rule_is_followed(method, group, tmp_path):
    spec = plain_reviews(tmp_path)
    with fake_api(oracle) as api:
        settings = [f"api.base_url={api.url}", "api.price_read=1e6", "api.price_written=0"]
        settings += ["gepa.calls=40"] if method == "gepa" else ["bpo.rewrites=2"]
        with pytest.raises(ConfigError, match="rows, besides those of a search, go to"):
            execute(config("api:small", method, *settings), spec, tmp_path / "run")
        assert api.bodies == []
        with consent():
            every = config("api:small", method, *settings)
            table = compare(every, [spec], [method], [0], tmp_path / "all", runner=execute)
        (folder,) = (tmp_path / "all").rglob("instruction.txt")
        asked = len(api.bodies)
        assert folder.read_text() == 'SECRET. Answer "bad" or "good".'
        row = table["rows"][0]
        assert row["metrics"]["accuracy"]["value"] == 1.0
        assert row["budget"]["calls"] + row["judging"]["calls"] == asked
        assert row["budget"]["price"] == row["budget"]["prompt_tokens"] == 7 * row["budget"]["calls"]
        assert 6 < row["budget"]["gold_labels"] <= 12
        header = " ".join((tmp_path / "all" / "table.md").read_text().split())
        assert "| model calls | tokens (read / written) | gold labels | price |" in header
        rerun(folder.parent)  # from the log, without consent
        assert len(api.bodies) == asked


def plain_reviews(folder: Path, rows: int = 40):
    """Reviews whose first word is their label."""
    labels = [("good", "bad")[number % 2] for number in range(rows)]
    lines = [f"{label} film number {number},{label}" for number, label in enumerate(labels)]
    (folder / "plain.csv").write_text("\n".join(["text,label", *lines]) + "\n")
    return infer_task(folder / "plain.csv", ["text"], "label")


def test_a_writer_behind_an_api_needs_consent_and_its_problems_end_the_search(tiny_llama, tmp_path):
    spec = reviews(tmp_path)
    with fake_api(lambda body, number: problem(500, retry_after_ms="1")) as api:
        settings = ["writer.model=api:large", f"api.base_url={api.url}", "api.retries=0", "gepa.calls=30"]
        with pytest.raises(ConfigError, match=r"api:large writes instructions for gepa.*\n.*Add --send-rows"):
            execute(config(tiny_llama, "gepa", *settings), spec, tmp_path / "run")
        with consent(), pytest.raises(ModelError, match="answered 500"):
            execute(config(tiny_llama, "gepa", *settings), spec, tmp_path / "run")
        assert len(api.bodies) == 1
        api.answer = lambda body, number: reply("no backticks")
        with consent():
            execute(config(tiny_llama, "gepa", *settings), spec, tmp_path / "run", resume=True)
            again = f"```{spec.instruction}```"
            api.answer = lambda body, number: reply(again)
            execute(config(tiny_llama, "gepa", *settings), spec, tmp_path / "same")
    assert {each["reason"] for each in finished(tmp_path / "same")[1]["rejected"]} == {"unchanged"}
    run, record = finished(tmp_path / "run")
    assert (run.folder / "instruction.txt").read_text() == spec.instruction
    assert {each["reason"] for each in record["rejected"]} == {"no instruction"}
    assert record["proposed"] == len(record["rejected"]) > 1


def test_held_out_rows_have_every_label_equally_often(tmp_path):
    lines = ["text,label", *(f"film number {number},{'good' if number % 4 else 'bad'}" for number in range(80))]
    (tmp_path / "rare.csv").write_text("\n".join(lines) + "\n")
    spec = infer_task(tmp_path / "rare.csv", ["text"], "label")
    with fake_api(lambda body, number: reply("good")) as api, consent():
        settings = [f"api.base_url={api.url}", "data.train_rows=40", "bpo.validation_rows=8"]
        texts = 'bpo.texts=["Say bad or good."]'
        execute(config("api:small", "bpo", *settings, texts), spec, tmp_path / "run")
    _, record = finished(tmp_path / "run")
    assert [each["score"] for each in record["candidates"]] == [0.5, 0.5]  # one answer for all pays no more than chance


def test_a_local_writer_writes_and_is_counted(tiny_llama, tmp_path):
    settings = ["bpo.rewrites=2", "bpo.pairs=1", "writer.max_tokens=16", "evaluation.decode=labels"]
    execute(config(tiny_llama, "bpo", *settings), reviews(tmp_path), tmp_path / "run")
    run, record = finished(tmp_path / "run")
    calls = [json.loads(line) for line in (run.folder / "writer.jsonl").read_text().splitlines()]
    assert [call["seed"] for call in calls] == [0, 1]
    assert [each["reason"] for each in record["rejected"]] == ["no rewrite", "no rewrite"]
    assert record["budget"]["calls"] == 8 + 2
    assert record["budget"]["generated_tokens"] >= 32


def test_scripted_edits_search_and_are_called_so(tiny_llama, tmp_path):
    spec = reviews(tmp_path)
    table = compare(
        config(tiny_llama, "gepa-edits", "gepa_edits.calls=40", "evaluation.decode=labels"),
        [spec],
        ["gepa-edits"],
        [0],
        tmp_path / "all",
        runner=execute,
    )
    (folder,) = (tmp_path / "all").rglob("search.json")
    record = json.loads(folder.read_text())
    assert 40 <= record["metric_calls"] <= 40 + 2 * 3 + 6
    assert record["proposed"] >= 3
    scores = [each["score"] for each in record["candidates"]]
    best = record["candidates"][scores.index(max(scores))]["instruction"]
    assert (folder.parent / "instruction.txt").read_text() == best
    assert "not GEPA: no model reflects" in (tmp_path / "all" / "table.md").read_text()
    assert table["rows"][0]["budget"]["gold_labels"] == 12


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (
            f"They differ in tone. {bpo.MARK} Say Positive or Negative. {bpo.END} junk",
            "Say Positive or Negative.",
        ),
        (f"{bpo.MARK}\nSay it.", "Say it."),
        ("Say Positive or Negative.", None),
        (f"{bpo.MARK} {bpo.END}", ""),
    ],
)
def test_a_rewrite_stands_after_its_mark(text, found):
    assert bpo.read_rewrite(text) == found
    cut = bpo.read_rewrite(text, cut=True)
    assert cut == (found if bpo.END in text else None)  # without an end, nobody knows what was to come


def test_a_text_that_is_there_twice_is_not_shown_and_held_out(tmp_path):
    lines = ["text,label", *(f"film {number // 2},{'good' if number % 4 < 2 else 'bad'}" for number in range(60))]
    (tmp_path / "twice.csv").write_text("\n".join(lines) + "\n")
    spec = infer_task(tmp_path / "twice.csv", ["text"], "label")
    run = Run.create(tmp_path / "run", config("api:small", "bpo"))
    with consent():
        search = begin(run, [TaskRows(spec, load_split(spec, "train"))], run.config.bpo)
    shown, held_out = ({row.fields["text"] for row in rows} for rows in (search.shown, search.held_out))
    assert shown and held_out and not shown & held_out


def test_held_out_rows_of_many_labels_are_not_those_of_the_first_ones(tmp_path, capsys):
    names = [f"label{number:02d}" for number in range(20)]
    rows = [f"text {number},{names[number % 20]}" for number in range(100)]
    (tmp_path / "many.csv").write_text("\n".join(["text,label", *rows]) + "\n")
    spec = infer_task(tmp_path / "many.csv", ["text"], "label")
    run = Run.create(tmp_path / "run", config("api:small", "bpo", "bpo.validation_rows=6"))
    with consent():
        search = begin(run, [TaskRows(spec, load_split(spec, "train"))], run.config.bpo)
    drawn = {row.gold for row in search.held_out}
    assert len(drawn) == 6 and drawn != set(names[:6])
    assert "the 6 held-out rows have 6 of 20 labels" in capsys.readouterr().err


def test_numbers_are_right_as_they_are_written_and_the_farthest_are_shown():
    stars = number_task(0, 5)
    rows = [Example(str(n), {"text": f"film {n}"}, gold) for n, gold in enumerate((3.75, 1.0, 1.0))]
    trials = [Trial("3.8", 3.8, 0.99), Trial("2.0", 2.0, 0.8), Trial("5.0", 5.0, 0.2)]
    assert [is_wrong(row, trial, stars) for row, trial in zip(rows, trials, strict=True)] == [False, True, True]
    assert bpo.wrong_answers(stars, rows, trials, 1) == "text: film 2\nright: 1.0\nthe assistant's: 5.0"


def test_sets_of_labels_are_scored_as_right_or_wrong():
    several = label_task("sport", "politics", several="words", metrics=("micro_f1",))
    assert score_kind(load_config().bpo, several, "some/model") == "right"
    with pytest.raises(ConfigError, match="score=probability is for one label"):
        score_kind(load_config(overrides=["bpo.score=probability"]).bpo, several, "some/model")


def test_an_answer_is_named_as_a_whole_word():
    spec = label_task("No", "Yes", instruction="Answer No or Yes.")
    assert problem_with("Nothing else counts. Say Yes.", spec) == "an answer is no longer named"
    assert problem_with("Say 'No', or 'Yes'.", spec) is None


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("Here:\n```\nJudge it.\n```\nGood luck.", "Judge it."),
        ("```text\nJudge it.\n```", "Judge it."),
        ("```Judge ``` it.```", "Judge ``` it."),
        ("Judge it.", None),
        ("```Judge it.", None),
    ],
)
def test_an_instruction_stands_between_backticks(text, found):
    assert gepa.between_backticks(text) == found


def test_pairs_are_the_wrong_and_the_unreadable_answers():
    trials = [Trial("bad", "bad", 0.9), Trial("bad", "bad", 0.2), Trial("so\nso", None, 0.0), Trial("bad", "bad", 0.1)]
    assert bpo.wrong_answers(FILMS, ROWS, trials, 5) == (
        "text: film 1\nright: good\nthe assistant's: bad\n\n"
        "text: film 2\nright: bad\nthe assistant's: so so\n\n"
        "text: film 3\nright: good\nthe assistant's: bad"
    )
    assert bpo.wrong_answers(FILMS, ROWS, trials, 1).endswith("film 1\nright: good\nthe assistant's: bad")


def test_texts_that_can_be_no_instruction():
    assert problem_with('Say "bad" or "good"!', FILMS) is None
    assert problem_with(" \n", FILMS) == "empty"
    assert problem_with("bad good " * 1000, FILMS) == "too long"
    assert problem_with("Say bad or fine.", FILMS) == "an answer is no longer named"


def test_each_edit_changes_the_instruction_in_its_way():
    right, wrong = (ROWS[0], Trial("bad", "bad", 0.9)), (ROWS[1], Trial("bad", "bad", 0.2))
    text = "Judge the film. Answer bad or good."
    assert gepa_edits.add_example(text, [right, wrong], FILMS) == f'{text} For example, the answer to "film 1" is good.'
    assert gepa_edits.add_example(text, [right], FILMS) is None
    apart = gepa_edits.tell_apart(text, [right, wrong], FILMS)
    assert apart == f"{text} Answer bad only where good does not fit better."
    assert gepa_edits.name_answers(text, [], FILMS) == f"{text} Answer with exactly one of: bad, good."
    assert gepa_edits.shorten(text, [], FILMS) == "Judge the film."
    assert gepa_edits.reorder(text, [], FILMS) == "Answer bad or good. Judge the film."
    assert gepa_edits.shorten("Judge.", [], FILMS) is gepa_edits.reorder("Judge.", [], FILMS) is None
