"""What a verb that was stopped says: the one command that goes on from there, ready to be copied."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from adjudge.runs.work import has_trained
from adjudge.system.parallel import asks_to_shard, world_size

GO_ON = frozenset({"audit", "compare", "continual", "generate", "predict", "rerun", "submit", "tune"})
"""Verbs that keep what is done and go on with it when the same command is given again."""
BEGIN_AGAIN = frozenset({"train", "evaluate", "fetch"})
"""Verbs that begin again with the same command; a run of `train` that did a step goes on with --resume."""


def what_next(verb: str | None, arguments: Sequence[str], folder: str | Path | None) -> str:
    """Return what to do after Ctrl-C or SIGTERM, to follow the word "interrupted".

    It is empty when there is nothing to say. `arguments` are those of the command (``sys.argv``, the program first),
    and `folder` is the run that was being written, if the verb had come that far.
    """
    program, given = _program(arguments[0]), list(arguments[1:])
    if asks_to_shard() and not any(argument.startswith("runtime.shard_base=") for argument in given):
        given.append("runtime.shard_base=true")  # what the launcher asked for, in torchrun's words
    if world_size() > int(os.environ.get("LOCAL_WORLD_SIZE") or world_size()):
        return "" if folder is None else f"; {folder} is incomplete. To continue, start all machines with --resume."
    if verb == "train" and folder is not None and has_trained(Path(folder)):
        return f"; {folder} is incomplete. To continue:\n{shlex.join([*program, *_resuming(given)])}"
    command = shlex.join([*program, *given])
    if verb in GO_ON:
        where = "" if folder is None else f"; {folder} is incomplete"
        return f"{where}. To continue:\n{command}"
    if verb in BEGIN_AGAIN:
        when = " before the first step" if verb == "train" and folder is not None else ""
        return f"{when}. To begin again:\n{command}"
    return ""


def _resuming(given: Sequence[str]) -> list[str]:
    """Return the arguments with --resume and without --force, which would remove what was done."""
    kept = [argument for argument in given if argument != "--force"]
    if "--resume" in kept:
        return kept
    end = kept.index("--") if "--" in kept else len(kept)
    return [*kept[:end], "--resume", *kept[end:]]


def _program(started: str) -> list[str]:
    """Return the words that start this program in the user's shell: ``adjudge`` where that is on the path."""
    path = Path(started)
    if world_size() > 1:
        return ["torchrun", "--nproc-per-node", os.environ.get("LOCAL_WORLD_SIZE", "N"), "-m", path.parent.name]
    if path.name == "__main__.py":
        return [sys.executable, "-m", path.parent.name]
    on_path = shutil.which(path.name)
    if on_path is None or (path.name != started and path.resolve() != Path(on_path).resolve()):
        return [started]
    return [path.name]
