"""Measure adjudge against its peers: both sides in turn, each time in a new process.

    python -m benchmarks.run --data-dir DIR
    python -m benchmarks.run --data-dir DIR --pairs ppo-0.11,sft --rounds 3

Both sides get the same rows and environment variables. Each process runs one warm-up batch and `--batches` measured
batches. Every result is saved under ``--out`` at once, so an interrupt loses only the running process. The same command
then continues; `--fresh` measures everything again. When the specification, the code or the variables of a round have
changed, both of its sides are measured again; with `--keep-peers` only ours.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adjudge.system.files import write_json
from benchmarks.peers import environments
from benchmarks.setting import (
    PAIRS,
    ROOT,
    add_options,
    child_variables,
    digest,
    for_pair,
    parse_pairs,
    prepare,
    provenance,
    run_program,
)

REPORT_EVERY_S = 30.0
SIDES = ("peer", "ours")


@dataclass(frozen=True, slots=True)
class Job:
    """One process to run: one side of a pair in one round, and the file of its result."""

    pair: str
    round: int
    side: str
    kept: Path

    @property
    def title(self) -> str:
        """Return the job's name for the terminal."""
        name = environments.PEERS[PAIRS[self.pair].peer].title if self.side == "peer" else "adjudge"
        return f"{self.pair} round {self.round}: {name}"

    def command(self, spec: Path, result: Path) -> list[str]:
        """Return the command line, with the interpreter of the peer's environment or, for ours, this one."""
        pair = PAIRS[self.pair]
        if self.side == "ours":
            return [sys.executable, "-m", "benchmarks.ours", str(spec), str(result), "--what", pair.what]
        peer = environments.PEERS[pair.peer]
        return [str(environments.python_of(peer.environment)), str(peer.path), str(spec), str(result)]


def code_of(pair: str, side: str) -> str:
    """Return the digest of the code that a side runs; a result of other code is measured again."""
    our_files = [Path(__file__).parent / "ours.py", *sorted((ROOT / "src" / "adjudge").rglob("*.py"))]
    peer = environments.PEERS[PAIRS[pair].peer]
    peer_files = [peer.path, environments.HERE / "common.py", environments.requirements_of(peer.environment)]
    return digest(*(our_files if side == "ours" else peer_files))


Rounds = dict[str, list[dict[str, Any]]]
"""``{pair: [{"peer": result, "ours": result}, …]}``, one entry per round."""
Runner = Callable[[list[str], dict[str, str], Path, str], int]
"""Runs a command with environment variables, an output file and a title; returns the exit status."""


def missing_pairs(
    names: Sequence[str], reason: Callable[[str], str | None] = environments.reason_missing
) -> dict[str, str]:
    """Return the pairs whose peer cannot run here, with the reason and how to make the environment."""
    reasons = {}
    for name in names:
        why = reason(environments.PEERS[PAIRS[name].peer].environment)
        if why is not None:
            reasons[name] = why
    return reasons


