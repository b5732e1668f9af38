"""How rows of concurrent requests are judged together, and what happens at the limits."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import httpx2
import pytest
from processes import wait_for
from serving import FILMS, films, first_word, running
from starlette.testclient import TestClient

from adjudge.errors import ConfigError, RunError
from adjudge.evaluation.api_judge import ApiJudge
from adjudge.ship.serving.app import Server, build_app
from adjudge.ship.serving.judges import ServedJudge, analysis_of, judges_of_run, names_for
from adjudge.ship.serving.limits import Limits
from adjudge.ship.serving.vllm import vllm_command
from adjudge.types import Prediction


class SlowJudge:
    """Holds each batch until it is let go, and remembers the sizes of the batches."""

    def __init__(self):
        self.sizes = []
        self.go = threading.Event()

    def judge(self, examples, *, probabilities=False, title="judging"):
        self.sizes.append(len(examples))
        assert self.go.wait(30)
        return [Prediction.of(each, "", first_word(each), {"bad": 0.5, "good": 0.5}) for each in examples]


def slow(**options):
    judge = SlowJudge()
    return judge, ServedJudge("films", FILMS, judge, run="films", **options)


def classify(client, *texts, **fields):
    return client.post("/v1/classify", json={"texts": list(texts), **fields})


def wait_until(happened):
    wait_for(happened, 20)
    assert happened()


def test_waiting_rows_are_judged_together_and_answers_find_their_request():
    judge, served = slow(batch_size=8)
    with TestClient(build_app([served])) as client, ThreadPoolExecutor(20) as pool:
        first = pool.submit(classify, client, "good 0")
        wait_until(lambda: judge.sizes == [1])
        others = [pool.submit(classify, client, *(["good", "bad"] if n % 2 else ["bad", "so"])) for n in range(10)]
        wait_until(lambda: client.get("/health").json()["waiting_rows"] == 20)
        judge.go.set()
        assert first.result().json()["predictions"][0]["label"] == "good"
        labels = [[each["label"] for each in other.result().json()["predictions"]] for other in others]
    assert labels == [["good", "bad"] if n % 2 else ["bad", None] for n in range(10)]
    assert judge.sizes == [1, 8, 8, 4]


def test_a_full_queue_is_429_and_nothing_accepted_is_lost():
    judge, served = slow(batch_size=4)
    with TestClient(build_app([served], limits=Limits(waiting_rows=6))) as client, ThreadPoolExecutor(4) as pool:
        first = pool.submit(classify, client, "good")
        wait_until(lambda: judge.sizes == [1])
        second = pool.submit(classify, client, *["good"] * 5)
        wait_until(lambda: client.get("/health").json()["waiting_rows"] == 5)
        response = classify(client, "good", "good")
        assert response.status_code == 429
        assert response.headers["retry-after"] == "1"
        assert "at most 6 may" in response.json()["error"]["message"]
        judge.go.set()
        assert first.result().status_code == second.result().status_code == 200


def test_too_many_open_requests_are_429_and_health_still_answers():
    judge, served = slow()
    with TestClient(build_app([served], limits=Limits(open_requests=1))) as client, ThreadPoolExecutor(2) as pool:
        first = pool.submit(classify, client, "good")
        wait_until(lambda: judge.sizes == [1])
        assert classify(client, "good").status_code == 429
        assert client.get("/health").status_code == 200
        judge.go.set()
        assert first.result().status_code == 200


def test_too_much_text_in_all_requests_is_429():
    judge, served = slow()
    limits = Limits(open_bytes=1000)
    with TestClient(build_app([served], limits=limits)) as client, ThreadPoolExecutor(2) as pool:
        first = pool.submit(classify, client, "good " * 150)
        wait_until(lambda: judge.sizes == [1])
        assert classify(client, "good " * 150).json()["error"]["code"] == "too_many_bytes"
        judge.go.set()
        assert first.result().status_code == 200
        assert classify(client, "good " * 150).status_code == 200


def test_an_answer_that_takes_too_long_is_504_and_its_waiting_rows_are_dropped():
    judge, served = slow(batch_size=1)
    with TestClient(build_app([served], limits=Limits(answer_s=0.2))) as client:
        response = classify(client, "good", "good", "good")
        assert response.status_code == 504
        assert "took more than 0.2 s" in response.json()["error"]["message"]
        judge.go.set()
        assert classify(client, "bad").json()["predictions"][0]["label"] == "bad"
    assert judge.sizes == [1, 1]


def test_rows_of_a_client_that_left_are_not_judged():
    judge, served = slow(batch_size=1)
    with running([served]) as url, httpx2.Client(base_url=url) as client, ThreadPoolExecutor(1) as pool:
        first = pool.submit(classify, client, "good")
        wait_until(lambda: judge.sizes == [1])
        with pytest.raises(httpx2.ReadTimeout), httpx2.Client(base_url=url, timeout=0.3) as impatient:
            classify(impatient, "good", "good", "good")
        wait_until(lambda: 'status="499"} 1' in client.get("/metrics").text)
        assert client.get("/health").json()["waiting_rows"] == 0
        judge.go.set()
        assert first.result().status_code == 200
        assert classify(client, "bad").json()["predictions"][0]["label"] == "bad"
    assert judge.sizes == [1, 1]


def test_a_row_that_cannot_be_judged_harms_no_other():
    started = threading.Event()
    held = threading.Event()

    def answer(example):
        text = example.fields["text"]
        if text == "hold":
            started.set()
            assert held.wait(30)
        if text == "odd":
            raise ConfigError("The row does not fit.")
        if text == "broken":
            raise ZeroDivisionError("broken inside")
        return first_word(example)

    with TestClient(build_app([films(answer)])) as client, ThreadPoolExecutor(8) as pool:
        first = pool.submit(classify, client, "hold")
        assert started.wait(20)
        others = [pool.submit(classify, client, text) for text in ("good", "odd", "broken", "bad")]
        wait_until(lambda: client.get("/health").json()["waiting_rows"] == 4)
        held.set()
        first.result()
        statuses = [other.result().status_code for other in others]
        assert statuses == [200, 422, 503, 200]
        assert others[1].result().json()["error"]["message"] == "The row does not fit."
        assert "broken inside" not in others[2].result().text
        assert classify(client, "odd", "good").status_code == 422


def test_requests_over_the_network_are_answered_each_with_its_own():
    texts = [("good" if n % 3 else "bad") + f" film {n}" for n in range(120)]
    with running([films(batch_size=16)]) as url, ThreadPoolExecutor(24) as pool, httpx2.Client(base_url=url) as client:
        labels = list(pool.map(lambda text: classify(client, text).json()["predictions"][0]["label"], texts))
    assert labels == [text.split()[0] for text in texts]


@pytest.mark.parametrize("on_gpu", [True, False])
def test_runs_judge_side_by_side_except_on_a_gpu(on_gpu, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: on_gpu)
    monkeypatch.setattr("torch.cuda.is_initialized", lambda: on_gpu)
    (first, films), (second, books) = slow(), slow()
    books = replace(books, name="books", run="books")
    with TestClient(build_app([films, books])) as client, ThreadPoolExecutor(2) as pool:
        one = pool.submit(classify, client, "good", model="films")
        wait_until(lambda: first.sizes == [1])
        other = pool.submit(classify, client, "bad", model="books")
        if on_gpu:
            wait_until(lambda: client.get("/health").json()["waiting_rows"] == 0)
            time.sleep(0.2)
            assert second.sizes == []
        else:
            wait_until(lambda: second.sizes == [1])
        for judge in (first, second):
            judge.go.set()
        labels = [each.result().json()["predictions"][0]["label"] for each in (one, other)]
    assert labels == ["good", "bad"] and second.sizes == [1]


def test_a_run_that_waits_for_an_api_lets_a_gpu_go_on(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.is_initialized", lambda: True)
    far, served = slow()

    class Asked(ApiJudge):
        def __init__(self):
            pass

        def judge(self, examples, **options):
            return far.judge(examples, **options)

    asked = replace(served, judge=Asked(), name="asked", run="asked")
    with TestClient(build_app([asked, films()])) as client, ThreadPoolExecutor(1) as pool:
        one = pool.submit(classify, client, "good", model="asked")
        wait_until(lambda: far.sizes == [1])
        assert classify(client, "bad", model="films").json()["predictions"][0]["label"] == "bad"
        far.go.set()
        assert one.result().status_code == 200


def test_the_judges_of_a_run_share_a_thread():
    tasks = [replace(films(), name=f"films/{number}") for number in range(3)]
    before = threading.active_count()
    server = Server(tasks, Limits())
    server.start()
    assert threading.active_count() == before + 1
    server.close()
    assert threading.active_count() == before


def test_names_are_as_short_as_tells_the_runs_apart(tmp_path):
    paths = [tmp_path / "a/sft", tmp_path / "b/sft", tmp_path / "reviews"]
    assert names_for(paths[2:]) == ["reviews"]
    assert names_for(paths) == ["a/sft", "b/sft", f"{tmp_path.name}/reviews"]
    with pytest.raises(RunError, match="given twice"):
        names_for([paths[0], paths[1], tmp_path / "b/../a/sft"])


def test_a_run_over_several_tasks_has_a_judge_for_each():
    specs = [FILMS.model_copy(update={"name": name}) for name in ("vader/movies", "vader/news")]
    served = judges_of_run("mix", specs, {spec.name: films().judge for spec in specs})
    assert [(each.name, each.run) for each in served] == [("mix/vader-movies", "mix"), ("mix/vader-news", "mix")]
    assert [each.name for each in judges_of_run("one", specs[:1], {"vader/movies": films().judge})] == ["one"]


def test_the_vllm_command_names_base_adapter_and_rank(tmp_path, monkeypatch):
    assert vllm_command(tmp_path / "adapter", "smollm2-135m", "mine") is None
    (tmp_path / "adapter").mkdir()
    (tmp_path / "adapter/adapter_config.json").write_text('{"r": 20}')
    command = vllm_command(tmp_path / "adapter", "smollm2-135m", "mine")
    assert command == (
        "vllm serve HuggingFaceTB/SmolLM2-135M-Instruct --enable-lora "
        f"--lora-modules mine={tmp_path / 'adapter'} --max-lora-rank 32"
    )
    for model, named in (("owner/name", "owner/name"), ("owner/name@v1", "owner/name --revision v1")):
        assert vllm_command(tmp_path / "adapter", model, "mine").startswith(f"vllm serve {named} --enable-lora ")
    (tmp_path / "owner/name@v1").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert vllm_command(tmp_path / "adapter", "owner/name@v1", "mine").startswith("vllm serve owner/name@v1 --enable")
    (tmp_path / "adapter/adapter_config.json").write_text('{"r": 1000}')
    assert vllm_command(tmp_path / "adapter", "smollm2-135m", "mine") is None


@pytest.mark.parametrize(
    ("where", "text", "analysis"),
    [
        ("before", " A warm </Judgement> film.</Analysis>\n<Judgement> good", "A warm </Judgement> film."),
        (True, " good </Judgement>\n<Analysis> It is </Judgement> warm.</Analysis>", "It is </Judgement> warm."),
        (True, " good </Judgement>\n<Analysis> cut off", "cut off"),
    ],
)
def test_the_analysis_is_known_by_its_place(monkeypatch, where, text, analysis):
    monkeypatch.setattr(ServedJudge, "analysis", where)
    assert analysis_of(films(), Prediction("1", {}, None, text, "good")) == analysis
