"""Publishing a judge, against a local fake of the hub."""

import json

import httpx2
import pytest
from fake_hub import fake_hub
from fake_method import write_reviews
from huggingface_hub import HfApi, constants
from typer.testing import CliRunner

import adjudge
from adjudge.cli.main import app
from adjudge.config import load_config
from adjudge.errors import ConfigError, ModelError, RunError
from adjudge.experiments.execute import execute
from adjudge.ship.push import push_judge
from adjudge.tasks import infer_task


@pytest.fixture
def hub(monkeypatch):
    with fake_hub() as served:
        monkeypatch.setattr(constants, "ENDPOINT", served.url)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setenv("HF_TOKEN", "hf_secret")
        yield served


def run_of(tmp_path, method, *overrides):
    spec = infer_task(write_reviews(tmp_path / "reviews.csv"), ["text"], "label")
    settings = ["data.train_rows=8", "evaluation.resamples=100", "runtime.threads=1", *overrides]
    execute(load_config(overrides=[f"method={method}", *settings]), spec, tmp_path / "run")
    return tmp_path / "run"


@pytest.fixture
def trained(tiny_llama, tmp_path):
    return run_of(tmp_path, "sft", f"model={tiny_llama}", "sft.epochs=1", "sft.min_steps=0")


def answers(judge):
    return [(each.value, each.probabilities) for each in judge.predict(["good one here", "bad one there"])]


def test_a_judge_is_published_and_opened_again(trained, tiny_llama, hub, tmp_path):
    address = push_judge(trained, "owner/judge", base="someone/llama@" + "1" * 40)
    assert address == f"{hub.url}/owner/judge/commit/{'4' * 40}"
    assert hub.repos == {"owner/judge": "private"} and hub.branches == ["main"]
    assert hub.tokens == {"Bearer hf_secret"}
    adapter = json.loads(hub.files["adapter_config.json"])
    assert (adapter["base_model_name_or_path"], adapter["revision"]) == ("someone/llama", "1" * 40)
    assert {"README.md", "judge.json", "tokenizer.json", "adapter_model.safetensors"} <= set(hub.files)
    assert not any(str(tmp_path).encode() in body for body in hub.files.values())
    for name, body in hub.files.items():
        (tmp_path / "fetched").mkdir(exist_ok=True)
        (tmp_path / "fetched" / name).write_bytes(body)
    fetched = adjudge.open_judge(tmp_path / "fetched", model=str(tiny_llama))
    assert answers(fetched) == answers(adjudge.open_run(trained))


def test_the_run_itself_is_not_changed(trained, hub):
    before = {path.name: path.read_bytes() for path in (trained / "adapter").iterdir()}
    push_judge(trained, "owner/judge", base="someone/llama")
    assert {path.name: path.read_bytes() for path in (trained / "adapter").iterdir()} == before


def test_public_and_a_branch_are_asked_for(trained, hub):
    options = ["--base", "someone/llama", "--public", "--revision", "draft"]
    result = CliRunner().invoke(app, ["push", "owner/judge", "--run", str(trained), *options])
    assert result.exit_code == 0, result.output
    assert hub.url in result.stdout and hub.repos == {"owner/judge": "public"} and hub.branches == ["draft"]


def test_a_base_of_this_machine_must_be_named_as_others_find_it(trained, hub):
    with pytest.raises(RunError, match=r"nobody else has\. Name the same model on the hub with --base"):
        push_judge(trained, "owner/judge")
    assert not hub.repos


@pytest.mark.parametrize(
    ("status", "message"), [(401, "hf auth login"), (403, "may not write to owner/judge"), (500, "the hub refused")]
)
def test_a_refusal_of_the_hub_says_what_to_do(status, message, trained, hub):
    hub.status = status
    with pytest.raises(ModelError, match=message) as caught:
        push_judge(trained, "owner/judge", base="someone/llama")
    assert "hf_secret" not in str(caught.value)


def test_a_hub_that_cannot_be_reached_is_an_error(trained, monkeypatch):
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(ModelError, match="cannot be reached"):
        push_judge(trained, "owner/judge", base="someone/llama")


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (httpx2.ReadTimeout("The read operation timed out"), r"broke off: The read operation timed out\. Nothing was"),
        (httpx2.RemoteProtocolError(""), r"broke off: RemoteProtocolError\. Nothing was published\. Give the same"),
    ],
)
def test_a_connection_that_breaks_off_is_an_error(error, message, trained, hub, monkeypatch):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr(HfApi, "upload_folder", fail)
    with pytest.raises(ModelError, match=message):
        push_judge(trained, "owner/judge", base="someone/llama")


def test_a_file_that_cannot_be_uploaded_is_an_error_with_its_name_and_the_reason(trained, hub):
    answer = hub.answer
    hub.answer = lambda method, *request: (400, {"error": "too large"}) if method == "PUT" else answer(method, *request)
    with pytest.raises(ModelError, match=r"uploading '\w+\.safetensors' to the Hub: .*too large\. Nothing"):
        push_judge(trained, "owner/judge", base="someone/llama")
    assert not hub.files


def test_what_cannot_be_published_is_refused(trained, tiny_llama, hub, tmp_path):
    for repo in ("judge", "a/b/c", "owner/name@main"):
        with pytest.raises(ConfigError, match="write owner/name"):
            push_judge(trained, repo)
    with pytest.raises(ConfigError, match="no model of the hub"):
        push_judge(trained, "owner/judge", base="llama")
    with pytest.raises(RunError, match="no run folder"):
        push_judge(tmp_path, "owner/judge")
    (trained / "adapter/judge.json").unlink()
    with pytest.raises(RunError, match="made by an older adjudge"):
        push_judge(trained, "owner/judge")
    assert not hub.repos


