"""Measure adjudge beside its peers: peer, ours, peer, ours, …, each in a process of its own, same rows, same variables.

    python -m benchmarks.run --data-dir DIR
    python -m benchmarks.run --data-dir DIR --pairs ppo-0.11,sft --rounds 3

Each process does one batch to warm up and `--batches` measured ones. Every result is kept under ``--out`` as it comes: an interrupt
loses the process under way and nothing else, and the same command goes on from there (`--fresh` measures everything anew). A round
whose specification, code or variables have changed is measured again, both sides of it; with `--keep-peers` only our side.
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

SAY_EVERY_S = 30.0
SIDES = ("peer", "ours")


@dataclass(frozen=True, slots=True)
class Job:
    """One process to run: a side of a pair in a round, and where its result is kept."""

    pair: str
    round: int
    side: str
    kept: Path

    @property
    def title(self) -> str:
        """What the person at the terminal reads."""
        name = environments.PEERS[PAIRS[self.pair].peer].title if self.side == "peer" else "adjudge"
        return f"{self.pair} round {self.round}: {name}"

    def command(self, spec: Path, result: Path) -> list[str]:
        """The command line; a peer runs under its environment's interpreter, we under this one."""
        pair = PAIRS[self.pair]
        if self.side == "ours":
            return [sys.executable, "-m", "benchmarks.ours", str(spec), str(result), "--what", pair.what]
        peer = environments.PEERS[pair.peer]
        return [str(environments.python_of(peer.environment)), str(peer.path), str(spec), str(result)]


def code_of(pair: str, side: str) -> str:
    """Digest of the code that a side runs: a result of other code is another result."""
    own = [Path(__file__).parent / "ours.py", *sorted((ROOT / "src" / "adjudge").rglob("*.py"))]
    peer = environments.PEERS[PAIRS[pair].peer]
    theirs = [peer.path, environments.HERE / "common.py", environments.requirements_of(peer.environment)]
    return digest(*(own if side == "ours" else theirs))


Rounds = dict[str, list[dict[str, Any]]]
"""``{pair: [{"peer": result, "ours": result}, …]}``, a round each."""
Runner = Callable[[list[str], dict[str, str], Path, str], int]
"""Runs a command with variables, its output into a file, under a title; returns the exit status."""


def missing_pairs(
    names: Sequence[str], reason: Callable[[str], str | None] = environments.reason_missing
) -> dict[str, str]:
    """Pairs whose peer cannot run here, each with the reason and how to make its environment."""
    found = {}
    for name in names:
        why = reason(environments.PEERS[PAIRS[name].peer].environment)
        if why is not None:
            found[name] = why
    return found


def kept_result(job: Job, key: dict[str, Any], *, keep_peers: bool = False) -> dict[str, Any] | None:
    """The result that is kept for a job, or None where there is none, it failed, it is damaged, or `key` is another.

    With `keep_peers` a peer's result outlives a change of our code.
    """
    try:
        kept = json.loads(job.kept.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    ignored = {"round"} if keep_peers and job.side == "peer" else set()
    same = all(kept.get("key", {}).get(name) == value for name, value in key.items() if name not in ignored)
    return kept if same and "error" not in kept.get("result", {"error": "none"}) else None


def run_process(command: list[str], variables: dict[str, str], log: Path, title: str, limit_s: float = 7200.0) -> int:
    """Run a command from the repository's root, say now and then that it still runs; it ends with us. Returns its exit status."""
    began = said = time.monotonic()
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
                if moment - said > SAY_EVERY_S:
                    said = moment
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
    """Run one job and keep its result, or the error it died of."""
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
        result = {"error": f"exit status {status} and no result; its last lines: {' / '.join(tail)}"}
    kept = {"key": key, "pair": job.pair, "round": job.round, "side": job.side, "began": began, "result": result}
    write_json(job.kept, kept)
    aside.unlink(missing_ok=True)
    return kept


def jobs_of(pairs: Sequence[str], rounds: int, out: Path, sides: Sequence[str] = SIDES) -> list[Job]:
    """All jobs in the order they run: the sides of a round directly after each other."""
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
    after: Callable[[Rounds], None] = lambda found: None,
) -> Rounds:
    """Run what is not yet there, calling `after` with all that is there whenever a job has ended."""
    variables = child_variables(spec["threads"])
    codes = {name: {side: code_of(name, side) for side in SIDES} for name in {job.pair for job in jobs}}
    found: Rounds = {}
    for count, job in enumerate(jobs, 1):
        given = for_pair(spec, PAIRS[job.pair].what)
        path = options.out / "pairs" / job.pair / "SPEC.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, given)
        theirs = {name: value for name, value in given.items() if name != "ours"}
        # "round" makes both sides of a round stale together: the machine may have changed since, too.
        key = {
            "spec": digest(given if job.side == "ours" else theirs),
            "code": codes[job.pair][job.side],
            "variables": variables,
        }
        key["round"] = digest(given, codes[job.pair])
        kept = None if options.fresh else kept_result(job, key, keep_peers=options.keep_peers)
        known = kept is not None
        if kept is None:
            print(f"[{count}/{len(jobs)}] {job.title} …", flush=True)
            kept = do_job(job, path.resolve(), key, variables, runner)
        print(f"[{count}/{len(jobs)}] {job.title}: {say(kept['result'])}{' (kept)' if known else ''}", flush=True)
        rounds = found.setdefault(job.pair, [])
        while len(rounds) < job.round:
            rounds.append({})
        rounds[job.round - 1][job.side] = kept["result"]
        after(found)
    return found


