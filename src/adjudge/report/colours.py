"""The colours of methods and labels: numbers, resolved in the style sheet for light and dark pages.

The style sheet has HUES colours. Further numbers repeat them in rounds; each round has its own lightness, and its own
dash pattern for curves. So no two methods of a report look the same, however many there are.
"""

from __future__ import annotations

from collections.abc import Sequence

HUES = 8
"""Colours in the style sheet (``--m0`` to ``--m7``)."""


def method_colour(method: str, methods: Sequence[str]) -> int:
    """Return the colour number of a method: its position among all `methods` of the report."""
    return methods.index(method)


def label_colour(index: int) -> int:
    """Return the colour number of a label.

    Labels use the hues from the last to the first, to stay apart from the first methods.
    """
    rounds, hue = divmod(index, HUES)
    return rounds * HUES + (HUES - 1 - hue)


def colour_rules(count: int) -> str:
    """Return the style rules of the colour numbers below `count`.

    ``--c`` is the colour, ``--dash`` the dash pattern of curves.
    """
    return "\n".join(_rule(number) for number in range(count))


def _rule(number: int) -> str:
    rounds, hue = divmod(number, HUES)
    if rounds == 0:
        return f".m{number} {{ --c: var(--m{hue}) }}"
    share = round(100 / (1 + rounds / 2))
    mixed = f"color-mix(in srgb, var(--m{hue}) {share}%, var(--ink))"
    return f".m{number} {{ --c: {mixed}; --dash: {3 + 4 * rounds} 5 }}"
