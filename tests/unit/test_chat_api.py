"""One request to a model behind an API: what is sent, what comes back, and what is said when it does not."""

import logging

import pytest
from fake_api import fake_api, problem, reply

from adjudge.config import load_config
from adjudge.errors import ConfigError, ModelError
from adjudge.models import chat_api
from adjudge.models.chat_api import ChatApi, Outgoing, announce, check_ready, consent, is_here

KEY = "sk-test-0123456789abcdefghij"
HELLO = {"messages": [{"role": "user", "content": "hello"}]}


@pytest.fixture(autouse=True)
def _key(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.delenv(chat_api.CONSENT, raising=False)


def settings(url="http://127.0.0.1:9/v1", **changes):
    return load_config(values={"api.base_url": url, **{f"api.{name}": value for name, value in changes.items()}}).api


def ask(answer, **changes):
    with fake_api(answer) as api:
        return ChatApi("api:small", settings(api.url, **changes)).ask(HELLO), api


def refusal(answer, **changes):
    with fake_api(answer) as api, pytest.raises((ConfigError, ModelError)) as caught:
        ChatApi("api:small", settings(api.url, retries=1, **changes)).ask(HELLO)
    assert KEY not in str(caught.value) and KEY[:-4] not in str(caught.value)
    return f"{type(caught.value).__name__}: {caught.value}", len(api.bodies)


def test_a_request_and_its_answer():
    answered, api = ask(lambda body, number: reply("good"), options={"reasoning_effort": "low"})
    assert api.bodies == [
        {"path": "/v1/chat/completions", "model": "small", "reasoning_effort": "low", **HELLO},
    ]
    assert api.headers[0]["authorization"] == f"Bearer {KEY}"
    assert answered == chat_api.Reply("good", "stop", 7, 3, "fake-1", "fp", 0)


@pytest.mark.parametrize("status", [429, 500, 503])
def test_it_is_sent_again_after_a_passing_problem(status):
    answered, api = ask(
        lambda body, number: problem(status, retry_after_ms="1") if number < 2 else reply("good"), retries=3
    )
    assert (answered.text, answered.retries, len(api.bodies)) == ("good", 2, 3)


@pytest.mark.parametrize(
    ("answer", "text", "end"),
    [
        (reply("go", finish="length"), "go", "length"),
        (reply("go", finish="content_filter"), "go", "filter"),
        (problem(400, "filtered", code="content_filter"), "", "filter"),
        (reply(None), "", "empty"),
        (reply("  \n"), "  \n", "empty"),
        (reply("good", choices=[]), "", "empty"),
        (reply("good", finish="tool_calls"), "good", "stop"),
    ],
)
def test_answers_that_did_not_end_by_themselves_are_told_apart(answer, text, end):
    answered, _ = ask(lambda body, number: answer)
    assert (answered.text, answered.end) == (text, end)


def test_the_first_choice_is_taken_whatever_their_order():
    choices = [
        {"index": index, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
        for index, text in ((1, "bad"), (0, "good"))
    ]
    assert ask(lambda body, number: reply("", choices=choices))[0].text == "good"


def test_tokens_that_are_not_counted_are_unknown():
    answered, _ = ask(lambda body, number: reply("good", usage=None))
    assert (answered.prompt_tokens, answered.generated_tokens) == (None, None)


@pytest.mark.parametrize(
    ("answer", "message", "requests"),
    [
        (problem(401, f"Incorrect API key: {KEY}"), "refuses the key in OPENAI_API_KEY (401)", 1),
        (problem(403), "refuses the key in OPENAI_API_KEY (403)", 1),
        (problem(404, "no such model"), "knows no model 'small', or is no address of an API (404): no such model", 1),
        (problem(400, f"temperature? {KEY[:-4]}****"), "refuses the request (400): temperature? [key]****", 1),
        (problem(429, "slow down", retry_after_ms="1"), "answered 429 after 1 retries: slow down", 2),
        (problem(500, KEY, retry_after_ms="1"), "answered 500 after 1 retries: [key]", 2),
        ((200, {}, b"<html>a proxy</html>"), "something that is no chat completion: <html>a proxy", 1),
        ((200, {}, {"error": {"message": "upstream"}}), "something that is no chat completion", 1),
    ],
)
def test_problems_are_explained_without_the_key(answer, message, requests):
    said, sent = refusal(lambda body, number: answer)
    assert message in said
    assert sent == requests


def test_no_answer_at_all():
    with pytest.raises(ModelError, match=r"http://127.0.0.1:9/v1 cannot be reached, after 0 retries"):
        ChatApi("api:small", settings(retries=0)).ask(HELLO)


def test_an_answer_that_takes_too_long():
    def slow(body, number):
        import time

        time.sleep(0.4)
        return reply("good")

    said, _ = refusal(slow, timeout_s=0.1)
    assert "did not answer in time" in said


def test_the_key_is_in_no_answer_and_no_log(caplog, capsys):
    caplog.set_level(logging.DEBUG)
    answered, _ = ask(lambda body, number: reply(f"your key is {KEY}", model=KEY))
    assert (answered.text, answered.model) == ("your key is [key]", "[key]")
    assert KEY not in caplog.text + "".join(capsys.readouterr())


def test_what_keeps_an_api_from_being_asked(monkeypatch):
    check_ready("api:small", settings())
    with pytest.raises(ConfigError, match="'api:' names no model"):
        check_ready("api: ", settings())
    monkeypatch.delenv("OPENAI_API_KEY")
    check_ready("api:small", settings())  # on this machine a key is not needed
    elsewhere = settings("https://example.org/v1")
    with pytest.raises(ConfigError, match=r"needs a key for https://example.org/v1: .* variable OPENAI_API_KEY"):
        check_ready("api:small", elsewhere)
    monkeypatch.setenv("OPENAI_API_KEY", "two\nlines")
    with pytest.raises(ConfigError, match="OPENAI_API_KEY holds characters that no key has"):
        check_ready("api:small", elsewhere)
    monkeypatch.setenv("OPENAI_API_KEY", f" {KEY}\n")
    check_ready("api:small", elsewhere)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    check_ready("api:small", settings())
    with pytest.raises(ConfigError, match=r"HF_HUB_OFFLINE is set, so nothing is sent to https://example.org/v1"):
        check_ready("api:small", elsewhere)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"pip install 'adjudge\[api\]'"):
        check_ready("api:small", settings())


def test_nothing_is_sent_without_consent_and_number_and_price_are_said(capsys):
    going = Outgoing(200, 52_000, 8_600) + Outgoing(50, 13_000, 2_150)
    config = settings(price_read=2.0, price_written=8.0)
    with pytest.raises(ConfigError) as caught:
        announce(going, "api:small", config)
    said = (
        "250 rows go to http://127.0.0.1:9/v1 (api:small): about 16,250 prompt tokens, at most 10,750 generated; "
        "price about 0.12"
    )
    assert str(caught.value) == f"{said}.\nNothing was sent. Add --send-rows if they may leave this machine."
    with consent():
        announce(going, "api:small", config)
    assert said in capsys.readouterr().err
    with consent(False), pytest.raises(ConfigError, match=r"price unknown \(api.price_read, api.price_written\)"):
        announce(going, "api:small", settings())


def test_keys_on_an_open_line_are_warned_of(capsys):
    with consent():
        announce(Outgoing(1, 1, 1), "api:small", settings("http://example.org/v1"))
    assert "is not encrypted" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("url", "here"),
    [
        ("http://127.0.0.1:8000/v1", True),
        ("http://[::1]/v1", True),
        ("http://localhost/v1", True),
        ("http://localhost.example.org/v1", False),
        ("http://127.0.0.1.example.org/v1", False),
        ("http://10.0.0.1/v1", False),
    ],
)
def test_addresses_of_this_machine(url, here):
    assert is_here(url) == here


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        (f"api.key_variable={KEY}", "'api.key_variable': Value error, write the name"),
        (f"api.base_url=https://user:{KEY}@example.org", "an address with a password"),
        (f"api.base_url=https://example.org/v1?key={KEY}", "an address with a password or a query"),
        ("api.base_url=example.org", "write an address such as"),
        ("api.base_url=http://example.org:99999/v1", "write an address such as"),
        (f"api.options.api_key={KEY}", "a key is never a setting"),
        ("api.options.messages=x", "'messages' is sent by adjudge itself"),
        (f"api.key={KEY}", "'api.key' is no setting. Did you mean 'api.key_variable'?"),
    ],
)
def test_settings_hold_no_key_and_repeat_none(setting, message):
    with pytest.raises(ConfigError) as caught:
        load_config(overrides=[setting])
    assert message in str(caught.value)
    assert KEY not in str(caught.value)