def test_a_run_that_trains_nothing_has_nothing_to_publish(tiny_llama, tmp_path):
    with pytest.raises(RunError, match="trained nothing"):
        push_judge(run_of(tmp_path, "zero-shot", f"model={tiny_llama}"), "owner/judge")


def train_and_push(tmp_path, repo="owner/judge", method="tfidf", **options):
    data = {"data": tmp_path / "reviews.csv", "text": "text", "label": "label"}
    write_reviews(data["data"])
    return adjudge.train(
        method, **data, out=tmp_path / "run", push_to_hub=repo, train_rows=8, evaluation__resamples=100, **options
    )


def test_a_run_is_published_when_it_is_finished(hub, tmp_path, capsys):
    write_reviews(tmp_path / "reviews.csv")
    command = ["train", "tfidf", "--data", str(tmp_path / "reviews.csv"), "--text", "text", "--label", "label"]
    options = ["--out", str(tmp_path / "run"), "--push-to-hub", "owner/judge", "evaluation.resamples=100"]
    result = CliRunner().invoke(app, [*command, *options])
    assert result.exit_code == 0, result.output
    assert f"{hub.url}/owner/judge/commit/" in result.stdout and hub.repos == {"owner/judge": "private"}
    assert {"README.md", "judge.json", "weights.safetensors"} <= set(hub.files)
    hub.files.clear()
    assert train_and_push(tmp_path, force=True).scores["n"] and "judge.json" in hub.files
    assert "published: " in capsys.readouterr().err


@pytest.mark.parametrize(
    ("repo", "attribute", "value", "message"),
    [
        ("judge", "status", 200, "write owner/name"),
        ("owner/judge@main", "status", 200, "write owner/name"),
        ("owner/judge", "status", 401, r"Nothing was trained\. The token is missing"),
        ("owner/judge", "role", "read", "the token may only read"),
        ("stranger/judge", "status", 200, "that of me, which may not write to stranger/judge: .* me or owner"),
    ],
)
def test_what_would_fail_at_the_end_is_refused_before_training(repo, attribute, value, message, hub, tmp_path):
    setattr(hub, attribute, value)
    with pytest.raises((ConfigError, ModelError), match=message) as caught:
        train_and_push(tmp_path, repo)
    assert "hf_secret" not in str(caught.value)
    assert not (tmp_path / "run").exists() and not hub.repos


def test_without_a_token_or_a_hub_nothing_is_trained(hub, tmp_path, monkeypatch):
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "none"))
    with pytest.raises(ModelError, match="hf auth login"):
        train_and_push(tmp_path)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(ModelError, match=r"cannot be reached .*Nothing was trained"):
        train_and_push(tmp_path)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(ModelError, match=r"HF_HUB_OFFLINE.*Nothing was trained"):
        train_and_push(tmp_path)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("method", "setting"), [("sft", "model"), ("head", "model"), ("linear", "linear__model")])
def test_a_base_of_this_machine_is_refused_before_training(method, setting, hub, tiny_llama, tiny_bert, tmp_path):
    base = tiny_bert if method == "linear" else tiny_llama
    with pytest.raises(RunError, match=r"folder of this machine.*adjudge push owner/judge --run DIR --base"):
        train_and_push(tmp_path, method=method, **{setting: str(base)})
    assert not (tmp_path / "run").exists()


def test_an_encoder_under_a_regression_is_named_as_others_find_it(hub, tiny_bert, tmp_path):
    run = run_of(tmp_path, "linear", f"linear.model={tiny_bert}")
    before = answers(adjudge.open_run(run))
    with pytest.raises(RunError, match=r"folder 'bert.*Name the same model on the hub with --base"):
        push_judge(run, "owner/judge")
    push_judge(run, "owner/judge", base="someone/bert")
    assert json.loads(hub.files["judge.json"])["settings"]["linear"]["model"] == "someone/bert"
    for name, body in hub.files.items():
        (tmp_path / "judge").mkdir(exist_ok=True)
        (tmp_path / "judge" / name).write_bytes(body)
    assert answers(adjudge.open_judge(tmp_path / "judge", model=str(tiny_bert))) == before


def test_a_push_that_fails_loses_no_run_and_says_how_to_repeat_it(hub, tmp_path, monkeypatch, capsys):
    def refuse(*_, **__):
        hub.status = 403
        return push_judge(*_, **__)

    monkeypatch.setattr("adjudge.ship.push.push_judge", refuse)
    run = train_and_push(tmp_path)
    assert run.scores["n"] > 0
    said = " ".join(capsys.readouterr().err.split())
    assert "is complete, but was not published: the hub refused" in said
    assert f"adjudge push owner/judge --run {tmp_path / 'run'}" in said
    hub.status = 200
    command = ["train", "tfidf", "--data", str(tmp_path / "reviews.csv"), "--text", "text", "--label", "label"]
    options = ["--out", str(tmp_path / "run"), "--force", "--push-to-hub", "owner/judge", "evaluation.resamples=100"]
    result = CliRunner().invoke(app, [*command, *options])
    assert result.exit_code == 2 and "adjudge push owner/judge" in result.stderr
    assert adjudge.open_run(tmp_path / "run").scores["n"] > 0


def test_a_dropped_upload_says_that_the_run_is_complete_and_how_to_publish_it(hub, tmp_path, monkeypatch, capsys):
    def fail(*_, **__):
        raise httpx2.ReadError("Connection reset by peer")

    monkeypatch.setattr(HfApi, "create_repo", fail)
    assert train_and_push(tmp_path).scores["n"] > 0
    said = " ".join(capsys.readouterr().err.split())
    assert "is complete, but was not published: the hub broke off: Connection reset by peer." in said
    assert f"adjudge push owner/judge --run {tmp_path / 'run'}" in said
