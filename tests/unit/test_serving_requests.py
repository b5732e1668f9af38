"""What a server answers to requests: its own form, OpenAI's forms, the page, errors."""

import json

import pytest
from fake_method import FakeJudge
from serving import all_judges, films
from starlette.testclient import TestClient

from adjudge.evaluation.abstention import Decision
from adjudge.ship.serving.app import build_app
from adjudge.ship.serving.limits import Limits

HIT, MISS = "good plot and a very good film", "bad plot"
SMALL = Limits(body_bytes=20_000, rows=8)


@pytest.fixture(scope="module")
def client():
    with TestClient(build_app(all_judges(), limits=SMALL), raise_server_exceptions=False) as client:
        yield client


@pytest.fixture(scope="module")
def single():
    with TestClient(build_app([films()])) as client:
        yield client


def refused(response, status):
    """Return the message of an error, which must have this status and OpenAI's form."""
    assert response.status_code == status, response.text
    error = response.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    return error["message"]


def test_texts_are_judged_in_their_order(single):
    answer = single.post("/v1/classify", json={"texts": [HIT, MISS, "so so"]}).json()
    assert set(answer) == {"predictions", "model", "latency_ms"}
    assert answer["model"] == "films"
    assert answer["latency_ms"] >= 0
    assert answer["predictions"] == [
        {"label": "good", "probabilities": {"bad": 0.5, "good": 0.5}, "abstained": False, "unreadable": False},
        {"label": "bad", "probabilities": {"bad": 0.5, "good": 0.5}, "abstained": False, "unreadable": False},
        {"label": None, "probabilities": {"bad": 0.5, "good": 0.5}, "abstained": False, "unreadable": True},
    ]


def test_rows_name_their_fields_or_columns(client):
    rows = [{"first": "a", "second": "a"}, {"sentence1": "a", "sentence2": "b"}, {"first": "a"}]
    answer = client.post("/v1/classify", json={"rows": rows, "model": "pairs"}).json()
    assert [each["label"] for each in answer["predictions"]] == ["Yes", "No", "No"]


def test_a_calibrated_judge_holds_doubtful_answers_back(monkeypatch):
    monkeypatch.setattr(FakeJudge, "sure", 0.99)
    minimum = {"good": 0.9, "bad": 0.8}
    judge = films(temperature=2.361, decision=Decision(minimum=minimum))
    with TestClient(build_app([judge])) as client:
        held, given, odd = client.post("/v1/classify", json={"texts": [HIT, MISS, "so so"]}).json()["predictions"]
        chat = client.post("/v1/chat/completions", json={"messages": [{"role": "user", "content": HIT}]}).json()
        (listed,) = client.get("/v1/models").json()["data"]
        unreadable = 'adjudge_unreadable_total{model="films"} 1'
        assert unreadable in client.get("/metrics").text
    assert held["probabilities"]["good"] == pytest.approx(0.875, abs=0.001)
    assert (held["label"], held["abstained"], held["unreadable"]) == (None, True, False)
    assert (given["label"], given["abstained"], given["unreadable"]) == ("bad", False, False)
    assert (odd["label"], odd["abstained"], odd["unreadable"]) == (None, False, True)
    message = chat["choices"][0]["message"]
    assert message["content"] == "" and "not sure enough" in message["refusal"]
    assert (listed["calibrated"], listed["abstains"]) == (True, True)


def test_number_tasks_answer_with_a_number(client):
    answer = client.post("/v1/classify", json={"texts": ["four", "too long"], "model": "stars"}).json()
    fields = {"label": None, "probabilities": {}, "abstained": False}
    assert answer["predictions"] == [
        {**fields, "number": 4.0, "unreadable": False},
        {**fields, "number": None, "unreadable": True},
    ]


NEEDED = '"rows": [{"first": "…", "second": "…"}]'


