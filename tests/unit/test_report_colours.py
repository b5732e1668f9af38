"""The colours of methods and labels: distinct for any number of methods."""

import re
from importlib import resources

from adjudge.report.colours import HUES, colour_rules, label_colour, method_colour


def test_every_hue_is_defined_for_light_dark_and_printed_pages():
    style = resources.files("adjudge.report").joinpath("templates", "style.css").read_text(encoding="utf-8")
    for hue in range(HUES):
        assert len(re.findall(rf"--m{hue}: #", style)) == 3  # light, dark, printed
    assert f"--m{HUES}:" not in style


def test_methods_are_coloured_in_the_order_of_the_report():
    methods = [f"method {number}" for number in range(30)]
    assert [method_colour(method, methods) for method in methods] == list(range(30))


def test_rules_of_many_methods_are_all_different():
    rules = colour_rules(5 * HUES).splitlines()
    looks = [rule.partition(" ")[2] for rule in rules]
    assert [rule.partition(" ")[0] for rule in rules] == [f".m{number}" for number in range(5 * HUES)]
    assert len(set(looks)) == len(looks)
    dashes = [re.findall(r"--dash: (\d+ \d+)", look) for look in looks]
    assert dashes[:HUES] == [[]] * HUES
    assert len({dash for (dash,) in dashes[HUES:]}) == 4


def test_labels_use_every_hue_before_they_repeat():
    colours = [label_colour(index) for index in range(2 * HUES)]
    assert colours[0] == HUES - 1
    assert sorted(colours) == list(range(2 * HUES))
