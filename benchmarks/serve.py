"""Measure a served judge under many clients, beside plain servers of the same merged model.

    python -m benchmarks.serve --run RUN --data-dir data --seconds 40

Each server runs alone, in its own process. Clients send one row each and wait for its answer, in a circle, for
`--seconds` after a warm-up. A row that is not answered with 200 is an error. The peers get the same rows as finished
prompts, so their work is the same:

- ``plain``: Starlette and one ``generate`` after another (``peers/serve_generate.py``)
- ``transformers``: ``transformers serve``, ``/v1/completions``; needs the extra `serving` of transformers
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from adjudge.experiments.evaluate import load_judge
from adjudge.tasks import load_split, load_task
from adjudge.types import Example

PEER = Path(__file__).with_name("peers") / "serve_generate.py"
ROOT = Path(__file__).resolve().parents[1]
START_S = 300.0
WARM_UP_S = 5.0


@dataclass(frozen=True, slots=True)
class Target:
    """A server: its command (with PORT), the address rows are sent to, and the body of each row."""

    name: str
    command: Sequence[str]
    path: str
    bodies: Sequence[bytes]


@dataclass(slots=True)
class Measured:
    """What the clients saw: the seconds of each answered row, and the number of errors."""

    name: str
    seconds: float
    clients: int
    latencies_s: list[float] = field(default_factory=list)
    errors: int = 0
    cpu_s: float | None = None
    """Processor seconds of the server in the measured time; on a shared machine they tell more than rows/s."""
    reason: str = ""

    def figures(self) -> dict[str, Any]:
        """Return rows per second, the percentiles of the seconds per row, and the errors."""
        ordered = sorted(self.latencies_s)
        shares = {f"p{share}_s": _percentile(ordered, share) for share in (50, 95, 99)}
        rate = round(len(ordered) / self.seconds, 2)
        kept = {key: value for key, value in asdict(self).items() if key != "latencies_s"}
        per_cpu_s = round(len(ordered) / self.cpu_s, 2) if self.cpu_s else None
        return {**kept, "rows": len(ordered), "rows_per_s": rate, "rows_per_cpu_s": per_cpu_s, **shares}


def _percentile(ordered: Sequence[float], share: int) -> float | None:
    if not ordered:
        return None
    return round(ordered[min(len(ordered) - 1, len(ordered) * share // 100)], 3)


async def post(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, path: str, body: bytes) -> tuple[int, bytes]:
    """Send one request over an open connection, and return status and body of its answer."""
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    writer.write(head.encode() + body)
    answer = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    headers = dict(line.lower().split(": ", 1) for line in answer.split("\r\n")[1:] if ": " in line)
    return int(answer.split()[1]), await reader.readexactly(int(headers["content-length"]))


async def _client(port: int, target: Target, number: int, result: Measured, begin: float, end: float) -> None:
    """Send rows in a circle until `end`; count those that begin and end within the measured time."""
    connection = None
    step = number
    while time.monotonic() < end:
        sent = time.monotonic()
        try:
            connection = connection or await asyncio.open_connection("127.0.0.1", port)
            status, _ = await post(*connection, target.path, target.bodies[step % len(target.bodies)])
            step += 1
        except (OSError, EOFError, ValueError, KeyError, asyncio.IncompleteReadError):
            status, connection = 0, None
            await asyncio.sleep(0.1)
        now = time.monotonic()
        if begin <= now < end:
            if status == 200:
                result.latencies_s.append(now - sent)
            else:
                result.errors += 1


async def load(port: int, pid: int, target: Target, clients: int, seconds: float) -> Measured:
    """Let clients send rows for a warm-up and `seconds`; answers after the end are not counted."""
    result = Measured(target.name, seconds, clients)
    begin = time.monotonic() + WARM_UP_S
    tasks = [
        asyncio.create_task(_client(port, target, number, result, begin, begin + seconds)) for number in range(clients)
    ]
    await asyncio.sleep(WARM_UP_S)
    before = cpu_seconds(pid)
    await asyncio.sleep(seconds)
    after = cpu_seconds(pid)
    result.cpu_s = None if before is None or after is None else round(after - before, 1)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    return result


def cpu_seconds(pid: int) -> float | None:
    """Return the processor seconds of a process so far; None where /proc does not tell."""
    stat = Path(f"/proc/{pid}/stat")
    if not stat.is_file():
        return None
    fields = stat.read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def measure(target: Target, clients: int, seconds: float, environment: Mapping[str, str], log: Path) -> Measured:
    """Start a server, put it under load, and stop it."""
    port = _free_port()
    command = [part.replace("PORT", str(port)) for part in target.command]
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, env={**os.environ, **environment}, cwd=ROOT)
    try:
        if reason := _wait(process, port, target, log):
            return Measured(target.name, seconds, clients, reason=reason)
        return asyncio.run(load(port, process.pid, target, clients, seconds))
    finally:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait(process: subprocess.Popen[bytes], port: int, target: Target, log: Path) -> str:
    """Wait until a row is answered with 200; return why not, or nothing."""
    end = time.monotonic() + START_S
    last = "nothing listens"
    while time.monotonic() < end:
        if process.poll() is not None:
            tail = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
            return f"ended with code {process.returncode}: {tail[-1] if tail else ''}"
        try:
            status, body = asyncio.run(_one(port, target))
        except (OSError, EOFError, asyncio.IncompleteReadError):
            time.sleep(0.5)
            continue
        if status == 200:
            return ""
        last = f"{status}: {body[:200].decode('utf-8', 'replace')}"
        time.sleep(0.5)
    return f"no answer within {START_S:.0f} s ({last})"


async def _one(port: int, target: Target) -> tuple[int, bytes]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        return await post(reader, writer, target.path, target.bodies[0])
    finally:
        writer.close()


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])


def targets(options: argparse.Namespace, work: Path) -> list[Target]:
    """Return ours and the peers, with the rows in the form that each reads."""
    run, _, judge = load_judge(options.run)
    texts = texts_of(options)
    ours = [json.dumps({"texts": [text]}).encode() for text in texts]
    python = sys.executable
    command = [python, "-m", "adjudge", "serve", "--run", str(Path(options.run).resolve()), "--port", "PORT"]
    command.append(f"runtime.threads={options.threads}")  # the run's own would hold
    chosen = [Target("adjudge serve", command, "/v1/classify", ours)]
    task = judge.task  # type: ignore[attr-defined]
    (name,) = task.spec.fields
    prompts = [task.renderer.text(Example(str(n), {name: text})) for n, text in enumerate(texts)]
    if options.peers:
        save_merged(run, work / "merged")
    for peer in options.peers:
        most = task.end.max_tokens
        shared = {"model": str(work / "merged"), "max_tokens": most, "temperature": 0}
        bodies = [json.dumps({**shared, "prompt": prompt}).encode() for prompt in prompts]
        if peer == "plain":
            command = [python, str(PEER), str(work / "merged"), "PORT"]
        else:
            serve = ["serve", str(work / "merged"), "--port", "PORT", "--host", "127.0.0.1", "--dtype", "float32"]
            command = [str(Path(python).with_name("transformers")), *serve, "--device", "cpu"]
        chosen.append(
            Target({"plain": "Starlette + generate"}.get(peer, "transformers serve"), command, COMPLETE, bodies)
        )
    return chosen


COMPLETE = "/v1/completions"


def texts_of(options: argparse.Namespace) -> list[str]:
    """Return the texts of the task's dev rows."""
    spec = load_task(options.task)
    rows = load_split(spec, "dev", data_dir=options.data_dir)
    field_name = next(iter(spec.fields))
    return [row.fields[field_name] for row in rows][: options.rows]


