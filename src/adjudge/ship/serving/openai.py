"""The forms of OpenAI's API: a judge as a model that answers with one label.

The last user message (or the prompt) is the row's text. The judge brings its own instruction, so other messages and the
settings of sampling change nothing. For a task with several fields the text is a JSON object of them.

Messages that begin with the judge's own instruction are a whole prompt (`adjudge.prompts.messages`), as an adjudge with
``--model api:NAME`` sends it: the row is then read out of its turn.
"""

from __future__ import annotations

import json
import math
import time
import uuid
from collections.abc import Mapping, Sequence
from typing import Any

from adjudge.errors import nearest
from adjudge.prompts.messages import asks_alike, row_of_turn
from adjudge.ship.serving.judges import Answered, ServedJudge, answer_of
from adjudge.ship.serving.limits import Limits, RequestError
from adjudge.ship.serving.reading import field_row, kind_of, text_row
from adjudge.system.text import shorten
from adjudge.types import Example

ROLES = ("system", "developer", "user", "assistant", "tool", "function")

_NUMBER = (int, float, type(None))
_WHOLE = (int, type(None))
_TEXT = (str, type(None))
_FREE: dict[str, tuple[type, ...]] = {
    **dict.fromkeys(("temperature", "top_p", "presence_penalty", "frequency_penalty"), _NUMBER),
    **dict.fromkeys(("seed", "max_tokens", "max_completion_tokens"), _WHOLE),
    **dict.fromkeys(("user", "safety_identifier", "prompt_cache_key", "service_tier", "reasoning_effort"), _TEXT),
    "stop": (str, list, type(None)),
    "metadata": (dict, type(None)),
    "store": (bool, type(None)),
    "stream_options": (dict, type(None)),
}
"""Fields that are read and change nothing: an answer is one label, and always the likeliest."""

_ONLY: dict[str, tuple[Any, ...]] = {
    "n": (1, None),
    "best_of": (1, None),
    "echo": (False, None),
    "suffix": ("", None),
    "logit_bias": ({}, None),
    "tools": ([], None),
    "functions": ([], None),
    "tool_choice": ("none", None),
    "response_format": ({"type": "text"}, None),
    "modalities": (["text"], None),
}
"""Fields with one possible value: another would ask for something that a judge does not do."""

_TURNS = 2
"""Messages of a prompt without worked examples: the instruction and the row."""
_MOST_TOP = 20
LEAST_LOGP = -9999.0
"""Stands for a probability of 0, whose logarithm JSON cannot hold; OpenAI and vLLM use it too."""


def check_fields(tree: Mapping[str, Any], own: Sequence[str]) -> None:
    """Raise RequestError 422 for a field that is unknown, of another type, or beyond what a judge does."""
    for name, value in tree.items():
        if name in own:
            continue
        if name in _ONLY:
            if not any(value == allowed and type(value) is type(allowed) for allowed in _ONLY[name]):
                raise RequestError(422, f'"{name}" must be {json.dumps(_ONLY[name][0])}, or left out.', name)
        elif name not in _FREE:
            shown, known = shorten(name), [*own, *_FREE, *_ONLY]
            raise RequestError(422, f"There is no field '{shown}' here.{nearest(shown, known)}", shown)
        elif type(value) not in _FREE[name]:
            raise RequestError(422, f'"{name}" is {kind_of(value)}, which it cannot be. Leave it out.', name)


def chat_row(served: ServedJudge, messages: Any) -> Example:
    """Return the row in the last user message. Raises RequestError 422."""
    if not isinstance(messages, list) or not messages:
        raise RequestError(
            422, '"messages" must be a list, as in [{"role": "user", "content": "the text"}].', "messages"
        )
    last: tuple[int, Any] | None = None
    for index, message in enumerate(messages):
        if not isinstance(message, dict):
            raise RequestError(422, f"messages[{index}] is {kind_of(message)}; send an object.", f"messages[{index}]")
        role = message.get("role")
        if not isinstance(role, str) or role not in ROLES:
            raise RequestError(
                422, f'messages[{index}]: "role" must be one of {", ".join(ROLES)}.', f"messages[{index}].role"
            )
        if role == "user":
            last = index, message.get("content")
    if last is None:
        raise RequestError(
            422, 'There is no message with "role": "user", whose content is the text to judge.', "messages"
        )
    index, content = last
    if asks_alike(messages, served.spec, served.prompt):
        if len(messages) > _TURNS:
            raise RequestError(
                422, "The judge brings its own prompt, to which no worked examples can be added.", "messages"
            )
        fields = row_of_turn(content, served.spec, served.prompt) if isinstance(content, str) else None
        if fields is not None:
            return field_row(served.spec, fields, f"messages[{index}].content")
    return _row(served, _joined(content, f"messages[{index}].content"), f"messages[{index}].content")


