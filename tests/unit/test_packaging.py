"""What is declared to be installed: the dependencies src imports, and every file it reads."""

import ast
import fnmatch
import re
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SRC = ROOT / "src/adjudge"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
DECLARED = PROJECT["project"]["dependencies"]
EXTRAS = PROJECT["project"]["optional-dependencies"]

MODULES = {"scikit-learn": "sklearn", "pyyaml": "yaml", "mlflow-skinny": "mlflow"}
"""Distribution to the module it installs, where they differ by more than a dash."""
BROUGHT_BY = {
    "huggingface_hub": "transformers",
    "tokenizers": "transformers",
    "packaging": "transformers",
    "markupsafe": "jinja2",
    "bitsandbytes": "",
}
"""Imported modules that another dependency brings along; none: an extra brings it."""
NEEDED_BY_OTHERS = {
    "gguf": "transformers reads the bundled model with it",
    "onnx": "torch exports with it",
    "bitsandbytes": "transformers loads 8 and 4 bits with it",
    "sqlalchemy": "mlflow keeps runs in a database with it",
    "alembic": "mlflow makes that database with it",
}
"""Declared, and imported by another library only when it is asked to."""


def names(requirements):
    return [re.match(r"[\w-]+", requirement).group().lower() for requirement in requirements]


def module_of(distribution):
    return MODULES.get(distribution, distribution.replace("-", "_")).lower()


def imported():
    """Return the top-level modules that src imports, wherever in a file."""
    found = set()
    for path in SRC.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                found |= {name.name.partition(".")[0] for name in node.names}
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                found.add(node.module.partition(".")[0])
    return {name.lower() for name in found if name not in sys.stdlib_module_names and name != "adjudge"}


def for_users():
    """Return the requirements of users: the core, and the extras which are not tools of ours."""
    return [*DECLARED, *(line for name, lines in EXTRAS.items() if name not in ("dev", "docs") for line in lines)]


def test_every_dependency_is_imported():
    unused = {module_of(name) for name in names(for_users())} - imported() - set(NEEDED_BY_OTHERS)
    assert not unused


def test_every_imported_library_is_a_dependency_or_comes_with_one():
    undeclared = imported() - {module_of(name) for name in names(for_users())}
    assert undeclared <= set(BROUGHT_BY), "declare it in pyproject.toml"


@pytest.mark.parametrize("module", [module for module, by in BROUGHT_BY.items() if by])
def test_a_library_that_another_brings_is_still_brought(module):
    carrier = BROUGHT_BY[module]
    assert carrier in names(DECLARED)
    assert module in {name.replace("-", "_") for name in names(metadata.requires(carrier))}


def test_every_file_of_src_is_in_the_wheel():
    patterns = PROJECT["tool"]["setuptools"]["package-data"]["adjudge"]
    files = [path.relative_to(SRC).as_posix() for path in SRC.rglob("*") if path.is_file()]
    data = [file for file in files if not file.endswith((".py", ".pyc"))]
    assert len(data) > 20
    assert [file for file in data if not any(fnmatch.fnmatch(f"/{file}", f"/{pattern}") for pattern in patterns)] == []


def test_what_the_image_copies_is_there_and_reaches_the_builder():
    lines = (ROOT / "Dockerfile").read_text(encoding="utf-8").splitlines()
    copied = [name for line in lines if re.match(r"COPY (?!--from)", line) for name in line.split()[1:-1]]
    kept = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    assert {"pyproject.toml", "src", PROJECT["project"]["readme"]} <= set(copied)
    for name in copied:
        assert (ROOT / name).exists()
        assert f"!{name}" in kept
