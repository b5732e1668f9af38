"""Models behind an API, judged with from the command line to the table, and our own server as one of them."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
from fake_api import fake_api, last_turn, problem, reply
from fake_method import reviews
from serving import running
from typer.testing import CliRunner

from adjudge.cli.main import app
from adjudge.config import load_config
from adjudge.errors import ConfigError, ModelError
from adjudge.experiments.compare import compare, dry_run
from adjudge.experiments.evaluate import load_judge
from adjudge.experiments.execute import execute
from adjudge.experiments.rerun import compare_runs, rerun
from adjudge.models.chat_api import CONSENT, consent
from adjudge.runs.folder import Run
from adjudge.ship.serving.judges import ServedJudge

KEY = "sk-test-0123456789abcdefghij"


@pytest.fixture(autouse=True)
def _key(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.delenv(CONSENT, raising=False)


def config(url, *overrides, method="zero-shot"):
    plain = [f"method={method}", "model=api:small", f"api.base_url={url}", "evaluation.resamples=100", "api.retries=1"]
    return load_config(overrides=[*plain, *overrides])


def first_word(body, number=0):
    """Answer with the row's first word, in its tags."""
    word = last_turn(body).removeprefix("Text: ").split()[0]
    return reply(f"<Judgement>{word}</Judgement>")


def judged(api, spec, folder, *overrides, method="zero-shot"):
    with consent():
        execute(config(api.url, *overrides, method=method), spec, folder)
    return Run.open(folder)


def test_a_request_holds_the_prompt_and_a_row_gets_its_own_answer(tmp_path):
    def slower_first(body, number):
        time.sleep(0.03 * (8 - number % 8) / 8)
        return first_word(body)

    with fake_api(slower_first) as api:
        run = judged(api, reviews(tmp_path), tmp_path / "run", "api.concurrency=8")
    assert {
        "path": "/v1/chat/completions",
        "model": "small",
        "messages": [
            {
                "role": "system",
                "content": 'Judge the label of the text below. Answer "bad" or "good".\n'
                "Give the answer as <Judgement>bad</Judgement> or <Judgement>good</Judgement>.",
            },
            {"role": "user", "content": "Text: bad film number 25\nJudgement:"},
        ],
        "max_tokens": 43,
        "temperature": 0.0,
        "stop": ["</Judgement>"],
    } in api.bodies
    for prediction in run.predictions("dev"):
        assert prediction.value == prediction.fields["text"].split()[0]
    assert run.scores()["judging"] == {
        "calls": 8,
        "prompt_tokens": 56,
        "generated_tokens": 24,
        "retries": 0,
        "length": 0,
        "filter": 0,
        "empty": 0,
        "models": ["fake-1"],
        "fingerprints": ["fp"],
    }
    model = json.loads((run.folder / "environment.json").read_text())["model"]
    assert (model["name"], model["api"]) == ("api:small", api.url)


def test_few_shot_shows_the_same_rows_as_turns(tmp_path):
    with fake_api(first_word) as api:
        run = judged(api, reviews(tmp_path), tmp_path / "run", "prompt.demonstrations=2", method="few-shot")
    roles = [message["role"] for message in api.bodies[0]["messages"]]
    assert roles == ["system", "user", "assistant", "user", "assistant", "user"]
    shown = [json.loads(line) for line in (run.folder / "demonstrations.jsonl").read_text().splitlines()]
    assert [f"Text: {row['fields']['text']}\nJudgement:" for row in shown] == [
        message["content"] for message in api.bodies[0]["messages"][1:4:2]
    ]
    assert (run.scores()["decode"], run.scores()["train_rows"], run.config.prompt.prior) == ("greedy", 2, "none")


