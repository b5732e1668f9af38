"""Lines drawn from logs: which points they have, and where these lie."""

from __future__ import annotations

import re

import pytest

from benchmarks.curves import curve
from benchmarks.pictures import Panel, picture


def points(drawn: str) -> list[list[tuple[float, float]]]:
    """Return the points of all lines of a picture."""
    paths = re.findall(r'<polyline points="([^"]*)"', drawn)
    return [[(float(x), float(y)) for x, y in (pair.split(",") for pair in path.split())] for path in paths]


def test_a_curve_is_the_mean_of_the_last_four_steps_that_have_the_field() -> None:
    log = [{"step": 1, "loss": 9.0}, *({"step": step, "kl": float(step)} for step in range(2, 8))]
    assert curve(log, "kl") == [(2, 2.0), (3, 2.5), (4, 3.0), (5, 3.5), (6, 4.5), (7, 5.5)]
    assert curve(log, "nothing") == []


def test_equal_steps_are_equal_distances_on_either_kind_of_axis() -> None:
    (straight,) = points(picture([Panel("a", {"one": [(0, 0), (2, 10), (4, 20)]}, "x")]))
    (powers,) = points(picture([Panel("a", {"one": [(1, 1), (4, 10), (16, 100)]}, "x", log=True)]))
    for (x0, y0), (x1, y1), (x2, y2) in (straight, powers):
        assert x2 - x1 == pytest.approx(x1 - x0)
        assert y1 - y2 == pytest.approx(y0 - y1)
        assert x1 > x0
        assert y1 < y0, "larger values lie higher"


def test_points_at_0_have_no_logarithm_and_are_left_out() -> None:
    (line,) = points(picture([Panel("a", {"exact": [(1, 0.0), (2, 0.5), (4, 0.25)]}, "x", log=True)]))
    assert len(line) == 2


def test_a_line_has_one_colour_in_all_panels_and_its_name_is_escaped() -> None:
    curves = {"p < 0.05": [(1.0, 1.0), (2.0, 2.0)], "b": [(1.0, 3.0), (2.0, 3.0)]}
    drawn = picture([Panel("first", curves, "x"), Panel("second", {"b": curves["b"]}, "x")])
    assert "p &lt; 0.05" in drawn
    colours = re.findall(r'fill="none" stroke="(#\w+)"', drawn)
    assert colours[1] == colours[2] != colours[0]
