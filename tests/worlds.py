"""Start several processes that train together, as torchrun does, from one import of PyTorch (gloo, on the CPU)."""

from __future__ import annotations

import faulthandler
import os
import random
import socket
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from processes import _SERVER

WITHIN_S = 150.0
"""Seconds for a world to end."""


def run_world(size: int, action: Callable[..., None], *arguments: Any, folder: Path) -> list[int]:
    """Call ``action(*arguments)`` in `size` processes, and return their exit codes.

    What each process printed lies in ``folder/process-RANK.txt``.
    """
    folder.mkdir(parents=True, exist_ok=True)
    port = _free_port()
    world = [
        _SERVER.Process(target=_run, args=(rank, size, port, str(folder), action, arguments)) for rank in range(size)
    ]
    for process in world:
        process.start()
    deadline = time.monotonic() + WITHIN_S
    codes = []
    for process in world:
        process.join(max(0.0, deadline - time.monotonic()))
        codes.append(process.exitcode)
        process.kill()
    assert None not in codes, printed(folder)
    return codes


def _free_port() -> int:
    """Return a port that is free and that no outgoing connection is given meanwhile."""
    for port in random.SystemRandom().sample(range(20_000, 32_000), 50):
        with socket.socket() as free:
            try:
                free.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise AssertionError("50 ports were tried, and all are taken")


def printed(folder: Path) -> list[str]:
    """Return what each process of a world printed, in their order."""
    return [path.read_text(encoding="utf-8") for path in sorted(folder.glob("process-*.txt"))]


def _run(rank: int, size: int, port: int, folder: str, action: Callable[..., None], arguments: tuple[Any, ...]) -> None:
    import torch

    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(size), LOCAL_WORLD_SIZE=str(size))
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    for descriptor in (1, 2):
        os.dup2(os.open(f"{folder}/process-{rank}.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), descriptor)
    sys.stdout = open(1, "w", buffering=1, encoding="utf-8", closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", buffering=1, encoding="utf-8", closefd=False)  # noqa: SIM115
    torch.set_num_threads(1)
    faulthandler.dump_traceback_later(WITHIN_S - 20.0)  # says where a process hangs
    try:
        action(*arguments)
    except BaseException:
        traceback.print_exc()
        raise