def prompt_rows(served: ServedJudge, prompt: Any, limits: Limits) -> list[Example]:
    """Return the row in a prompt, or one for each of several.

    Raises RequestError: 413 for too many prompts, 422 for what does not fit.
    """
    if isinstance(prompt, str):
        return [_row(served, prompt, "prompt")]
    if not isinstance(prompt, list) or not prompt or not all(isinstance(each, str) for each in prompt):
        raise RequestError(422, '"prompt" must be a text or a list of texts. Token ids are not read.', "prompt")
    if len(prompt) > limits.rows:
        raise RequestError(413, f'"prompt" has {len(prompt):,} texts; at most {limits.rows:,} per request.', "prompt")
    return [_row(served, each, f"prompt[{index}]") for index, each in enumerate(prompt)]


def top_count(served: ServedJudge, wanted: Any, name: str) -> int:
    """Return how many alternatives were asked for. Raises RequestError 422."""
    if wanted is None:
        return 0
    if type(wanted) is not int or not 0 <= wanted <= _MOST_TOP:
        raise RequestError(422, f'"{name}" must be a whole number from 0 to {_MOST_TOP}.', name)
    refuse_numbers(served, name)
    return wanted


def wants_logprobs(served: ServedJudge, tree: Mapping[str, Any]) -> bool:
    """Return the value of chat's ``logprobs``. Raises RequestError 422."""
    wanted = tree.get("logprobs")
    if wanted not in (None, False, True) or isinstance(wanted, int | float) != isinstance(wanted, bool):
        raise RequestError(422, '"logprobs" must be true or false.', "logprobs")
    if tree.get("top_logprobs") is not None and not wanted:
        raise RequestError(422, '"top_logprobs" needs "logprobs": true.', "top_logprobs")
    if wanted:
        refuse_numbers(served, "logprobs")
    return bool(wanted)


def refuse_numbers(served: ServedJudge, name: str) -> None:
    """Raise RequestError 422 for a number task, which has no label words to give probabilities of."""
    if served.spec.is_number:
        raise RequestError(422, f"{served.spec.name} answers with numbers, which have no {name}. Leave it out.", name)


def wants_stream(tree: Mapping[str, Any]) -> bool:
    """Return the value of ``stream``. Raises RequestError 422."""
    wanted = tree.get("stream")
    if wanted is not None and not isinstance(wanted, bool):
        raise RequestError(422, '"stream" must be true or false.', "stream")
    return bool(wanted)


def chat_completion(served: ServedJudge, answered: Answered, *, logprobs: bool, top: int) -> dict[str, Any]:
    """Return the answer to ``/v1/chat/completions``. Without an answer it is empty, with a `refusal`."""
    text = answer_of(served, answered.prediction)
    refusal = None if answered.prediction.value is not None else "The model's answer was unreadable."
    if answered.prediction.abstained:
        refusal = "The judge holds its answer back: it is not sure enough."
    content = _token_logprobs(answered, text, top)
    choice = {
        "index": 0,
        "message": {"role": "assistant", "content": text, "refusal": refusal},
        "logprobs": {"content": content, "refusal": None} if logprobs else None,
        "finish_reason": "stop",
    }
    return {**_head("chatcmpl", "chat.completion", served), "choices": [choice], "usage": _usage([answered])}


def completion(served: ServedJudge, answers: Sequence[Answered], top: int | None) -> dict[str, Any]:
    """Return the answer to ``/v1/completions``: one choice per prompt; `top` None leaves the logprobs out."""
    choices = []
    for index, answered in enumerate(answers):
        text = answer_of(served, answered.prediction)
        logprobs = None
        if top is not None:
            tokens = _token_logprobs(answered, text, top)
            logprobs = {
                "tokens": [each["token"] for each in tokens],
                "token_logprobs": [each["logprob"] for each in tokens],
                "top_logprobs": [{one["token"]: one["logprob"] for one in each["top_logprobs"]} for each in tokens],
                "text_offset": [0 for _ in tokens],
            }
        choices.append({"index": index, "text": text, "logprobs": logprobs, "finish_reason": "stop"})
    return {**_head("cmpl", "text_completion", served), "choices": choices, "usage": _usage(answers)}


