"""Measure the engine on one GPU: exactness of replayed passes, training and judging, beside the peer.

    python -m benchmarks.gpu --data-dir DIR --out runs/gpu                 # all parts, with the 135M model
    python -m benchmarks.gpu --data-dir DIR --parts exact,ppo-16 --models smollm2-135m,random:llama-2-7b

Each part is a process of its own with a time limit, and leaves its result behind at once; ``ppo-16+judge`` are two
parts in one process, which saves a start. Prompts are real rows in the
paper's form (about 100 tokens, two thirds of them shared); an update takes a whole batch, four times. Speed is the
median over the measured batches, after warm-up batches in which shapes are captured.

Parts: ``exact`` compares replayed passes with usual ones; ``ppo-N`` and ``sft-N`` train with batches of N rows;
``usual-N`` is ``ppo-N`` without replays; ``judge`` answers all dev rows greedily; ``peer-N`` is trl 1.12's PPO;
``profile-N`` lists where the time of a PPO step goes.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.setting import ROOT, child_variables

PARTS = ("exact", "ppo-16", "ppo-64", "usual-16", "sft-64", "judge", "peer-16", "peer-64")
LIMIT_S = {"exact": 60, "ppo": 60, "usual": 45, "sft": 45, "judge": 60, "peer": 90, "profile": 60}
WARM_UP, MEASURED = 6, 10
FEW = 2
"""Measured batches of sides that are slow."""


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", required=True, help="folder with GLUE in the official layout")
    parser.add_argument("--models", default="smollm2-135m", help="names, separated by commas (default: %(default)s)")
    parser.add_argument("--parts", default=",".join(PARTS), help="default: %(default)s")
    parser.add_argument("--out", type=Path, default=Path("runs/gpu"))
    parser.add_argument("--peer-python", default=None, help="Python of trl 1.12's environment (default: its own)")
    parser.add_argument("--limit-s", type=float, default=480.0, help="end after so many seconds")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        began = float(os.environ["ADJUDGE_BENCH_BEGAN"])
        for part in given.one.split("+"):
            result = _measure(part, given.models, given, began)
            (given.out / _file(given.models, part)).write_text(json.dumps(result, indent=1), encoding="utf-8")
            print(f"{given.models} {part}: {result['line']}", flush=True)
            began = time.time()  # of a part that shares its process, the start is that of its loading
        return
    given.out.mkdir(parents=True, exist_ok=True)
    end = time.monotonic() + given.limit_s
    for model in given.models.split(","):
        for part in given.parts.split(","):
            left = end - time.monotonic()
            if left < 10:
                print(f"{model} {part}: no time left")
                continue
            limit = min(left, sum(LIMIT_S[each.split("-")[0]] for each in part.split("+")))
            print(f"{model} {part}: {_run(model, part, given, limit)}", flush=True)
    print(table(given.out))


def _file(model: str, part: str) -> str:
    return f"{model.replace(':', '-')}.{part}.json"


def _run(model: str, part: str, given: argparse.Namespace, limit_s: float) -> str:
    """Run one part in a process of its own, and return a line about it."""
    command = [sys.executable, "-m", "benchmarks.gpu", "--one", part, "--models", model, "--out", str(given.out)]
    command += ["--data-dir", given.data_dir]
    command += ["--peer-python", given.peer_python] if given.peer_python else []
    variables = {**os.environ, **child_variables(8), "ADJUDGE_BENCH_BEGAN": str(time.time())}
    paths = [given.out / _file(model, each) for each in part.split("+")]
    for path in paths:
        path.unlink(missing_ok=True)
    log = paths[0].with_suffix(".log")
    try:
        with log.open("w", encoding="utf-8") as output:
            done = subprocess.run(
                command, cwd=ROOT, env=variables, stdout=output, stderr=output, timeout=limit_s, check=False
            )
    except subprocess.TimeoutExpired:
        found = [json.loads(path.read_text(encoding="utf-8"))["line"] for path in paths if path.is_file()]
        return "\n    ".join([*found, f"stopped after {limit_s:.0f} s"])
    found = [json.loads(path.read_text(encoding="utf-8"))["line"] for path in paths if path.is_file()]
    if done.returncode or len(found) < len(paths):
        lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        found.append(f"failed: {' / '.join(lines[-3:])[-400:]}")
    return "\n    ".join(found)


def _measure(part: str, model: str, given: argparse.Namespace, began: float) -> dict[str, Any]:
    kind, _, size = part.partition("-")
    batch = int(size or 64)
    if kind == "peer":
        return _peer(model, batch, given)
    measures: dict[str, Callable[..., dict[str, Any]]] = {
        "exact": _exact,
        "ppo": _train,
        "usual": _train,
        "sft": _train,
        "judge": _judge,
        "profile": _profile,
    }
    return measures[kind](kind, model, batch, given, began)


def specification(model: str, batch: int, given: argparse.Namespace, batches: int, rows: int = 0) -> dict[str, Any]:
    """Return SPEC.json of these batches. Of a random model, no weights are written."""
    from adjudge.models.sources.bundled import BUNDLED, bundled_folder
    from adjudge.models.sources.loading import load_tokenizer
    from adjudge.models.sources.random_models import is_random, random_config
    from adjudge.tasks import load_task
    from benchmarks.setting import build_specification, training_rows

    options = argparse.Namespace(
        batch_size=batch, mini_batch_size=batch, update_epochs=4, samples=1, threads=8, batches=batches, seed=0
    )
    options.set, options.evaluation_tokens = [], None
    folder = Path(model)
    if model in BUNDLED:
        folder = bundled_folder(model)
    elif is_random(model):
        folder = (given.out / f"shape-{model.removeprefix('random:')}").resolve()
        random_config(model).save_pretrained(folder)
        load_tokenizer(model, "", {}).save_pretrained(folder)
    task = load_task("glue/sst2")
    examples = training_rows(task, given.data_dir, rows or (1 + batches) * batch, 0)
    spec = build_specification(options, folder, "bfloat16", examples, task)
    spec["warmup_batches"] = min(WARM_UP, batches)
    spec["model"] = model if is_random(model) else str(folder)
    return spec


def _side(spec: dict[str, Any], *, adapter: bool = True, graphs: bool = True) -> Any:
    from benchmarks.ours import Side

    spec["ours"]["settings"] = [*spec["ours"]["settings"], f"runtime.cuda_graphs={str(graphs).lower()}"]
    return Side(spec, _known(spec), adapter=adapter)


def _known(spec: dict[str, Any]) -> Any:
    """Return the part of a specification that the peers know, too."""
    from benchmarks.peers import common

    fields = common.Spec.__dataclass_fields__
    return common.Spec(**{name: value for name, value in spec.items() if name in fields})


def _train(kind: str, model: str, batch: int, given: argparse.Namespace, began: float) -> dict[str, Any]:
    """Time PPO or SFT, the share of the product rate, and the seconds to the end of the first step."""
    import gc

    import torch

    from benchmarks.ours import measure_sft, run_ppo
    from benchmarks.peers import common
    from benchmarks.product_rate import linear_shapes, needed_tokens, operations, product_rate
    from benchmarks.setting import empty_model

    few = kind == "usual"
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    spec = specification(model, batch, given, FEW if few else MEASURED)
    spec["warmup_batches"] = FEW if few else WARM_UP
    meter = _StepMeter(_known(spec), began)
    if kind == "sft":
        measure_sft(spec, meter.spec, meter)
        side = None
    else:
        side = _side(spec, graphs=not few)
        run_ppo(side, meter)
    warm = spec["warmup_batches"]
    seconds = statistics.median(meter.seconds[warm:])
    peak = torch.cuda.max_memory_reserved() / 2**30 if common.on_cuda() else 0.0
    result = {
        "rows_per_s": batch / seconds,
        "seconds": meter.seconds,
        "stages": meter.stages[-1],
        "peak_gib": peak,
        "first_step_s": meter.first_s,
    }
    replays = ""
    if side is not None:
        policy = side.judge.task.policy
        replays = f"; {policy.engine.graphs.replayed} replays" if policy.engine.graphs is not None else ""
        folder = Path(spec["model"])
        shape = given.out / f"shape-{model.removeprefix('random:')}"
        shapes, head = linear_shapes(empty_model(folder if folder.is_dir() else shape.resolve()))
        tokens = needed_tokens(spec["prompt_ids"][:batch], spec["answer_ids"][:batch])
        rate = product_rate(shapes, head, tokens, policy.lm.dtype, policy.device)
        updates = [stages["update"] / spec["update_epochs"] for stages in meter.stages[warm:]]
        result["product_rate"] = rate
        result["share"] = operations(shapes, head, tokens, 2) / statistics.median(updates) / rate
    share = (
        f", {100 * result['share']:.0f} % of {result['product_rate'] / 1e12:.0f} TFLOP/s" if "share" in result else ""
    )
    stages = ", ".join(f"{name} {1000 * value:.0f}" for name, value in meter.stages[-1].items())
    result["line"] = (
        f"{batch / seconds:.1f} rows/s{share}, {peak:.1f} GiB, first step after {meter.first_s:.0f} s; "
        f"last batch in ms: {stages}{replays}"
    )
    return result


def _StepMeter(spec: Any, began: float) -> Any:
    from benchmarks.peers import common

    class StepMeter(common.Meter):
        first_s = 0.0

        def end_batch(self) -> None:
            super().end_batch()
            self.first_s = self.first_s or time.time() - began

    return StepMeter(spec)


def _judge(_kind: str, model: str, _batch: int, given: argparse.Namespace, _began: float) -> dict[str, Any]:
    """Time greedy answers to all dev rows, twice: shapes are captured in the first time."""
    from adjudge.tasks import load_split
    from benchmarks.peers.common import now

    spec = specification(model, 64, given, 1)
    spec["evaluation_batch_size"] = 128
    side = _side(spec, adapter=True)
    rows = load_split(side.task, "dev", given.data_dir)
    seconds = []
    for _ in range(3):
        start = now()
        side.judge.judge(rows)
        seconds.append(now() - start)
    return {
        "seconds": seconds,
        "line": f"{len(rows)} rows in {seconds[0]:.2f} s, again in {seconds[1]:.2f} and {seconds[2]:.2f} s",
    }


def _exact(_kind: str, model: str, _batch: int, given: argparse.Namespace, _began: float) -> dict[str, Any]:
    """Compare figures and gradients of replayed passes with those of usual ones, in float32 and bfloat16."""
    import torch

    from adjudge.rollout.forward import token_figures
    from adjudge.rollout.sampler import Sampling, respond

    lines, result = [], {}
    for dtype in ("float32", "bfloat16"):
        outcomes = []
        for graphs in (False, True):
            spec = specification(model, 16, given, 2)
            spec["dtype"] = dtype
            side = _side(spec, graphs=graphs)
            policy = side.judge.task.policy
            policy.eval()
            with torch.no_grad():
                generator = torch.Generator().manual_seed(1)
                for parameter in policy.adapter_parameters():
                    parameter.add_(0.02 * torch.randn(parameter.shape, generator=generator).to(parameter.device))
            figures: list[Any] = []
            for turn in range(4):
                part = slice(16 * (turn % 2), 16 * (turn % 2) + 16)
                prompts, answers = spec["prompt_ids"][part], spec["answer_ids"][part]
                policy.zero_grad()
                logp = token_figures(policy, prompts, answers, 1.0).logp_BR
                logp.sum().backward()
                grads = torch.cat([p.grad.flatten() for p in policy.adapter_parameters()]).double()
                with torch.no_grad():
                    drawn = respond(
                        policy,
                        policy.prefill(prompts),
                        side.judge.task.end,
                        Sampling(torch.Generator().manual_seed(turn)),
                    )
                    with policy.reference():
                        ref = token_figures(policy, prompts, answers, 1.0).logp_BR
                figures.append((logp.detach().double(), ref.double(), grads, drawn.ids, drawn.logp_BR.double()))
            outcomes.append(figures)
            if policy.engine.graphs is not None:
                lines.append(f"{policy.engine.graphs.replayed} replays")
            del side, policy
        worst = [0.0, 0.0, 0.0, 0.0]
        same = 0
        for usual, ours in zip(*outcomes, strict=True):
            worst[0] = max(worst[0], float((usual[0] - ours[0]).abs().max()))
            worst[1] = max(worst[1], float((usual[1] - ours[1]).abs().max()))
            worst[2] = max(worst[2], float((usual[2] - ours[2]).norm() / usual[2].norm()))
            both = [usual[3][row] == ours[3][row] for row in range(16)]
            same += sum(both)
        result[dtype] = {"logp": worst[0], "reference": worst[1], "gradient": worst[2], "same_samples": same / 64}
        lines.append(
            f"{dtype}: logp ±{worst[0]:.1e}, reference ±{worst[1]:.1e}, gradient {worst[2]:.1e} of its norm, "
            f"{same} of 64 sampled answers equal"
        )
    return {**result, "line": "; ".join(lines)}


def _profile(_kind: str, model: str, batch: int, given: argparse.Namespace, _began: float) -> dict[str, Any]:
    """Print the largest items of a few PPO batches: Python's, and the GPU's kernels."""
    import cProfile
    import pstats

    import torch

    from benchmarks.ours import run_ppo

    spec = specification(model, batch, given, MEASURED)
    side = _side(spec)
    run_ppo(side, _StepMeter(side.spec, 0.0))
    again = specification(model, batch, given, FEW)
    side.spec.batches, side.spec.warmup_batches = 2, 0
    del again
    profile = cProfile.Profile()
    profile.enable()
    run_ppo(side, _StepMeter(side.spec, 0.0))
    profile.disable()
    pstats.Stats(profile).sort_stats("cumulative").print_stats(45)
    pstats.Stats(profile).sort_stats("tottime").print_stats(25)
    activities = [torch.profiler.ProfilerActivity.CUDA]
    with torch.profiler.profile(activities=activities) as measured:
        run_ppo(side, _StepMeter(side.spec, 0.0))
    print(measured.key_averages().table(sort_by="cuda_time_total", row_limit=40, max_name_column_width=70))
    return {"line": "see the log"}


def _peer(model: str, batch: int, given: argparse.Namespace) -> dict[str, Any]:
    """Run trl 1.12's PPO on the same rows."""
    from benchmarks.peers import environments

    spec = specification(model, batch, given, FEW)
    spec["warmup_batches"] = 1
    peer = environments.PEERS["ppo-trl-1.12"]
    spec_path, result_path = (given.out / f"{_file(model, f'peer-{batch}')}.{kind}" for kind in ("spec", "result"))
    clean = {name: value for name, value in spec.items() if name not in ("ours", "evaluation_tokens")}
    spec_path.write_text(json.dumps(clean), encoding="utf-8")
    python = given.peer_python or str(environments.python_of(peer.environment))
    subprocess.run([python, str(peer.path), str(spec_path), str(result_path)], check=True)
    measured = json.loads(result_path.read_text(encoding="utf-8"))
    return {**measured, "line": f"{measured['rows_per_s']:.2f} rows/s, {measured.get('cuda_peak_gib', 0.0):.1f} GiB"}


def table(out: Path) -> str:
    """Return one line per result found."""
    lines = ["| model | part | result |", "| --- | --- | --- |"]
    for path in sorted(out.glob("*.json")):
        model, part, _ = path.name.rsplit(".", 2)
        found = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(found, dict) and "line" in found:
            lines.append(f"| {model} | {part} | {found['line']} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