def test_answers_that_did_not_end_are_unreadable_and_counted_apart(tmp_path):
    odd = [
        reply("<Judgement>good</Judgement>", finish="length"),
        reply("good", finish="content_filter"),
        reply(None),
        reply("", choices=[]),
        problem(429, retry_after_ms="1"),
        reply("Good!", usage=None),
    ]
    with fake_api(lambda body, number: odd[number] if number < len(odd) else first_word(body)) as api:
        spec = reviews(tmp_path)
        with consent():
            table = compare(
                config(api.url, "api.concurrency=1", "api.price_read=1e6", "api.price_written=2e6"),
                [spec],
                ["zero-shot"],
                [0],
                tmp_path / "all",
                runner=execute,
            )
    scores = table["rows"][0]
    assert scores["unreadable"] == 4
    spent = scores["judging"]
    assert [spent[name] for name in ("calls", "length", "filter", "empty", "retries", "uncounted")] == [
        8,
        1,
        1,
        2,
        1,
        1,
    ]
    assert spent["price"] == spent["prompt_tokens"] + 2 * spent["generated_tokens"] == 7 * 7 + 2 * 7 * 3
    text = (tmp_path / "all" / "table.md").read_text()
    assert "| model calls | tokens (read / written) |" in " ".join(text.split())
    assert "1 cut off at the limit of tokens, 1 stopped by a content filter, 2 empty count as unreadable" in text
    assert "api:small answered over an API: its answers cannot be had again" in text
    assert "gold labels" not in text


def test_what_was_answered_before_a_problem_is_not_asked_again(tmp_path, capsys):
    spec = reviews(tmp_path)
    with fake_api(lambda body, number: first_word(body) if number < 5 else problem(500, retry_after_ms="1")) as api:
        with consent(), pytest.raises(ModelError, match="the same command goes on from there"):
            execute(config(api.url, "api.concurrency=1"), spec, tmp_path / "run")
        log = tmp_path / "run" / "writer.jsonl"
        assert len(log.read_text().splitlines()) == 5
        with log.open("a") as file:
            file.write('{"key": "half a li')  # killed while it wrote
        api.answer = first_word
        del api.bodies[:]
        run = judged(api, spec, tmp_path / "run", "api.concurrency=3")
        assert len(api.bodies) == 3
        assert (run.scores()["judging"]["calls"], len(log.read_text().splitlines())) == (8, 8)
        parts = compare_runs(run.folder, rerun(run.folder))  # without consent: nothing is sent
        assert len(api.bodies) == 3
    assert all(part.equal for part in parts)
    assert "it is not asked again" in capsys.readouterr().err


def test_the_key_is_in_no_file_and_no_message(tmp_path, capfd):
    def leaky(body, number):
        if number == 3:
            return problem(401, f"Incorrect API key provided: {KEY}")
        return reply(f"Bearer {KEY}", model=KEY, system_fingerprint=KEY)

    with fake_api(leaky) as api:
        spec = reviews(tmp_path)
        with consent(), pytest.raises(ConfigError, match=r"refuses the key in OPENAI_API_KEY \(401\)") as caught:
            execute(config(api.url, "api.concurrency=1"), spec, tmp_path / "run")
        assert Run.open(tmp_path / "run").state == "failed"
        api.answer = lambda body, number: leaky(body, 0)
        judged(api, spec, tmp_path / "run")
    assert KEY not in str(caught.value) + "".join(capfd.readouterr())
    for path in tmp_path.rglob("*"):
        assert not path.is_file() or KEY.encode() not in path.read_bytes(), path


@pytest.mark.parametrize("decode", ["greedy", "labels"])
def test_our_own_server_gives_the_local_predictions(decode, tiny_llama, tmp_path):
    spec = reviews(tmp_path)
    plain = ["method=zero-shot", "evaluation.resamples=100", "runtime.dtype=float32"]
    execute(load_config(overrides=[*plain, f"model={tiny_llama}", f"evaluation.decode={decode}"]), spec, tmp_path / "a")
    local, spec, judge = load_judge(tmp_path / "a")
    with running([ServedJudge("a", spec, judge)], key=KEY) as url, fake_api(first_word), consent():
        execute(config(f"{url}/v1", "model=api:a"), spec, tmp_path / "b")
        with pytest.raises(ModelError, match="to which no worked examples can be added"):
            execute(config(f"{url}/v1", "model=api:a", method="few-shot"), spec, tmp_path / "c")
    over_api = Run.open(tmp_path / "b")
    values = [prediction.value for prediction in local.predictions("dev")]
    assert [prediction.value for prediction in over_api.predictions("dev")] == values
    assert over_api.scores()["metrics"] == local.scores()["metrics"]
    assert len(set(values)) >= 1


