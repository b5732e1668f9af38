"""Read numbers with a decimal comma, as in ``4,88``, where a whole column has them."""

from __future__ import annotations

import re
from collections.abc import Collection

from adjudge.errors import DataError

_COMMA_NUMBER = re.compile(r"[+-]?\d*,\d+(?:[eE][+-]?\d+)?")
_WHOLE = re.compile(r"[+-]?\d+")
_THOUSANDS = re.compile(r"[+-]?\d{1,3}(?:,\d{3})+")

_NEARLY_ALL = 0.9
"""Share of the different cells that must be numbers for a column to hold numbers."""


def with_point(cell: str) -> str:
    """Return a number with its decimal comma written as a point. Any other cell stays as it is."""
    return cell.replace(",", ".") if _COMMA_NUMBER.fullmatch(cell.strip()) else cell


def has_decimal_commas(cells: Collection[str], where: str, separator: str | None) -> bool:
    """Return whether the different cells of a column are numbers with decimal commas.

    `separator` is that of the table. Where commas separate columns, ``1,234`` is more likely a thousand, so DataError
    is raised when all commas could be such; it begins with `where`.
    """
    with_comma = [cell for cell in cells if _COMMA_NUMBER.fullmatch(cell)]
    numbers = len(with_comma) + sum(_WHOLE.fullmatch(cell) is not None for cell in cells)
    if not with_comma or numbers < _NEARLY_ALL * len(cells):
        return False
    if separator == "," and all(_THOUSANDS.fullmatch(cell) for cell in with_comma):
        plain, decimal = with_comma[0].replace(",", ""), with_comma[0].replace(",", ".")
        raise DataError(f"{where}: '{with_comma[0]}' may be {plain} or {decimal}. Write it in one of these ways.")
    return True
