"""Run every command and example of the guide "From a CSV to a service", in order, with a tiny model."""

from __future__ import annotations

import csv
import json
import re
import shlex
import signal
import socket
import subprocess
import urllib.request
from pathlib import Path

import pytest
from processes import adjudge, start, wait_for

from adjudge.errors import AdjudgeError
from adjudge.tasks import load_split, load_task

GUIDE = Path(__file__).parents[2] / "docs" / "guides" / "csv-to-service.md"
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```", re.MULTILINE | re.DOTALL)
QUICK = ("sft.epochs=1", "sft.min_steps=0", "evaluation.resamples=100", "runtime.threads=1", "data.train_rows=24")


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def answers(port):
    try:
        return urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=1).status == 200
    except OSError:
        return False


def test_every_command_of_the_guide(tiny_llama, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    try:
        load_split(load_task("vader/movies"), "train")
    except AdjudgeError as error:
        pytest.skip(f"the rated sentences are not here: {error}")
    port, server, ran = free_port(), None, []
    try:
        for language, body in BLOCK.findall(GUIDE.read_text(encoding="utf-8")):
            if language == "python":
                exec(compile(body, str(GUIDE), "exec"), {})
                continue
            assert language == "sh"
            for line in body.replace("\\\n", " ").splitlines():
                program, *arguments = shlex.split(line.replace(":8000", f":{port}"), comments=True)
                ran.append(f"{program} {arguments[0]}" if program == "adjudge" else program)
                if program == "pip":
                    assert arguments == ["install", "adjudge[serve]"]
                elif program == "curl":
                    output = subprocess.run(["curl", "-sS", *arguments], check=True, capture_output=True, text=True)
                    (prediction,) = json.loads(output.stdout)["predictions"]
                    assert set(prediction["probabilities"]) == {"Negative", "Positive"}
                elif arguments[0] == "serve":
                    server = start(*arguments, "--port", port)
                    wait_for(lambda: answers(port), 60)
                elif arguments[0] == "compare":
                    adjudge(*arguments, f"model={tiny_llama}", *QUICK)
                elif arguments[0] == "export":  # answers of random weights are near a tie
                    adjudge(*arguments, "--rows", 4, "--max-changed", 1)
                else:
                    adjudge(*arguments)
    finally:
        if server is not None:
            server.signal(signal.SIGTERM)
            server.wait()
    assert ran == ["adjudge compare", "adjudge predict", "pip", "adjudge serve", "curl", "adjudge export"]
    assert (tmp_path / "runs/reviews/report.html").is_file()
    with (tmp_path / "judged.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    with (tmp_path / "new.csv").open(encoding="utf-8", newline="") as file:
        assert [row["text"] for row in rows] == [row["text"] for row in csv.DictReader(file)]
    assert {path.suffix for path in (tmp_path / "judge-gguf").iterdir()} >= {".gguf"}
    assert (tmp_path / "judge-gguf" / "Modelfile").is_file()
