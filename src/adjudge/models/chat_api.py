"""A model behind an API in OpenAI's form: one request at a time, and what may keep it from being sent.

The key comes from the environment and is in no message, file or error. Prompts leave this machine only with the user's
consent (`--send-rows`), which is never read from a file: a run folder of somebody else could name any address.
The client is the `openai` package, of which only `chat.completions.create` is used. Imports no torch.
"""

from __future__ import annotations

import importlib.util
import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import ip_address
from typing import Any, Literal
from urllib.parse import urlsplit

from adjudge.config import ApiConfig
from adjudge.config.writing import OPENAI
from adjudge.errors import ConfigError, ModelError
from adjudge.system.console import note, warn
from adjudge.system.text import shorten

PREFIX = "api:"
CONSENT = "ADJUDGE_SEND_ROWS"
"""Environment variable with the consent that rows leave this machine: the processes of a comparison inherit it."""

End = Literal["stop", "length", "filter", "empty"]
"""How an answer ended: by itself, at the limit of tokens, by a content filter, or before it began."""

CHARACTERS_PER_TOKEN = 4
"""A rule of thumb for prompts whose tokens cannot be counted here."""

_SHORTEST_SECRET = 8
"""A shorter key may be a word of an answer, so it is only taken out of errors."""

_WITHOUT_KEY = "none"
"""Sent as the key to an API on this machine, when there is none."""


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer of the API. Tokens are as the API counts them, None when it does not say."""

    text: str
    end: End
    prompt_tokens: int | None
    generated_tokens: int | None
    model: str = ""
    """The model that the API says answered."""
    fingerprint: str = ""
    retries: int = 0


@dataclass(frozen=True, slots=True)
class Outgoing:
    """Requests about to be sent: how many, the characters of their prompts, and the tokens they may get."""

    requests: int
    characters: int
    most_generated: int

    def __add__(self, other: Outgoing) -> Outgoing:
        return Outgoing(
            self.requests + other.requests,
            self.characters + other.characters,
            self.most_generated + other.most_generated,
        )


def is_api(name: str | None) -> bool:
    """Return whether the name of a model means one behind an API."""
    return name is not None and name.startswith(PREFIX)


def api_name(name: str) -> str:
    """Return the name by which the API knows the model. Raises ConfigError when it is empty."""
    bare = name.removeprefix(PREFIX).strip()
    if not bare:
        raise ConfigError("'api:' names no model: write api:NAME with the name that the API knows.")
    return bare


def is_here(url: str) -> bool:
    """Return whether an address is this machine's own (loopback)."""
    host = urlsplit(url).hostname or ""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


@contextmanager
def consent(given: bool = True) -> Iterator[None]:
    """Let rows leave this machine within this block, if `given`."""
    before = os.environ.get(CONSENT)
    if given:
        os.environ[CONSENT] = "1"
    try:
        yield
    finally:
        if before is None:
            os.environ.pop(CONSENT, None)
        else:
            os.environ[CONSENT] = before


def has_consent() -> bool:
    """Return whether rows may leave this machine."""
    return os.environ.get(CONSENT) == "1"


def check_ready(name: str, config: ApiConfig) -> None:
    """Raise ConfigError for an API that could not be asked: no client, no network wanted, or no key."""
    api_name(name)
    if importlib.util.find_spec("openai") is None:
        raise ConfigError(f"{name} needs the openai package, which is not installed: pip install 'adjudge[api]'.")
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE and not is_here(config.base_url):
        raise ConfigError(
            f"HF_HUB_OFFLINE is set, so nothing is sent to {config.base_url}. Unset it, or use a model on this machine."
        )
    key = _key(config)
    if key is None and not is_here(config.base_url):
        raise ConfigError(
            f"{name} needs a key for {config.base_url}: put it into the environment variable {config.key_variable} "
            "(api.key_variable names another)."
        )
    if key is not None and not (key.isascii() and key.isprintable()):
        raise ConfigError(f"{config.key_variable} holds characters that no key has. Set it again.")


def cost(read: int, written: int, config: ApiConfig) -> float | None:
    """Return what these tokens cost by the prices in the settings; None when a price is not set."""
    if config.price_read is None or config.price_written is None:
        return None
    return (read * config.price_read + written * config.price_written) / 1e6


def announce(outgoing: Outgoing, name: str, config: ApiConfig, what: str = "rows") -> None:
    """Say what is about to leave this machine, where to, and what it may cost.

    Raises what `check_consent` raises.
    """
    check_consent(outgoing, name, config, what)
    note(outgoing_line(outgoing, name, config, what))
    if config.base_url.startswith("http:") and not is_here(config.base_url):
        warn(f"{config.base_url} is not encrypted: others on the way can read key and rows. Use https.")


def check_consent(outgoing: Outgoing, name: str, config: ApiConfig, what: str = "rows") -> None:
    """Raise ConfigError without the user's consent to send this, and what `check_ready` raises."""
    check_ready(name, config)
    if not has_consent():
        line = outgoing_line(outgoing, name, config, what)
        raise ConfigError(f"{line}.\nNothing was sent. Add --send-rows if they may leave this machine.")


def outgoing_line(outgoing: Outgoing, name: str, config: ApiConfig, what: str = "rows") -> str:
    """Return ``200 rows go to URL (api:NAME): about 13,000 prompt tokens, …; price about 0.03``."""
    read, written = outgoing.characters // CHARACTERS_PER_TOKEN, outgoing.most_generated
    price = cost(read, written, config)
    known = "price unknown (api.price_read, api.price_written)" if price is None else f"price about {price:.2g}"
    return (
        f"{outgoing.requests:,} {what} go to {config.base_url} ({name}): about {read:,} prompt tokens, "
        f"at most {written:,} generated; {known}"
    )