@pytest.mark.parametrize(
    ("body", "status", "message"),
    [
        ({}, 422, 'Several judges are served: say which with "model": "films", "stars", "pairs".'),
        ({"model": "filsm", "texts": ["a"]}, 404, "There is no model 'filsm'. Did you mean 'films'?"),
        ({"model": 3, "texts": ["a"]}, 422, '"model" is a number; it must be a text'),
        ({"model": "films"}, 422, 'Send either "texts": ["…"] or "rows": [{"text": "…"}].'),
        ({"model": "films", "texts": ["a"], "rows": []}, 422, "Send either"),
        ({"model": "films", "text": ["a"]}, 422, "There is no field 'text' here. Did you mean 'texts'?"),
        ({"model": "films", "texts": []}, 422, '"texts" is an empty list'),
        ({"model": "films", "texts": "a"}, 422, '"texts" is a text; send a list'),
        ({"model": "films", "texts": {"a": 1}}, 422, '"texts" is an object'),
        ({"model": "films", "texts": ["a", 3]}, 422, "texts[1] is a number; it must be a text."),
        ({"model": "films", "texts": ["a", None]}, 422, "texts[1] is null"),
        ({"model": "films", "texts": [["a"]]}, 422, "texts[0] is a list"),
        ({"model": "films", "texts": [" \u3000\n"]}, 422, "texts[0] is empty"),
        ({"model": "films", "texts": ["a\0b"]}, 422, "texts[0] holds the character NUL (\\u0000): remove it."),
        ({"model": "films", "texts": ["a\ud800b"]}, 422, "texts[0] holds half a surrogate pair"),
        ({"model": "films", "rows": [{"text": "a"}, "b"]}, 422, "rows[1] is a text; send an object"),
        ({"model": "films", "rows": [{"txt": "a"}]}, 422, "rows[0]: there is no field 'txt'. Did you mean 'text'?"),
        ({"model": "films", "rows": [{"text": True}]}, 422, "rows[0].text is a truth value"),
        ({"model": "films", "texts": ["a"] * 9}, 413, "at most 8 per request"),
        ({"model": "pairs", "texts": ["a"]}, 422, f"pairs has the fields first, second: send {NEEDED}."),
        ({"model": "pairs", "rows": [{"second": "a"}]}, 422, f"rows[0]: there is no field 'first'. Send {NEEDED}."),
        (
            {"model": "pairs", "rows": [{"first": "a", "sentence1": "b"}]},
            422,
            "rows[0]: the field 'first' is there twice.",
        ),
    ],
)
def test_what_does_not_fit_is_named(client, body, status, message):
    content = json.dumps(body)
    assert message in refused(client.post("/v1/classify", content=content, headers=JSON), status)


JSON = {"Content-Type": "application/json"}


@pytest.mark.parametrize(
    ("content", "status", "message"),
    [
        (b"", 400, "The body is not JSON: Expecting value, line 1, column 1."),
        (b'{"texts": ["a"]', 400, "not JSON"),
        (b'["a"]', 400, "The body is a list. Send a JSON object"),
        (b"null", 400, "The body is null"),
        (b'{"texts": ["\xff"]}', 400, "not UTF-8: byte 12"),
        ('{"texts": ["a"]}'.encode("utf-16"), 400, "not UTF-8"),
        (b'{"texts": ["a"], "texts": ["b"]}', 400, "field 'texts' twice"),
        (b'{"texts": [NaN]}', 400, "NaN is not JSON"),
        (b'{"n": ' + b"9" * 10_000 + b"}", 400, "Send a JSON object"),
        (b"[" * 9_000, 400, "nested too deeply"),
        (b'{"a":' * 3_000 + b"1" + b"}" * 3_000, 400, "nested too deeply"),
        (b'{"texts": ["\n"]}', 400, "control character"),
        (b'{"texts": ["' + b"a" * 20_000 + b'"]}', 413, "more than 20,000 bytes"),
    ],
)
def test_bodies_that_cannot_be_read(client, content, status, message):
    assert message in refused(client.post("/v1/classify", content=content, headers=JSON), status)


def test_a_byte_order_mark_is_allowed(single):
    body = b'\xef\xbb\xbf{"texts": ["good"]}'
    assert single.post("/v1/classify", content=body, headers=JSON).json()["predictions"][0]["label"] == "good"


def test_only_json_is_read_so_that_other_sites_cannot_send_rows(single):
    message = refused(
        single.post("/v1/classify", content='{"texts": ["a"]}', headers={"Content-Type": "text/plain"}), 415
    )
    assert "Content-Type: application/json" in message


def ask_chat(client, **changes):
    body = {"model": "films", "messages": [{"role": "user", "content": HIT}], **changes}
    return client.post("/v1/chat/completions", json=body)


def test_chat_answers_with_the_label(client):
    answer = ask_chat(client, temperature=0, max_tokens=4, seed=1).json()
    assert answer["object"] == "chat.completion"
    assert answer["model"] == "films"
    (choice,) = answer["choices"]
    assert choice == {
        "index": 0,
        "message": {"role": "assistant", "content": "good", "refusal": None},
        "logprobs": None,
        "finish_reason": "stop",
    }
    assert set(answer["usage"]) == {"prompt_tokens", "completion_tokens", "total_tokens"}


