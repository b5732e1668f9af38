"""Values of files as messages show them."""

import json

import pytest

from adjudge.system.text import LONGEST, quoted, shorten, shorten_json


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain é 日本", "plain é 日本"),
        ("\x1b[31mred", "\\x1b[31mred"),
        ("a\tb\n", "a\\tb\\n"),
        ("\u202ertl", "\\u202ertl"),
        ("\udc80", "\\udc80"),
        ("x" * LONGEST, "x" * LONGEST),
        ("x" * (LONGEST + 1), "x" * LONGEST + "…"),
    ],
)
def test_values_are_cut_and_unprintable_characters_escaped(text, shown):
    assert shorten(text) == shown
    assert quoted(text) == f"'{shown}'"


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (True, "true"),
        (None, "null"),
        ("a\n", '"a\\n"'),
        ({"a": [1]}, '{"a": [1]}'),
        (10**70, "1" + "0" * (LONGEST - 1) + "…"),
        ([0] * 99, json.dumps([0] * 99)[:LONGEST] + "…"),
    ],
)
def test_json_values_are_cut(value, shown):
    assert shorten_json(value) == shown


def test_a_long_string_in_json_keeps_its_quotes():
    assert json.loads(shorten_json('"' * 100)) == '"' * LONGEST + "…"
