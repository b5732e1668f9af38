"""Name the separator and the encoding of a table, as a user writes them."""

from __future__ import annotations

import codecs
from typing import NamedTuple

from adjudge.errors import DataError

SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "pipes"}
"""Each usual separator, and what it is called."""

_NAMES = {"comma": ",", "semicolon": ";", "tab": "\t", "\\t": "\t", "pipe": "|", "space": " "}
"""Names by which a separator can be given, since a shell keeps some of the characters for itself."""

_NO_FILES = ("idna", "punycode", "unicode-escape", "raw-unicode-escape")
"""Codecs of Python for text that no file is written in."""


class TableFormat(NamedTuple):
    """How a table's text is read. None means: told from the file."""

    separator: str | None = None
    """The character between two cells of a CSV or TSV file."""
    encoding: str | None = None
    """The name of a text encoding in Python, such as ``cp1252``."""


def table_format(separator: str | None = None, encoding: str | None = None) -> TableFormat:
    """Return the format that a user wrote. Raises DataError as `parse_separator` and `parse_encoding` do."""
    return TableFormat(
        None if separator is None else parse_separator(separator),
        None if encoding is None else parse_encoding(encoding),
    )


def parse_separator(text: str) -> str:
    r"""Return the separator that a user wrote: one character, or a name such as ``tab`` or ``\t``.

    Raises DataError for anything else, and for characters which have a meaning of their own in a CSV file.
    """
    separator = _NAMES.get(text.strip().lower(), text)
    if len(separator) != 1 or separator in '"\r\n\x00\ufeff':
        raise DataError(
            f"'{text}' separates no columns (separator): write one character, or comma, semicolon, tab or pipe."
        )
    return separator


def parse_encoding(text: str) -> str:
    """Return the encoding that a user wrote, by Python's name for it. Raises DataError when there is none."""
    try:
        name = codecs.lookup(text.strip()).name
        "a".encode(name).decode(name)  # bytes-to-bytes codecs such as base64 have a name, too
        if name in _NO_FILES:
            raise LookupError
    except (LookupError, ValueError, TypeError):
        raise DataError(
            f"'{text}' is no text encoding (encoding): write a name such as utf-8, utf-16, cp1252 or latin-1."
        ) from None
    return name


def separator_name(separator: str) -> str:
    """Return what a separator is called, in the plural."""
    return SEPARATORS.get(separator, "spaces" if separator == " " else f"'{separator}'")


def separator_option(separator: str) -> str:
    """Return a separator as it is best typed on a command line."""
    return next((name for name, character in _NAMES.items() if character == separator), separator)
