"""The demo: its budgets, its folders, and that it compares what `adjudge compare` does."""

from pathlib import Path

import pytest
from test_cli import invoke, refused

from adjudge.errors import ConfigError
from adjudge.methods.registry import COMPARED
from adjudge.setup import demo as room
from adjudge.setup.demo import FOLDERS, demo


@pytest.fixture
def calls(monkeypatch):
    """Stand in for the download and the comparison, and return what they were asked for."""
    made = []

    def compare(config, specs, methods, seeds, out, **options):
        made.append((config, [spec.name for spec in specs], methods, seeds, out, options))
        return {"rows": [], "tests": [], "failed": []}

    monkeypatch.setattr(room, "compare", compare)
    monkeypatch.setattr(room, "fetch", made.append)
    return made


@pytest.mark.parametrize(("budget", "rows", "encoder_steps"), [("full", (240, 200), 100), ("smoke", (8, 12), 0)])
def test_a_budget_says_rows_steps_and_folder(budget, rows, encoder_steps, calls):
    _, folder = demo(budget)
    assert calls[0] == "all"
    config, tasks, methods, seeds, out, _ = calls[1]
    assert (config.data.train_rows, config.data.eval_rows) == rows
    assert (config.sft.min_steps, config.ppo.min_steps, config.encoder.min_steps) == (0, 0, encoder_steps)
    assert (tasks, methods, seeds) == (["vader/movies"], COMPARED, [0])
    assert out == folder == {"full": Path("runs/demo"), "smoke": Path("runs/demo-smoke")}[budget]


def test_settings_and_a_folder_may_be_given(calls, tmp_path):
    demo("smoke", tmp_path, ["lora.r=8", "data.train_rows=20"], command="adjudge demo …")
    config, *_, out, options = calls[1]
    assert (config.lora.r, config.data.train_rows, config.data.eval_rows) == (8, 20, 12)
    assert out == tmp_path
    assert options["command"] == "adjudge demo …"


def test_two_runs_are_made_side_by_side_where_there_are_two_cores(calls, monkeypatch):
    for cores, expected in ((1, 1), (2, 2), (64, 2)):
        monkeypatch.setattr(room, "usable_cores", lambda cores=cores: cores)
        demo("smoke")
        assert calls[-1][-1]["jobs"] == expected
    demo("smoke", jobs=1)
    assert calls[-1][-1]["jobs"] == 1


def test_every_budget_has_a_folder_and_settings():
    files = {path.stem for path in (Path(room.__file__).parent / "budgets").glob("*.yaml")}
    assert files == set(FOLDERS)


def test_mistakes_are_refused_before_anything_is_fetched(calls):
    with pytest.raises(ConfigError, match="Did you mean 'smoke'"):
        demo("smok")
    assert "Did you mean 'lora.r'?" in refused("demo", "lora.rr=8")
    assert calls == []


def test_a_failed_run_is_named_and_is_the_exit_code(calls, monkeypatch, tmp_path):
    failure = {"task": "vader/movies", "method": "sft", "seed": 0, "reason": "no memory"}
    table = {"rows": [], "tests": [], "failed": [failure], "seconds": {}}
    monkeypatch.setattr(room, "compare", lambda *_, **__: table)
    monkeypatch.setattr("adjudge.cli.show.show_table", lambda table: None)
    result = invoke("demo", "--budget", "smoke", "--out", tmp_path)
    assert result.exit_code == 1
    assert "vader/movies sft seed 0 failed: no memory" in result.stderr
