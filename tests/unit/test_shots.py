"""A few rows of each label (``--shots``): drawn evenly, by the seed, the same for every method."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from fake_method import reviews
from specs import number_task
from typer.testing import CliRunner

from adjudge.cli.main import app
from adjudge.config import load_config
from adjudge.errors import ConfigError
from adjudge.experiments.cells import plan_cells
from adjudge.experiments.execute import run_settings
from adjudge.experiments.rows import rows_for
from adjudge.tasks import take_shots
from adjudge.types import Example

ROWS = [Example(f"t:{row}", {"text": f"text {row}"}, "rare" if row % 10 == 0 else "often") for row in range(60)]
WORDS = ("rare", "often", "never")


def test_each_label_has_as_many_rows_and_fewer_shots_are_the_first_of_more() -> None:
    drawn = take_shots(ROWS, WORDS, 4, 0)
    assert Counter(row.gold for row in drawn) == {"rare": 4, "often": 4}
    assert drawn[:4] == take_shots(ROWS, WORDS, 2, 0) and len({row.id for row in drawn}) == 8
    assert [row.gold for row in drawn] == ["rare", "often"] * 4
    assert take_shots(ROWS, WORDS, 4, 1) != drawn == take_shots(list(ROWS), WORDS, 4, 0)


def test_a_label_with_fewer_rows_gives_all_and_it_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    drawn = take_shots(ROWS, WORDS, 9, 3)
    assert Counter(row.gold for row in drawn) == {"rare": 6, "often": 9}
    assert capsys.readouterr().err.count("9 training rows of 'rare' were requested and there are 6") == 1


def settings(**values: Any) -> Any:
    return load_config(values={key.replace("__", "."): value for key, value in values.items()})


def test_every_method_of_a_comparison_learns_from_the_same_shots(tmp_path: Path) -> None:
    spec = reviews(tmp_path)
    cells = plan_cells(settings(data__shots=3), [spec], ["zero-shot", "tfidf", "head", "setfit"], [0, 1], tmp_path)
    by_seed = {cell.rows for cell in cells if cell.config.method != "zero-shot"}
    assert len(by_seed) == 2
    assert [cell.config.data.shots for cell in cells] == [None, None, *[3] * 6]
    (part,) = rows_for(cells[-1].config, [spec]).parts
    assert set(Counter(row.gold for row in part.rows).values()) == {3}


def test_what_cannot_go_with_shots_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"data.train_rows \(--train-rows\) cannot go with it"):
        settings(data__shots=3, data__train_rows=10)
    with pytest.raises(ConfigError, match=r"data.shots is for labels, but mine is answered with a number"):
        run_settings(settings(method="tfidf", data__shots=3), [number_task(0, 4)])
    shown = CliRunner().invoke(app, ["train", "tfidf", "--shots", "0", "--task", "vader/movies"])
    assert shown.exit_code != 0 and "data.shots" in (shown.output + str(shown.exception))
