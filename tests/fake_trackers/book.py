"""What the fake trackers were told, in files of $FAKE_TRACKERS: it outlives the process that told it."""

import json
import os
import time
from pathlib import Path


def path(name):
    return Path(os.environ["FAKE_TRACKERS"]) / f"{name}.json"


def read(name):
    return json.loads(path(name).read_text()) if path(name).is_file() else {}


def write(name, tracked):
    path(name).write_text(json.dumps(tracked))


def trouble(call):
    """Behave as $FAKE_TROUBLE says when it names this call: ``log:raise``, ``init:exit``, ``init:hang``."""
    where, _, what = os.environ.get("FAKE_TROUBLE", "").partition(":")
    if where != call:
        return
    if what == "raise":
        raise ConnectionError("the tracker's server\nis gone")
    if what == "exit":
        os._exit(3)
    if what == "ask":
        input("your key, please: ")
    if what == "print":
        print("the tracker prints what it likes", flush=True)
    if what == "hang":
        time.sleep(20)