class ChatApi:
    """One model of one API. Several threads may ask it at the same time."""

    def __init__(self, name: str, config: ApiConfig) -> None:
        self.name, self.config = name, config
        self._client: Any = None
        self._lock = threading.Lock()

    def ask(self, body: Mapping[str, Any]) -> Reply:
        """Send one request and return the answer.

        Sent again after 429, 5xx, timeouts and lost connections, as often as `api.retries` says. Raises ConfigError for
        a key that is refused, and ModelError for whatever else the API refuses or does not answer.
        """
        import openai

        extra = dict(self.config.options)
        try:
            raw = self._connected().chat.completions.with_raw_response.create(
                model=api_name(self.name), **body, **({"extra_body": extra} if extra else {})
            )
            completion = raw.parse()
        except openai.APIStatusError as error:
            if error.code == "content_filter":
                return Reply("", "filter", None, None)
            raise self._refused(error) from None
        except openai.APIConnectionError as error:
            reason = "did not answer in time" if isinstance(error, openai.APITimeoutError) else "cannot be reached"
            raise ModelError(
                f"{self.config.base_url} {reason}, after {self.config.retries} retries ({self._said(error)}). "
                f"{_GOES_ON}"
            ) from None
        except (openai.OpenAIError, ValueError) as error:
            raise self._odd(str(error)) from None
        return self._reply(completion, int(getattr(raw, "retries_taken", 0)))

    def _reply(self, completion: Any, retries: int) -> Reply:
        choices = getattr(completion, "choices", None)
        if not isinstance(choices, list):
            raise self._odd(
                completion if isinstance(completion, str) else str(getattr(completion, "error", completion))
            )
        usage = getattr(completion, "usage", None)
        counted = (getattr(usage, "prompt_tokens", None), getattr(usage, "completion_tokens", None))
        model, fingerprint = (
            self._without_key(str(getattr(completion, name, "") or "")) for name in ("model", "system_fingerprint")
        )
        choice = next((each for each in choices if getattr(each, "index", 0) == 0), choices[0] if choices else None)
        content = getattr(getattr(choice, "message", None), "content", None)
        text = content if isinstance(content, str) else ""
        ends: dict[Any, End] = {"length": "length", "content_filter": "filter"}
        end = ends.get(getattr(choice, "finish_reason", None), "stop" if text.strip() else "empty")
        return Reply(self._without_key(text), end, *counted, model, fingerprint, retries)

    def _connected(self) -> Any:
        """Return the client, made at the first request: a process may have been forked before."""
        import openai

        with self._lock:
            if self._client is None:
                self._client = openai.OpenAI(
                    api_key=_key(self.config) or _WITHOUT_KEY,
                    base_url=self.config.base_url,
                    timeout=self.config.timeout_s,
                    max_retries=self.config.retries,
                )
            return self._client

    def _refused(self, error: Any) -> ConfigError | ModelError:
        url, status = self.config.base_url, error.status_code
        message = self._said(error)
        if status in (401, 403):
            return ConfigError(
                f"{url} refuses the key in {self.config.key_variable} ({status}). Set the right one, or name another "
                "variable with api.key_variable."
            )
        if status == 404:
            return ModelError(
                f"{url} knows no model '{api_name(self.name)}', or is no address of an API (404): {message}. "
                "Check the name, and that api.base_url ends before /chat/completions."
            )
        if status == 429 or status >= 500:
            return ModelError(f"{url} answered {status} after {self.config.retries} retries: {message}. {_GOES_ON}")
        return ModelError(
            f"{url} refuses the request ({status}): {message}. If it names a field, see api.temperature, api.stop, "
            "api.limit_field and api.options."
        )

    def _odd(self, text: str) -> ModelError:
        excerpt = shorten(_redacted(text, _key(self.config)))
        return ModelError(f"{self.config.base_url} answered with something that is no chat completion: {excerpt}")

    def _said(self, error: Any) -> str:
        """Return what the API said of an error, shortened and without the key."""
        body = getattr(error, "body", None)
        message = body.get("message") if isinstance(body, Mapping) else None
        text = message if isinstance(message, str) else str(error)
        return " ".join(_redacted(text, _key(self.config)).split())[:300].rstrip(".")

    def _without_key(self, text: str) -> str:
        key = _key(self.config)
        return _redacted(text, key) if key is not None and len(key) >= _SHORTEST_SECRET else text


_GOES_ON = "What was answered is kept: the same command goes on from there."


def limit_field(config: ApiConfig) -> str:
    """Return the name of the limit of tokens in a request."""
    if config.limit_field != "auto":
        return config.limit_field
    host = urlsplit(OPENAI).hostname
    return "max_completion_tokens" if urlsplit(config.base_url).hostname == host else "max_tokens"


def _key(config: ApiConfig) -> str | None:
    return os.environ.get(config.key_variable, "").strip() or None


@lru_cache(maxsize=8)
def _parts(key: str) -> tuple[str, ...]:
    """Return what shows a key: itself, and its beginning and end as some servers repeat them."""
    return (key, *((key[:-4], key[4:]) if len(key) >= 3 * _SHORTEST_SECRET else ()))


def _redacted(text: str, key: str | None) -> str:
    for part in _parts(key) if key else ():
        text = text.replace(part, "[key]")
    return text