def save_merged(run: Any, folder: Path) -> None:
    """Write the run's model with its adapter merged by plain peft, as its peers load it."""
    from peft import PeftModel

    from adjudge.models.sources.loading import load_causal_lm

    model, tokenizer = load_causal_lm(run.config.model, run.config.runtime)
    merged = PeftModel.from_pretrained(model, str(run.part("adapter"))).merge_and_unload()
    merged.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def table(results: Sequence[Measured]) -> str:
    """Return the figures as a table in Markdown, with the ratio of ours to each."""
    lines = ["| server | rows/s | rows per CPU s | p50 s | p95 s | errors | ours / this |"]
    lines.append("| --- | --: | --: | --: | --: | --: | --: |")
    ours = results[0].figures()["rows_per_s"]
    for result in results:
        figures = result.figures()
        if result.reason:
            lines.append(f"| {result.name} | not measured: {result.reason} | | | | | |")
            continue
        ratio = f"{ours / figures['rows_per_s']:.1f}" if figures["rows_per_s"] else "–"
        cells = [
            figures["rows_per_s"],
            figures["rows_per_cpu_s"],
            figures["p50_s"],
            figures["p95_s"],
            figures["errors"],
            ratio,
        ]
        lines.append(f"| {result.name} | {' | '.join(map(str, cells))} |")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure all servers, one after the other, and write the figures."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--run", required=True, help="run folder of a task with one field")
    parser.add_argument("--task", default="glue/sst2", help="task whose dev rows are sent")
    parser.add_argument("--data-dir", help="folder in the official download layout")
    parser.add_argument("--rows", type=int, default=400, help="different rows that are sent")
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=40.0, help="measured time per server")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1, help="threads of each server's model")
    parser.add_argument("--peers", default="plain,transformers", help="plain, transformers, both, or nothing")
    parser.add_argument("--out", default="runs/bench/serve.json")
    options = parser.parse_args(arguments)
    options.peers = [peer for peer in options.peers.split(",") if peer]
    environment = {"OMP_NUM_THREADS": str(options.threads), "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    results = []
    out = Path(options.out)
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="adjudge-bench-") as folder:
        for target in targets(options, Path(folder)):
            log = out.with_name(f"{out.stem}-{target.name.split()[0].lower()}.log")
            results.append(measure(target, options.clients, options.seconds, environment, log))
            figures = [result.figures() for result in results]
            out.write_text(json.dumps({"load_average": os.getloadavg(), "results": figures}, indent=2) + "\n")
    print(table(results))


if __name__ == "__main__":
    main()