def test_chat_reads_the_last_user_message_and_its_parts(client):
    messages = [
        {"role": "system", "content": "You judge films."},
        {"role": "user", "content": "good"},
        {"role": "assistant", "content": "good"},
        {"role": "user", "content": [{"type": "text", "text": "bad "}, {"type": "text", "text": "film"}]},
    ]
    assert ask_chat(client, messages=messages).json()["choices"][0]["message"]["content"] == "bad"


def test_chat_gives_logprobs_of_the_label_words(client):
    answer = ask_chat(client, logprobs=True, top_logprobs=5).json()
    (token,) = answer["choices"][0]["logprobs"]["content"]
    assert (token["token"], token["bytes"]) == ("good", list(b"good"))
    assert token["logprob"] == pytest.approx(-0.6931, abs=1e-4)
    assert {each["token"] for each in token["top_logprobs"]} == {"good", "bad"}


def test_an_unreadable_answer_is_empty_with_a_refusal(client):
    answer = ask_chat(client, messages=[{"role": "user", "content": "so so"}], logprobs=True).json()
    message = answer["choices"][0]["message"]
    assert message["content"] == ""
    assert "unreadable" in message["refusal"]
    assert answer["choices"][0]["logprobs"]["content"] == []


def test_tasks_with_several_fields_take_a_json_object_as_text(client):
    text = json.dumps({"first": "a", "second": "a"})
    answer = ask_chat(client, model="pairs", messages=[{"role": "user", "content": text}]).json()
    assert answer["choices"][0]["message"]["content"] == "Yes"
    message = refused(ask_chat(client, model="pairs"), 422)
    assert 'messages[0].content must be a JSON object, {"first": "…", "second": "…"}' in message


def test_numbers_are_written_with_the_decimals_of_the_task(client):
    answer = ask_chat(client, model="stars", messages=[{"role": "user", "content": "abc"}]).json()
    assert answer["choices"][0]["message"]["content"] == "3.0"
    assert "numbers, which have no logprobs" in refused(ask_chat(client, model="stars", logprobs=True), 422)


def stream_of(response):
    assert response.headers["content-type"].startswith("text/event-stream")
    events = [line.removeprefix("data: ") for line in response.text.split("\n\n") if line]
    assert events.pop() == "[DONE]"
    return [json.loads(event) for event in events]


def test_streams_are_events(client):
    chunks = stream_of(ask_chat(client, stream=True, stream_options={"include_usage": True}))
    assert {chunk["object"] for chunk in chunks} == {"chat.completion.chunk"}
    assert chunks[0]["choices"][0]["delta"]["content"] == "good"
    assert chunks[1]["choices"][0]["finish_reason"] == "stop"
    assert chunks[2]["choices"] == []
    assert "usage" in chunks[2]
    body = {"model": "films", "prompt": [HIT, MISS], "stream": True}
    texts = stream_of(client.post("/v1/completions", json=body))
    assert [chunk["choices"][0]["text"] for chunk in texts] == ["good", "", "bad", ""]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"messages": "good"}, '"messages" must be a list'),
        ({"messages": []}, '"messages" must be a list'),
        ({"messages": ["good"]}, "messages[0] is a text"),
        ({"messages": [{"role": "judge", "content": "a"}]}, 'messages[0]: "role" must be one of'),
        ({"messages": [{"role": "system", "content": "a"}]}, 'no message with "role": "user"'),
        ({"messages": [{"role": "user"}]}, "messages[0].content is null"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "a judge reads only text"),
        ({"messages": [{"role": "user", "content": "\0"}]}, "NUL"),
        ({"n": 2}, '"n" must be 1'),
        ({"n": True}, '"n" must be 1'),
        ({"tools": [{}]}, '"tools" must be []'),
        ({"response_format": {"type": "json_object"}}, '"response_format" must be {"type": "text"}'),
        ({"temperature": "hot"}, '"temperature" is a text'),
        ({"temprature": 1}, "Did you mean 'temperature'?"),
        ({"stream": 1}, '"stream" must be true or false'),
        ({"logprobs": 1}, '"logprobs" must be true or false'),
        ({"logprobs": {}}, '"logprobs" must be true or false'),
        ({"top_logprobs": 2}, '"top_logprobs" needs "logprobs": true'),
        ({"logprobs": True, "top_logprobs": 21}, "from 0 to 20"),
        ({"logprobs": True, "top_logprobs": True}, "from 0 to 20"),
    ],
)
def test_what_a_judge_does_not_do_is_refused(client, changes, message):
    assert message in refused(ask_chat(client, **changes), 422)


