"""Settings of models that write free text: those behind an API, and the writer of prompt searches."""

from __future__ import annotations

import re
from typing import Any, Literal
from urllib.parse import urlsplit

from pydantic import Field, field_validator

from adjudge.config.base import Settings

OPENAI = "https://api.openai.com/v1"

_SECRET = re.compile(r"(?i)^(api_?)?key$|token$|secret|password|authorization")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


class ApiConfig(Settings):
    """A model behind an API in OpenAI's form, for `model` or `writer.model` = api:NAME."""

    base_url: str = Field(OPENAI, description="address of the API, to which /chat/completions is added")
    key_variable: str = Field(
        "OPENAI_API_KEY", description="environment variable with the key; the key itself is written nowhere"
    )
    concurrency: int = Field(4, ge=1, le=256, description="requests at the same time")
    timeout_s: float = Field(60.0, gt=0, description="seconds to wait for one answer")
    retries: int = Field(5, ge=0, description="times a request is sent again after 429, 5xx or a lost connection")
    temperature: float | None = Field(
        0.0, ge=0, description="temperature of judging; unset: not sent, for models that refuse one"
    )
    max_tokens: int | None = Field(
        None, ge=1, description="longest answer; unset: the characters of the task's longest answer with its tags"
    )
    limit_field: Literal["auto", "max_tokens", "max_completion_tokens"] = Field(
        "auto", description="name of that limit in a request; auto: max_completion_tokens for OpenAI, else max_tokens"
    )
    stop: bool = Field(
        True, description="ask the model to stop at </Judgement>; false for models that refuse stop sequences"
    )
    options: dict[str, bool | int | float | str] = Field(
        {}, description="further fields of a request, such as {reasoning_effort: low}"
    )
    price_read: float | None = Field(None, ge=0, description="price of a million prompt tokens; unset: unknown")
    price_written: float | None = Field(None, ge=0, description="price of a million generated tokens; unset: unknown")

    @field_validator("base_url")
    @classmethod
    def _plain_address(cls, url: str) -> str:
        try:
            parts = urlsplit(url)
            port_is_right = parts.port != -1
        except ValueError:
            port_is_right = False
        if not port_is_right or parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError("write an address such as http://127.0.0.1:8000/v1")
        if parts.username is not None or parts.query or parts.fragment:
            raise ValueError(
                "an address with a password or a query would be written into files; a key comes from api.key_variable"
            )
        return url.rstrip("/")

    @field_validator("key_variable")
    @classmethod
    def _name(cls, name: str) -> str:
        if not _VARIABLE.fullmatch(name):
            raise ValueError("write the name of an environment variable, never the key itself")
        return name

    @field_validator("options")
    @classmethod
    def _others(cls, options: dict[str, Any]) -> dict[str, Any]:
        for name in options:
            if _SECRET.search(name):
                raise ValueError("a key is never a setting: it comes from the variable that api.key_variable names")
            if name in OWN_FIELDS:
                raise ValueError(f"'{name}' is sent by adjudge itself; it has a setting of its own or none")
        return options


OWN_FIELDS = ("model", "messages", "n", "stream", "temperature", "max_tokens", "max_completion_tokens", "stop", "seed")
"""Fields of a request that `api.options` cannot change."""


class WriterConfig(Settings):
    """The model that writes instructions, for the methods that search one."""

    model: str | None = Field(
        None, description="causal language model, or api:NAME; unset: the model that judges writes too"
    )
    temperature: float = Field(0.9, ge=0, description="temperature of what it writes; 0: the likeliest token")
    max_tokens: int = Field(512, ge=16, description="longest text that it writes")
