"""`adjudge serve` as users run it: a process, a trained run, clients over the network, signals."""

import os
import re
import signal
import socket
from concurrent.futures import ThreadPoolExecutor

import httpx2 as httpx
import openai
import pytest
from fake_method import write_reviews
from processes import adjudge, start, wait_for

from adjudge.experiments.evaluate import load_judge
from adjudge.types import Example

WORDS = ["good", "bad", "film", "the", "a", "very", "plot", "and", "warm", "dull", "slow", "funny", "scene", "nobody"]
TEXTS = [" ".join(WORDS[(n * step) % len(WORDS)] for step in range(1, 2 + n % 23)) + f" {n}" for n in range(200)]


@pytest.fixture(scope="module")
def run(tmp_path_factory, able):
    folder = tmp_path_factory.mktemp("served")
    table = write_reviews(folder / "reviews.csv")
    columns = ["--data", table, "--text", "text", "--label", "label", "--model", able]
    settings = ["sft.epochs=4", "runtime.dtype=float32", "runtime.threads=1", "evaluation.resamples=100"]
    adjudge("train", "sft", *columns, *settings, "--train-rows", "16", "--out", folder / "reviews")
    return folder / "reviews"


def address_of(process):
    """Return the address once the server prints it."""
    wait_for(lambda: "serving at" in process.stderr or not process.running, 120)
    found = re.search(r"serving at (http://[\d.:]+)", process.stderr)
    assert found, process.stderr
    return found[1]


@pytest.fixture(scope="module")
def url(run):
    with start("serve", "--run", run, "--port", "0") as process:
        yield address_of(process)
        process.signal(signal.SIGTERM)
        finished = process.wait(60)
        assert finished.returncode == 0, finished.stderr
        assert "every accepted request was answered" in finished.stderr
        assert f"--lora-modules reviews={run}/adapter --max-lora-rank 16" in finished.stderr.replace("\n", "")


def own_answers(run):
    _, _, judge = load_judge(run)
    return judge.judge([Example(str(n), {"text": text}) for n, text in enumerate(TEXTS)], probabilities=True)


def test_served_answers_are_those_of_the_run_however_they_are_batched(run, url):
    own = own_answers(run)
    assert len({each.value for each in own}) > 1
    sizes = [1] * 50 + [2, 7, 64, 77]
    starts = [sum(sizes[:index]) for index in range(len(sizes))]
    with httpx.Client(base_url=url, timeout=60) as client, ThreadPoolExecutor(16) as pool:

        def classify(begin, size):
            return client.post("/v1/classify", json={"texts": TEXTS[begin : begin + size]}).json()["predictions"]

        served = [each for part in pool.map(classify, starts, sizes) for each in part]
    assert len(served) == 200
    assert [each["label"] for each in served] == [each.value for each in own]
    for ours, theirs in zip(own, served, strict=True):
        assert theirs["probabilities"] == pytest.approx(dict(ours.probabilities), abs=1e-5)


def test_the_client_of_openai_reads_the_answers(run, url):
    own = own_answers(run)
    row = next(index for index, each in enumerate(own) if each.value is not None)
    with openai.OpenAI(base_url=f"{url}/v1", api_key="none") as client:
        (model,) = client.models.list().data
        messages = [{"role": "user", "content": TEXTS[row]}]
        answer = client.chat.completions.create(model=model.id, messages=messages, logprobs=True, top_logprobs=2)
        assert answer.choices[0].message.content == own[row].value
        (token,) = answer.choices[0].logprobs.content
        assert token.token == own[row].value
        assert len(token.top_logprobs) == 2
        assert answer.usage.prompt_tokens > 20
        assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens
        chunks = list(client.chat.completions.create(model=model.id, messages=messages, stream=True))
        assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == own[row].value
        completion = client.completions.create(model=model.id, prompt=TEXTS[row], logprobs=2)
        assert completion.choices[0].text == own[row].value
        with pytest.raises(openai.NotFoundError, match="Did you mean 'reviews'"):
            client.chat.completions.create(model="reveiws", messages=messages)


@pytest.mark.skipif(os.name == "nt", reason="signals")
def test_a_signal_loses_no_accepted_request(run):
    """Clients work in a circle while the server is told to stop; each request is answered or not accepted."""
    answered, refused = [], []

    def work(client_number):
        with httpx.Client(base_url=url, timeout=60) as client:
            for number in range(2000):
                texts = TEXTS[(client_number + number) % 150 :][:16]
                try:
                    response = client.post("/v1/classify", json={"texts": texts})
                except httpx.ConnectError:
                    refused.append(client_number)
                    return
                assert response.status_code == 200, response.text
                assert len(response.json()["predictions"]) == 16
                answered.append(client_number)

    with start("serve", "--run", run, "--port", "0") as process, ThreadPoolExecutor(8) as pool:
        url = address_of(process)
        clients = [pool.submit(work, number) for number in range(8)]
        wait_for(lambda: len(answered) >= 24, 60)
        process.signal(signal.SIGTERM)
        for client in clients:
            client.result()
        finished = process.wait(60)
    assert finished.returncode == 0, finished.stderr
    assert len(refused) == 8
    assert len(answered) >= 24


def test_what_cannot_be_served_is_said_before_a_model_is_loaded(run, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert f"port {port}: Address already in use" in adjudge("serve", "--run", run, "--port", port, code=2).stderr
    assert "no run folder" in adjudge("serve", "--run", tmp_path / "none", "--port", "0", code=2).stderr
    assert "given twice" in adjudge("serve", "--run", run, "--run", run, "--port", "0", code=2).stderr
    message = adjudge("serve", "--run", run, "--port", "0", code=2, ADJUDGE_API_KEY="").stderr
    assert "ADJUDGE_API_KEY is set but empty" in message
