"""Test reading and writing YAML: what is written is read as it was, whatever a text holds."""

import pytest
import yaml

from adjudge.system.yaml_text import read_documents, read_yaml, write_yaml


@pytest.mark.parametrize("text", ["no", "1e-4", "007", "", " a: b # c", "two\nlines", "é “q” \U0001f600", "x" * 500])
def test_what_is_written_is_read_as_it_was(text):
    tree = {"b": text, "a": [1, 1e-5, None, True, {text or "empty": []}]}
    written = write_yaml(tree)
    assert read_yaml(written) == yaml.safe_load(written) == tree
    assert written.startswith("b: "), "keys keep their order"
    assert list(read_documents(f"{written}---\n{written}")) == [tree, tree]


def test_a_name_that_is_not_utf_8_is_escaped():
    written = write_yaml({"path": "caf\udce9.csv"})
    assert written.isascii() and yaml.safe_load(written) == {"path": "caf\udce9.csv"}