def events(answer: Mapping[str, Any], *, usage: bool) -> list[bytes]:
    """Return a whole answer as the events of a stream.

    A label is one token, so there is one event with text.
    """
    chat = answer["object"] == "chat.completion"
    head = {key: answer[key] for key in ("id", "created", "model")}
    head["object"] = "chat.completion.chunk" if chat else "text_completion"
    chunks: list[dict[str, Any]] = []
    for choice in answer["choices"]:
        shared = {"index": choice["index"], "logprobs": choice["logprobs"]}
        if chat:
            chunks.append({**head, "choices": [{**shared, "delta": choice["message"], "finish_reason": None}]})
            ending = {"index": choice["index"], "delta": {}, "logprobs": None, "finish_reason": "stop"}
        else:
            chunks.append({**head, "choices": [{**shared, "text": choice["text"], "finish_reason": None}]})
            ending = {"index": choice["index"], "text": "", "logprobs": None, "finish_reason": "stop"}
        chunks.append({**head, "choices": [ending]})
    if usage:
        chunks.append({**head, "choices": [], "usage": answer["usage"]})
    lines = [json.dumps(chunk, ensure_ascii=False) for chunk in chunks]
    return [f"data: {line}\n\n".encode() for line in [*lines, "[DONE]"]]


def model_fields(served: ServedJudge, created: int) -> dict[str, Any]:
    """Return one entry of ``/v1/models``."""
    return {"id": served.name, "object": "model", "created": created, "owned_by": "adjudge", **served.described()}


def _row(served: ServedJudge, text: str, where: str) -> Example:
    if len(served.spec.fields) == 1:
        return text_row(served.spec, text, where)
    fields = ", ".join(f'"{field}": "…"' for field in served.spec.fields)
    try:
        tree = json.loads(text)
    except (ValueError, RecursionError):
        tree = None
    if not isinstance(tree, dict):
        raise RequestError(
            422, f"{served.spec.name} has several fields: {where} must be a JSON object, {{{fields}}}.", where
        )
    return field_row(served.spec, tree, where)


def _joined(content: Any, where: str) -> str:
    """Return the text of a message, which may come in parts. Raises RequestError 422."""
    if isinstance(content, str):
        return content
    if not isinstance(content, list) or not content:
        raise RequestError(422, f"{where} is {kind_of(content)}; it must be the text to judge.", where)
    texts = []
    for index, part in enumerate(content):
        text = part.get("text") if isinstance(part, dict) and part.get("type") == "text" else None
        if not isinstance(text, str):
            raise RequestError(
                422, f'{where}[{index}] must be {{"type": "text", "text": "…"}}: a judge reads only text.'
            )
        texts.append(text)
    return "".join(texts)


def _token_logprobs(answered: Answered, text: str, top: int) -> list[dict[str, Any]]:
    """Return the log-probability of the answer among the label words, and of the `top` likeliest words."""
    probabilities = answered.prediction.probabilities
    if text not in probabilities:  # unreadable, or held back
        return []
    ordered = sorted(probabilities, key=lambda word: -probabilities[word])
    return [
        {**_logprob(text, probabilities[text]), "top_logprobs": [_logprob(w, probabilities[w]) for w in ordered[:top]]}
    ]


def _logprob(word: str, probability: float) -> dict[str, Any]:
    logp = math.log(probability) if probability > 0 else LEAST_LOGP
    return {"token": word, "logprob": logp, "bytes": list(word.encode("utf-8", "replace"))}


def _head(kind: str, name: str, served: ServedJudge) -> dict[str, Any]:
    return {"id": f"{kind}-{uuid.uuid4().hex}", "object": name, "created": int(time.time()), "model": served.name}


def _usage(answers: Sequence[Answered]) -> dict[str, int]:
    read, written = sum(each.prompt_tokens for each in answers), sum(each.answer_tokens for each in answers)
    return {"prompt_tokens": read, "completion_tokens": written, "total_tokens": read + written}
