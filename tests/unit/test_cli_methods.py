"""``adjudge methods``, and lists of methods in the help: all of them come from the registry."""

import ast
from pathlib import Path

import pytest
from typer.testing import CliRunner

import adjudge
from adjudge.cli.main import app
from adjudge.cli.method_names import either
from adjudge.config import keys_of
from adjudge.methods.registry import METHODS

SOURCE = Path(adjudge.__file__).parent


def shown(*arguments):
    result = CliRunner().invoke(app, ["methods", *arguments])
    assert result.exit_code == 0, result.output
    return result.stdout


@pytest.fixture
def wide(monkeypatch):
    """Show descriptions without line breaks."""
    monkeypatch.setattr("adjudge.cli.methods.PAGE_COLUMNS", 300)


def test_list_names_every_method_with_its_facts(wide):
    text = " ".join(shown().split())
    for entry in METHODS.values():
        trained = "yes" if entry.trains else "no"
        assert f"{entry.name} {entry.summary} {trained} {entry.source}" in text
        assert f"settings: {', '.join(entry.settings)}" in text


@pytest.mark.parametrize("entry", METHODS.values(), ids=lambda entry: entry.name)
def test_description_lists_exactly_the_settings_a_method_reads(entry, wide):
    text = shown(entry.name)
    keys = {line.split()[0] for line in text.splitlines() if line.strip()} & set(keys_of())
    assert keys == {key for key in keys_of() if key.partition(".")[0] in entry.settings}
    assert entry.source in text
    assert (f"adjudge train {entry.name}" in text) == entry.trains


def test_description_shows_the_values_of_a_preset():
    assert shown("sft") != shown("sft", "--preset", "paper")


def test_unknown_method_gets_the_nearest():
    result = CliRunner().invoke(app, ["methods", "zeroshot"])
    assert result.exit_code == 2
    assert "Did you mean 'zero-shot'?" in " ".join(result.stderr.split())


def test_either_joins_names():
    assert either(["a"]) == "a"
    assert either(["a", "b"]) == "a or b"
    assert either(["a", "b", "c"]) == "a, b or c"


@pytest.mark.parametrize("name", ["", *METHODS])
def test_lists_and_descriptions_fit_80_columns(name):
    text = shown(*([name] if name else []))
    assert max(map(len, text.splitlines())) <= 80
    assert "…" not in text.replace("=…", "")


@pytest.mark.parametrize(
    "file", [*(SOURCE / "cli").glob("*.py"), *(SOURCE / "report").glob("*.py")], ids=lambda f: f.name
)
def test_command_line_and_report_know_no_method_by_name(file):
    tree = ast.parse(file.read_text(encoding="utf-8"))
    documentation = {
        id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    }
    texts = [
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in documentation
    ]
    names = set(METHODS) - {"encoder", "adapter", "head", "reinforce", "give"}  # English words, two of them options
    words = {word.strip("`.,;:") for text in texts for word in text.replace(",", " ").split()}
    assert words & names == set()
