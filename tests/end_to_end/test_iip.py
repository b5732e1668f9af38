"""Stepwise runs: with no steps zero-shot's bits, with an exact oracle always right, repeated from their log."""

from __future__ import annotations

import json

import pytest
from fake_api import fake_api, last_turn, reply
from fake_method import reviews

from adjudge.config import load_config
from adjudge.errors import ConfigError
from adjudge.experiments.compare import compare
from adjudge.experiments.evaluate import evaluate_run, load_judge
from adjudge.experiments.execute import execute
from adjudge.experiments.rerun import compare_runs, rerun
from adjudge.models.chat_api import CONSENT, consent
from adjudge.prompts.steps import OUTPUT
from adjudge.runs.folder import Run
from adjudge.tasks import load_task
from adjudge.tasks.programs import run_line
from adjudge.types import Example


@pytest.fixture(autouse=True)
def _key(monkeypatch):
    monkeypatch.delenv(CONSENT, raising=False)
    monkeypatch.setenv("OPENAI_API_KEY", "sk-test-0123456789")


def config(model, method, *overrides):
    plain = [f"method={method}", f"model={model}", "evaluation.resamples=100", "runtime.dtype=float32"]
    return load_config(overrides=[*plain, "data.eval_rows=18", *overrides])


@pytest.mark.parametrize("decode", ["greedy", "labels"])
def test_without_steps_it_is_zero_shot_bit_for_bit(decode, tiny_llama, tmp_path):
    spec = reviews(tmp_path)
    for method in ("zero-shot", "iip"):
        execute(
            config(tiny_llama, method, f"evaluation.decode={decode}", "iip.steps=[]", "data.eval_rows=6"),
            spec,
            tmp_path / method,
        )
    name = "predictions/dev.jsonl"
    assert (tmp_path / "iip" / name).read_bytes() == (tmp_path / "zero-shot" / name).read_bytes()


def test_a_local_run_is_kept_repeated_and_judges_again(tiny_llama, tmp_path):
    spec = reviews(tmp_path)
    execute(
        config(tiny_llama, "iip", 'iip.steps=["What is good?", "What is bad?"]', "iip.max_tokens=4"),
        spec,
        tmp_path / "run",
    )
    run = Run.open(tmp_path / "run")
    judging = run.scores()["judging"]
    assert judging["calls"] == 3 * run.scores()["n"]
    asked = (run.folder / "writer.jsonl").read_text()
    _, _, judge = load_judge(run.folder)
    rows = [Example(each.id, each.fields) for each in run.predictions("dev")]
    assert [each.text for each in judge.judge(rows)] == [each.text for each in run.predictions("dev")]
    assert (run.folder / "writer.jsonl").read_text() == asked  # from the log
    assert [part for part in compare_runs(run.folder, rerun(run.folder)) if not part.equal] == []


def oracle(wrong_at=0):
    """Run each line on the values that were carried on, and read the judgement off them; err at one line."""

    def answer(body, number):
        asked = last_turn(body)
        if "Next line: " not in asked:
            return reply(f"<Judgement>{asked.split(f'{OUTPUT} = ')[1].split()[0]}</Judgement>")
        so_far = asked.partition("Values so far: ")[2].partition("\n")[0]
        pairs = [part.split(" = ") for part in so_far.split(", ")] if so_far != "none" else []
        step = run_line(asked.partition("Next line: ")[2], {name: int(value) for name, value in pairs})
        if step.printed is not None:
            return reply(f"{OUTPUT} = {step.printed}")
        off = int(len(pairs) + 1 == wrong_at)
        return reply("\n".join(f"{name} = {value - off}" for name, value in step.values.items()))

    return answer


def test_an_exact_oracle_is_right_at_every_length_with_one_call_per_line_and_one_more(tmp_path):
    with fake_api(oracle()) as api, consent():
        every = config("api:small", "iip", f"api.base_url={api.url}", "api.concurrency=8")
        table = compare(every, [load_task("code/exec")], ["iip"], [0], tmp_path / "all", runner=execute)
        (row,) = table["rows"]
        assert row["metrics"]["accuracy"]["value"] == 1.0
        run = Run.open(tmp_path / "all" / row["run"])
        lengths = [int(each.tags["Lines"]) for each in run.predictions("dev")]
        assert set(lengths) == {1, 2, 3, 4, 5, 6}
        alike = sum(length + 1 for length in lengths) - len(api.bodies)
        assert 0 <= alike < 4  # rows with the same first line make one call of it
        assert len(api.bodies) == row["judging"]["calls"]
        assert row["judging"]["unread_steps"] == 0
        by_length = {entry["phenomenon"]: entry["metrics"]["accuracy"]["value"] for entry in row["diagnostics"]}
        assert by_length == dict.fromkeys([None, "1", "2", "3", "4", "5", "6"], 1.0)
        assert table["apart"][0]["setting"] == "iip.lines=program"
        evaluate_run(run.folder)  # from the log
        assert len(api.bodies) == row["judging"]["calls"]


def test_what_is_sent_is_said_before_with_its_steps(tmp_path):
    with fake_api(oracle()) as api:
        every = config("api:small", "iip", f"api.base_url={api.url}", "data.eval_rows=6")
        with pytest.raises(ConfigError, match=r"(\d+) rows and their steps go to") as caught:
            execute(every, load_task("code/exec"), tmp_path / "run")
        assert api.bodies == []
        with consent():
            execute(every, load_task("code/exec"), tmp_path / "run")
        said = int(str(caught.value).partition(" rows and their steps")[0].split()[-1])
        assert said == sum(int(each.tags["Lines"]) + 1 for each in Run.open(tmp_path / "run").predictions("dev"))


def test_an_error_at_a_line_is_carried_to_the_end(tmp_path):
    row = '"x = 2\ny = x * 3\nprint(y > 5)",True\n'
    (tmp_path / "one.csv").write_text(f"program,printed\n{row}")
    spec = load_task("code/exec")
    table = {"train": str(tmp_path / "one.csv"), "dev": str(tmp_path / "one.csv")}
    spec = type(spec).model_validate({**spec.model_dump(), "name": "one", "tags": {}, "source": {"table": table}})
    for wrong_at, value in ((0, "True"), (2, "False")):
        with fake_api(oracle(wrong_at)) as api, consent():
            execute(config("api:small", "iip", f"api.base_url={api.url}"), spec, tmp_path / f"wrong-{wrong_at}")
        run = Run.open(tmp_path / f"wrong-{wrong_at}")
        assert [each.value for each in run.predictions("dev")] == [value]
        log = [json.loads(line) for line in (run.folder / "writer.jsonl").read_text().splitlines()]
        assert len(log) == run.scores()["judging"]["calls"] == 4


def test_steps_that_were_filtered_or_cannot_be_read_are_counted(tmp_path):
    with fake_api(lambda body, number: reply("no idea", finish="content_filter")) as api, consent():
        few = config("api:small", "iip", f"api.base_url={api.url}", "data.eval_rows=6")
        execute(few, load_task("code/exec"), tmp_path / "run")
    scores = Run.open(tmp_path / "run").scores()
    assert scores["unreadable"] == 6
    lengths = [int(each.tags["Lines"]) for each in Run.open(tmp_path / "run").predictions("dev")]
    assert scores["judging"]["unread_steps"] == sum(lengths)
    assert (scores["judging"]["filter"], scores["judging"]["length"]) == (6, 0)  # of the judgements
