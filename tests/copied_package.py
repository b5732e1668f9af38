"""Run `adjudge` from a copy of the package in a process which already imported PyTorch and its kin."""

from __future__ import annotations

import importlib
import os
import sys

FOLDER = "COPIED_PACKAGE"
"""The environment variable with the folder in which the copy lies."""


def main() -> None:
    """Forget the package that was imported before, and run the command line of the copy."""
    for name in [name for name in sys.modules if name.partition(".")[0] == "adjudge"]:
        del sys.modules[name]
    sys.path.insert(0, os.environ[FOLDER])
    importlib.import_module("adjudge.cli.main").main()
