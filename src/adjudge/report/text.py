"""Numbers and names as the report, table.md and the terminal show them."""

from __future__ import annotations

import unicodedata

_BIDI = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\u2028\u2029")


def decimal(value: float) -> str:
    """Format with three decimals and a true minus sign; never ``−0.000``."""
    text = f"{value:.3f}"
    return "0.000" if text == "-0.000" else text.replace("-", "−")


def p_text(p: float) -> str:
    """Format a p-value: ``p = 0.21``, ``p = 0.004``, ``p < 0.001``."""
    if p < 0.001:
        return "p < 0.001"
    return f"p = {p:.3f}" if p < 0.0995 else f"p = {p:.2f}"


def seconds_text(seconds: float | None) -> str:
    """Format seconds, with one decimal below ten; a dash when nothing was timed."""
    if seconds is None:
        return "–"
    return f"{seconds:.1f}" if 0 < seconds < 9.95 else f"{seconds:,.0f}"


def count_text(count: float | None) -> str:
    """Format a number of rows, as in ``1,000``; a dash when it is unknown."""
    return "–" if count is None else f"{count:,.0f}"


def price_text(price: float | None) -> str:
    """Format a price with two digits that count; a dash when it is unknown."""
    if price is None:
        return "–"
    return f"{price:,.2f}" if price >= 1 or price == 0 else f"{price:.2g}"


def visible(text: str) -> str:
    """Spell out control, bidi and surrogate characters, as in ``⟦U+202E⟧``.

    Printed raw, they would disturb the text around them.
    """
    return "".join(
        f"⟦U+{ord(char):04X}⟧" if unicodedata.category(char) in {"Cc", "Cs"} or char in _BIDI else char for char in text
    )