def kept_result(job: Job, key: dict[str, Any], *, keep_peers: bool = False) -> dict[str, Any] | None:
    """Return the saved result of a job; None when it is missing, failed, damaged or has another `key`.

    With `keep_peers`, a peer's result stays valid after a change of our code.
    """
    try:
        kept = json.loads(job.kept.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    ignored = {"round"} if keep_peers and job.side == "peer" else set()
    same = all(kept.get("key", {}).get(name) == value for name, value in key.items() if name not in ignored)
    return kept if same and "error" not in kept.get("result", {"error": "none"}) else None


def run_process(command: list[str], variables: dict[str, str], log: Path, title: str, limit_s: float = 7200.0) -> int:
    """Run a command from the repository's root; return its exit status, or 124 after `limit_s` seconds.

    Reports every 30 seconds that the command still runs. The command ends when this process does.
    """
    began = reported = time.monotonic()
    with log.open("w", encoding="utf-8") as output:
        child = subprocess.Popen(
            command, cwd=ROOT, env={**os.environ, **variables}, stdout=output, stderr=subprocess.STDOUT
        )
        try:
            while child.poll() is None:
                time.sleep(0.2)
                moment = time.monotonic()
                if moment - began > limit_s:
                    output.write(f"stopped after {limit_s:.0f} s\n")
                    return 124
                if moment - reported > REPORT_EVERY_S:
                    reported = moment
                    print(f"    {title}: still running after {moment - began:.0f} s", flush=True)
        finally:
            if child.poll() is None:
                child.terminate()
                try:
                    child.wait(10)
                except subprocess.TimeoutExpired:
                    child.kill()
                    child.wait()
    return child.returncode


def do_job(job: Job, spec: Path, key: dict[str, Any], variables: dict[str, str], runner: Runner) -> dict[str, Any]:
    """Run one job and save its result, or the error that ended it."""
    folder = job.kept.parent
    folder.mkdir(parents=True, exist_ok=True)
    aside, log = job.kept.with_suffix(".part"), job.kept.with_suffix(".log")
    aside.unlink(missing_ok=True)
    began = time.time()
    status = runner(job.command(spec, aside), variables, log, job.title)
    try:
        result = json.loads(aside.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        tail = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-5:] if log.is_file() else []
        result = {"error": f"exit status {status} and no result; last lines: {' / '.join(tail)}"}
    kept = {"key": key, "pair": job.pair, "round": job.round, "side": job.side, "began": began, "result": result}
    write_json(job.kept, kept)
    aside.unlink(missing_ok=True)
    return kept


def jobs_of(pairs: Sequence[str], rounds: int, out: Path, sides: Sequence[str] = SIDES) -> list[Job]:
    """Return all jobs in the order they run; the sides of a round follow each other directly."""
    return [
        Job(pair, number, side, out / "pairs" / pair / f"round-{number}-{side}.json")
        for pair in pairs
        for number in range(1, rounds + 1)
        for side in sides
    ]


def run_jobs(
    jobs: Sequence[Job],
    spec: dict[str, Any],
    options: argparse.Namespace,
    runner: Runner = run_process,
    after: Callable[[Rounds], None] = lambda results: None,
) -> Rounds:
    """Run every job without a saved result; after each job, call `after` with all results so far."""
    variables = child_variables(spec["threads"])
    codes = {name: {side: code_of(name, side) for side in SIDES} for name in {job.pair for job in jobs}}
    results: Rounds = {}
    for count, job in enumerate(jobs, 1):
        given = for_pair(spec, PAIRS[job.pair].what)
        path = options.out / "pairs" / job.pair / "SPEC.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, given)
        peer_spec = {name: value for name, value in given.items() if name != "ours"}
        # "round" makes both sides stale together: the machine may have changed since the first measurement.
        key = {
            "spec": digest(given if job.side == "ours" else peer_spec),
            "code": codes[job.pair][job.side],
            "variables": variables,
        }
        key["round"] = digest(given, codes[job.pair])
        kept = None if options.fresh else kept_result(job, key, keep_peers=options.keep_peers)
        known = kept is not None
        if kept is None:
            print(f"[{count}/{len(jobs)}] {job.title} …", flush=True)
            kept = do_job(job, path.resolve(), key, variables, runner)
        note = " (saved before)" if known else ""
        print(f"[{count}/{len(jobs)}] {job.title}: {say(kept['result'])}{note}", flush=True)
        rounds = results.setdefault(job.pair, [])
        while len(rounds) < job.round:
            rounds.append({})
        rounds[job.round - 1][job.side] = kept["result"]
        after(results)
    return results


def say(result: dict[str, Any]) -> str:
    """Return ``31.2 s per batch of 16, 4.40 GiB``, or what went wrong."""
    if "error" in result:
        return f"failed: {result['error']}"
    seconds = sum(result["seconds"]) / len(result["seconds"])
    memory = result.get("peak_gib")
    size = "" if memory is None else f", {memory:.2f} GiB"
    return f"{seconds:.2f} s per batch of {result['rows_per_batch']}{size}"


def save(out: Path, results: Rounds, how: dict[str, Any], missing: dict[str, str]) -> None:
    """Write results.json with these pairs and those of earlier runs; `how` is a `provenance`."""
    path = out / "results.json"
    pairs = json.loads(path.read_text(encoding="utf-8")).get("pairs", {}) if path.is_file() else {}
    pairs |= {name: {**how, "rounds": rounds} for name, rounds in results.items()}
    write_json(
        path,
        {
            "pairs": {name: pairs[name] for name in PAIRS if name in pairs},
            "missing": {name: why for name, why in missing.items() if name not in pairs},
        },
    )


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the options of this program."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.run", description="Measure adjudge against its peers.")
    add_options(parser)
    parser.add_argument(
        "--pairs", help=f"pairs to compare, of {','.join(PAIRS)} (default: all whose environment exists)"
    )
    parser.add_argument(
        "--rounds", type=int, default=2, help="runs per side, in turn with the other side (default: %(default)s)"
    )
    parser.add_argument("--sides", choices=("both", "ours"), default="both", help="ours: no peers, no ratios")
    parser.add_argument("--fresh", action="store_true", help="measure everything again, also saved results")
    parser.add_argument("--keep-peers", action="store_true", help="keep the peers' results after a change of our code")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and write results.json; return the exit status.

    The status is 1 when no pair can run, our side failed, or a pair named in `--pairs` could not run, and 130 after
    Ctrl-C. Raises AdjudgeError for unusable options, data or model.
    """
    options = parse(arguments)
    given = list(sys.argv[1:] if arguments is None else arguments)
    names = parse_pairs(options.pairs)
    missing = missing_pairs(names) if options.sides == "both" else {}
    for name, why in missing.items():
        print(f"{name}: skipped: {why}", flush=True)
    names = [name for name in names if name not in missing]
    if not names:
        print("error: no pair can run; `--sides ours` measures only our side.", file=sys.stderr)
        return 1
    options.out.mkdir(parents=True, exist_ok=True)
    spec, settings = prepare(options)
    jobs = jobs_of(names, options.rounds, options.out, SIDES if options.sides == "both" else ("ours",))
    how = provenance("run", settings, given)

    def keep(results: Rounds) -> None:
        save(options.out, results, how, missing)

    try:
        results = run_jobs(jobs, spec, options, after=keep)
    except KeyboardInterrupt:
        print("\nstopped; the same command continues from here", file=sys.stderr)
        return 130
    from benchmarks.table import render

    print(render(options.out))
    print(f"saved in {options.out}; write the page with: python -m benchmarks.table --write docs/results/speed.md")
    failed = any("error" in one.get("ours", {}) for rounds in results.values() for one in rounds)
    return int(failed or bool(missing and options.pairs))


if __name__ == "__main__":
    run_program(main)