def test_completions_have_one_choice_per_prompt(client):
    body = {"model": "films", "prompt": [HIT, MISS], "logprobs": 1, "max_tokens": 5}
    answer = client.post("/v1/completions", json=body).json()
    assert answer["object"] == "text_completion"
    assert [choice["text"] for choice in answer["choices"]] == ["good", "bad"]
    logprobs = answer["choices"][0]["logprobs"]
    assert logprobs["tokens"] == ["good"]
    assert len(logprobs["top_logprobs"][0]) == 1
    one = client.post("/v1/completions", json={"model": "films", "prompt": MISS}).json()
    assert (one["choices"][0]["text"], one["choices"][0]["logprobs"]) == ("bad", None)


@pytest.mark.parametrize("prompt", [None, 3, [], [1, 2], [["a"]]])
def test_prompts_are_texts(client, prompt):
    response = client.post("/v1/completions", json={"model": "films", "prompt": prompt})
    assert '"prompt" must be a text or a list of texts' in refused(response, 422)


def test_models_are_listed_with_their_tasks(client):
    data = client.get("/v1/models").json()["data"]
    assert [each["id"] for each in data] == ["films", "stars", "pairs"]
    assert (data[0]["labels"], data[1]["number"]["high"], list(data[2]["fields"])) == (
        ["bad", "good"],
        5,
        ["first", "second"],
    )
    assert client.get("/v1/models/stars").json() == data[1]
    assert "no model 'star'" in refused(client.get("/v1/models/star"), 404)


def test_other_addresses_and_methods_are_errors_in_json(client):
    assert "POST rows to /v1/classify" in refused(client.get("/v1/judge"), 404)
    response = client.get("/v1/classify")
    assert "This address takes POST" in refused(response, 405)
    assert response.headers["allow"] == "POST"


def test_no_other_site_may_read_an_answer(client):
    for response in (
        client.get("/v1/models", headers={"Origin": "https://example.org"}),
        client.options("/v1/classify", headers={"Origin": "https://example.org"}),
    ):
        assert not [name for name in response.headers if name.startswith("access-control")]
        assert response.headers["x-content-type-options"] == "nosniff"
        assert "default-src 'none'" in response.headers["content-security-policy"]


def test_the_page_comes_from_the_server_alone(client):
    for path, kind in {"/": "text/html", "/page.js": "text/javascript", "/csv.js": "text/javascript"}.items():
        response = client.get(path)
        assert response.headers["content-type"].startswith(kind)
        assert "http://" not in response.text
        assert "https://" not in response.text


def test_a_key_is_asked_of_all_but_the_page_and_health():
    with TestClient(build_app([films()], key="sésame")) as client:
        bearer = "Bearer sésame".encode()
        for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "Basic sesame"}):
            response = client.post("/v1/classify", json={"texts": ["a"]}, headers=headers)
            assert "ADJUDGE_API_KEY" in refused(response, 401)
            assert response.headers["www-authenticate"] == "Bearer"
        for path in ("/v1/models", "/metrics"):
            assert client.get(path).status_code == 401
            assert client.get(path, headers={"Authorization": bearer}).status_code == 200
        for path in ("/", "/page.js", "/page.css", "/health"):
            assert client.get(path).status_code == 200


def test_figures_are_counted_by_route_and_model(single):
    single.post("/v1/classify", json={"texts": ["good", "so so"]})
    single.post("/v1/classify", json={})
    single.get("/nowhere/1")
    text = single.get("/metrics").text
    figures = dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
    assert int(figures['adjudge_requests_total{route="/v1/classify",status="200"}']) >= 1
    assert int(figures['adjudge_requests_total{route="/v1/classify",status="422"}']) >= 1
    assert figures['adjudge_requests_total{route="other",status="404"}'] == "1"
    assert int(figures['adjudge_unreadable_total{model="films"}']) >= 1
    assert figures['adjudge_waiting_rows{model="films"}'] == "0"
    count = figures['adjudge_request_seconds_count{route="/v1/classify"}']
    assert figures['adjudge_request_seconds_bucket{route="/v1/classify",le="+Inf"}'] == count
    assert "nowhere" not in text
