"""Check the recipes: each is read by --config and names its command."""

import re
from pathlib import Path

import pytest

from adjudge.config import Config, load_config
from adjudge.methods.registry import get_entry
from adjudge.models.sources.bundled import BUNDLED
from adjudge.tasks import list_tasks

FOLDER = Path(__file__).parents[2] / "recipes"
RECIPES = sorted(FOLDER.glob("*.yaml"))


def test_every_recipe_is_listed():
    listed = set(re.findall(r"\]\((\S+\.yaml)\)", (FOLDER / "README.md").read_text(encoding="utf-8")))
    assert listed == {path.name for path in RECIPES} != set()


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.name)
def test_a_recipe_is_a_valid_configuration_that_changes_something(path):
    config = load_config(file=path)
    assert config != Config()
    assert config.task in list_tasks()
    get_entry(config.method)


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.name)
def test_a_recipe_begins_with_the_command_that_uses_it(path):
    comments = [line for line in path.read_text(encoding="utf-8").splitlines() if line.startswith("#")]
    assert any(f"--config recipes/{path.name}" in line for line in comments)


def test_the_papers_recipe_takes_the_papers_preset():
    config = load_config(file=FOLDER / "paper-ppo.yaml")
    assert config.preset == "paper"
    assert config.ppo.optimizer == load_config(preset="paper").ppo.optimizer != Config().ppo.optimizer


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.name)
def test_a_recipe_pins_the_commit_of_a_model_from_the_hub(path):
    config = load_config(file=path)
    for name in (config.model, config.encoder.model):
        if name not in BUNDLED:
            assert re.fullmatch(r"[\w.-]+/[\w.-]+@[0-9a-f]{40}", name)