def say(result: dict[str, Any]) -> str:
    """``31.2 s a batch of 16, 4.40 GiB`` or what went wrong."""
    if "error" in result:
        return f"failed: {result['error']}"
    seconds = sum(result["seconds"]) / len(result["seconds"])
    memory = result.get("peak_gib")
    return f"{seconds:.2f} s a batch of {result['rows_per_batch']}" + ("" if memory is None else f", {memory:.2f} GiB")


def save(out: Path, found: Rounds, how: dict[str, Any], missing: dict[str, str]) -> None:
    """Write results.json, pairs of earlier runs kept beside the new ones; `how` is `provenance`."""
    path = out / "results.json"
    pairs = json.loads(path.read_text(encoding="utf-8")).get("pairs", {}) if path.is_file() else {}
    pairs |= {name: {**how, "rounds": rounds} for name, rounds in found.items()}
    write_json(
        path,
        {
            "pairs": {name: pairs[name] for name in PAIRS if name in pairs},
            "missing": {name: why for name, why in missing.items() if name not in pairs},
        },
    )


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The driver's options."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.run", description="Measure adjudge beside its peers.")
    add_options(parser)
    parser.add_argument(
        "--pairs", help=f"which comparisons, of {','.join(PAIRS)} (default: all whose environment is made)"
    )
    parser.add_argument(
        "--rounds", type=int, default=2, help="how often each side runs, alternating (default: %(default)s)"
    )
    parser.add_argument("--sides", choices=("both", "ours"), default="both", help="ours: no peers, no ratios")
    parser.add_argument("--fresh", action="store_true", help="measure again what is kept")
    parser.add_argument(
        "--keep-peers", action="store_true", help="keep the peers' results although our own code has changed"
    )
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and write results.json; the exit status is 1 where ours failed or a pair asked for by name could not run.

    Raises AdjudgeError where there is nothing to measure with.
    """
    options = parse(arguments)
    given = list(sys.argv[1:] if arguments is None else arguments)
    names = parse_pairs(options.pairs)
    missing = missing_pairs(names) if options.sides == "both" else {}
    for name, why in missing.items():
        print(f"{name}: left out: {why}", flush=True)
    names = [name for name in names if name not in missing]
    if not names:
        print("error: nothing can be compared; `--sides ours` measures our side alone.", file=sys.stderr)
        return 1
    options.out.mkdir(parents=True, exist_ok=True)
    spec, settings = prepare(options)
    jobs = jobs_of(names, options.rounds, options.out, SIDES if options.sides == "both" else ("ours",))
    how = provenance("run", settings, given)

    def keep(found: Rounds) -> None:
        save(options.out, found, how, missing)

    try:
        found = run_jobs(jobs, spec, options, after=keep)
    except KeyboardInterrupt:
        print("\nstopped; the same command goes on from here", file=sys.stderr)
        return 130
    from benchmarks.table import render

    print(render(options.out))
    print(f"kept in {options.out}; into the page with: python -m benchmarks.table --write docs/results/speed.md")
    failed = any("error" in one.get("ours", {}) for rounds in found.values() for one in rounds)
    return int(failed or bool(missing and options.pairs))


if __name__ == "__main__":
    run_program(main)