def test_methods_that_need_weights_or_probabilities_refuse(tmp_path):
    spec = reviews(tmp_path)
    for method, why in (("sft", "sft needs the weights"), ("ppo", "ppo needs the weights")):
        with pytest.raises(ConfigError, match=f"{why}.*Methods that take one: zero-shot, few-shot"):
            execute(config("http://127.0.0.1:9/v1", method=method), spec, tmp_path / "run")
    for setting, why in (
        ("evaluation.decode=labels", "--decode labels needs the probability"),
        ("prompt.demonstration_orders=2", "averages label probabilities"),
        ("calibration.rows=4", "calibration.rows fits label probabilities"),
    ):
        with pytest.raises(ConfigError, match=why):
            execute(config("http://127.0.0.1:9/v1", setting, method="few-shot"), spec, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_the_command_line_says_what_goes_and_waits_for_consent(tmp_path):
    reviews(tmp_path)
    with fake_api(first_word) as api:
        table = ["--data", str(tmp_path / "reviews.csv"), "--text", "text", "--label", "label"]
        place = ["--model", "api:small", f"api.base_url={api.url}", "evaluation.resamples=100"]
        verb = ["evaluate", "--method", "zero-shot", *table, *place, "--out", str(tmp_path / "run")]
        refused = CliRunner().invoke(app, verb)
        assert refused.exit_code == 2
        said = " ".join(refused.stderr.split())
        assert f"8 rows go to {api.url} (api:small): about" in said
        assert "price unknown (api.price_read, api.price_written)" in said
        assert "Nothing was sent. Add --send-rows" in said
        every = ["compare", "--methods", "zero-shot,few-shot", *table, *place, "--out", str(tmp_path / "all")]
        refused = CliRunner().invoke(app, every)
        assert refused.exit_code == 2
        assert f"16 rows go to {api.url} (api:small): about" in " ".join(refused.stderr.split())
        assert (api.bodies, (tmp_path / "run").exists(), (tmp_path / "all").exists()) == ([], False, False)
        done = CliRunner().invoke(app, [*verb, "--send-rows"])
        assert done.exit_code == 0, done.output
        assert len(api.bodies) == 8
        judge = ["predict", "--run", str(tmp_path / "run"), "--input", str(tmp_path / "reviews.csv")]
        refused = CliRunner().invoke(app, [*judge, "--out", str(tmp_path / "judged.csv")])
        assert "32 rows go to" in " ".join(refused.stderr.split())  # 8 of the 40 were judged by the run
        done = CliRunner().invoke(app, [*judge, "--out", str(tmp_path / "judged.csv"), "--send-rows"])
        assert done.exit_code == 0, done.output
        assert len(api.bodies) == 40
        sure = [*judge, "--out", str(tmp_path / "sure.csv"), "--min-confidence", "0.9"]
        assert "A model behind an API gives no probabilities" in " ".join(CliRunner().invoke(app, sure).stderr.split())


def test_a_dry_run_sends_nothing(tmp_path, capsys):
    with fake_api(first_word) as api:
        spec = reviews(tmp_path)
        (estimate,) = dry_run(config(api.url), [spec], ["zero-shot"], [0], tmp_path / "all")
    assert (api.bodies, estimate.judged_rows, estimate.problem) == ([], 8, "")
    assert f"8 rows go to {api.url}" in capsys.readouterr().err


def test_the_consent_of_a_run_folder_is_not_taken(tmp_path):
    with fake_api(first_word) as api:
        run = judged(api, reviews(tmp_path), tmp_path / "run")
        assert "send" not in (run.folder / "config.yaml").read_text()
        _, spec, judge = load_judge(run.folder)
        with pytest.raises(ConfigError, match="Nothing was sent"):
            judge.judge(reviews_to_judge(spec))
        assert len(api.bodies) == 8


def reviews_to_judge(spec):
    from adjudge.tasks import load_split

    return load_split(spec, "train")


def test_without_the_extra_the_error_names_it(tmp_path, monkeypatch):
    import importlib.util

    found = importlib.util.find_spec
    monkeypatch.setattr(
        "importlib.util.find_spec", lambda name, *more: None if name == "openai" else found(name, *more)
    )
    with consent(), pytest.raises(ConfigError, match=r"pip install 'adjudge\[api\]'"):
        execute(config("http://127.0.0.1:9/v1"), reviews(tmp_path), tmp_path / "run")
    assert not Path(tmp_path / "run").exists()
