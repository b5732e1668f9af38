"""Render the results as Markdown, and write them into a page.

    python -m benchmarks.table                                   # print the tables
    python -m benchmarks.table --write docs/results/speed.md     # write them between the page's markers

The results are those of `benchmarks.run`, `benchmarks.product_rate`, `benchmarks.growth` and `benchmarks.steps`.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.peers.environments import PEERS
from benchmarks.setting import GROUPED, MEMORY_GOAL, PAIRS

BEGIN, END = "<!-- bench:begin -->", "<!-- bench:end -->"


@dataclass(frozen=True, slots=True)
class Summary:
    """One side of a pair: medians over its rounds, None where nothing was measured."""

    rows_per_s: float
    memory_gib: float | None
    prompt_tokens: float
    response_tokens: float
    stages: dict[str, float]

    @property
    def tokens_per_s(self) -> float:
        """Return the tokens of prompts and answers per second, without padding, with one answer per row."""
        return self.rows_per_s * (self.prompt_tokens + self.response_tokens)


def rate(result: dict[str, Any]) -> float:
    """Return the rows per second of one process, from the median of its batches."""
    return float(result["rows_per_batch"] / statistics.median(result["seconds"]))


def memory(result: dict[str, Any]) -> float | None:
    """Return the peak memory in GiB: the GPU's if one was used, else the process's."""
    value = result.get("cuda_peak_gib", result.get("peak_gib"))
    return None if value is None else float(value)


def summary(results: Sequence[dict[str, Any]]) -> Summary | None:
    """Return the medians over the successful rounds, or None without one."""
    good = [result for result in results if result and "error" not in result]
    if not good:
        return None
    sizes = [size for result in good if (size := memory(result)) is not None]
    names = {name for result in good for name in result["stages"]}
    stages = {
        name: statistics.median(value for result in good for value in result["stages"].get(name, [0.0]))
        for name in sorted(names)
    }
    return Summary(
        rows_per_s=statistics.median(map(rate, good)),
        memory_gib=statistics.median(sizes) if sizes else None,
        prompt_tokens=statistics.median(float(result["prompt_tokens_per_row"]) for result in good),
        response_tokens=statistics.median(float(result["response_tokens_per_row"]) for result in good),
        stages=stages,
    )


def ratios(rounds: Sequence[dict[str, Any]]) -> list[float]:
    """Return how many times faster ours was, for each round with results of both sides."""
    both = [(one.get("ours"), one.get("peer")) for one in rounds]
    return [
        rate(ours) / rate(peer) for ours, peer in both if ours and peer and "error" not in ours and "error" not in peer
    ]


def memory_ratio(ours: Summary | None, peer: Summary | None) -> float | None:
    """Return our peak divided by the peer's, or None when one is missing."""
    if ours is None or peer is None or ours.memory_gib is None or not peer.memory_gib:
        return None
    return ours.memory_gib / peer.memory_gib


def render(folder: Path) -> str:
    """Return all results of a folder as Markdown. Raises FileNotFoundError when there are none."""
    parts = []
    for name, show in (("results", _pairs), ("product_rate", _shares), ("growth", _growth), ("steps", _steps)):
        path = folder / f"{name}.json"
        if path.is_file():
            parts.append(show(json.loads(path.read_text(encoding="utf-8"))))
    if not parts:
        raise FileNotFoundError(f"{folder} holds no results; measure with: python -m benchmarks.run --out {folder}")
    return "\n\n".join(parts)


def write_between(page: Path, text: str) -> None:
    """Replace the text between the markers of a page.

    Raises ValueError unless each marker is there once and they are in order.
    """
    whole = page.read_text(encoding="utf-8")
    if whole.count(BEGIN) != 1 or whole.count(END) != 1 or whole.index(BEGIN) > whole.index(END):
        raise ValueError(f"{page}: needs the lines {BEGIN} and {END}, once each and in this order")
    before, _, rest = whole.partition(BEGIN)
    _, _, after = rest.partition(END)
    page.write_text(f"{before}{BEGIN}\n{text.strip()}\n{END}{after}", encoding="utf-8")


def measured_on(record: dict[str, Any]) -> str:
    """Return device, versions, settings, command and date as a paragraph."""
    settings, machine, versions = record["settings"], record["machine"], record["machine"]["versions"]
    libraries = ", ".join(
        f"{name} {versions[name]}" for name in ("python", "torch", "transformers", "peft") if name in versions
    )
    changed = f", our settings: {', '.join(settings['set'])}" if settings.get("set") else ""
    return (
        f"{machine['device']}, {machine['cores']} cores ({settings['threads']} threads), {machine['system']}, "
        f"{libraries}; "
        f"{settings['model']}, {settings['task']}, {settings['dtype']}, batch {settings['batch_size']} "
        f"({settings['mini_batch_size']} rows per update), {settings['update_epochs']} PPO epochs, "
        f"measured batches per process: {settings['batches']}{changed}. `{record['command']}`, {record['date']}."
    )


def _pairs(record: dict[str, Any]) -> str:
    header = (
        "| peer | ours, per second | peer, per second | times faster (each round) | goal "
        "| memory, ours / peer, GiB | memory ratio | prompt + answer tokens per row, ours / peer |\n"
        "| --- | --- | --- | --- | --- | --- | --- | --- |"
    )
    lines, stages, remarks = [], [], []
    pairs_of_setup: dict[str, list[str]] = {}
    for name, entry in record["pairs"].items():
        rounds, settings = entry["rounds"], entry["settings"]
        pairs_of_setup.setdefault(measured_on(entry), []).append(name)
        ours, peer = (summary([one.get(side, {}) for one in rounds]) for side in ("ours", "peer"))
        title = PEERS[PAIRS[name].peer].title
        lines.append(_pair_line(name, ours, peer, ratios(rounds), settings))
        for side, medians in ((f"adjudge ({PAIRS[name].what}, against {title})", ours), (title, peer)):
            if medians is not None and medians.stages:
                stages.append(
                    f"| {side} | {', '.join(f'{stage} {value:.2f}' for stage, value in medians.stages.items())} |"
                )
        if PAIRS[name].grouped:
            remarks.append(f"{title}: {GROUPED.format(**settings)}.")
        remarks += [f"{title}: {failure}" for failure in _failures(rounds)]
    text = "\n".join([header, *lines])
    setups = "\n\n".join(
        setup if len(pairs_of_setup) == 1 else f"{', '.join(names)}: {setup}" for setup, names in pairs_of_setup.items()
    )
    if stages:
        text += "\n\n| seconds per batch, by stage | |\n| --- | --- |\n" + "\n".join(stages)
    remarks += [f"{name} was not measured: {why}." for name, why in record.get("missing", {}).items()]
    remark_list = ["\n".join(f"- {remark}" for remark in remarks)] if remarks else []
    return "\n\n".join(["### Comparison with the peers", setups, text, *remark_list])


def _pair_line(
    name: str, ours: Summary | None, peer: Summary | None, faster: Sequence[float], settings: dict[str, Any]
) -> str:
    pair, share = PAIRS[name], memory_ratio(ours, peer)

    def speed(side: Summary | None, answers: int = 1) -> str:
        return (
            "failed"
            if side is None
            else f"{_short(side.rows_per_s)} {pair.unit}, {_short(answers * side.tokens_per_s)} tokens"
        )

    def both(first: float | None, second: float | None) -> str:
        return " / ".join("–" if value is None else f"{value:.2f}" for value in (first, second))

    each_round = ", ".join(f"{ratio:.1f}" for ratio in faster)
    return (
        "| "
        + " | ".join(
            [
                PEERS[pair.peer].title,
                speed(ours),
                speed(peer, settings["samples"] if pair.grouped else 1) if peer else "–",
                f"**{statistics.median(faster):.1f}** ({each_round})" if faster else "–",
                f"≥ {pair.goal:g}" if pair.goal else "none",
                both(*(side.memory_gib if side else None for side in (ours, peer))),
                "–" if share is None else f"{share:.2f} (goal ≤ {MEMORY_GOAL:.2f})",
                " / ".join(
                    "–" if side is None else f"{side.prompt_tokens:.0f} + {side.response_tokens:.1f}"
                    for side in (ours, peer)
                ),
            ]
        )
        + " |"
    )


def _failures(rounds: Sequence[dict[str, Any]]) -> list[str]:
    return [
        f"round {number}, {side} failed: {one[side]['error']}"
        for number, one in enumerate(rounds, 1)
        for side in ("peer", "ours")
        if "error" in one.get(side, {})
    ]


def _shares(record: dict[str, Any]) -> str:
    lines = [
        f"| {row['name']} | {row['tokens']} | {row['operations'] / 1e9:.1f} | {row['seconds']:.4f} "
        f"| {row['operations'] / row['seconds'] / 1e9:.0f} | {row['product_rate'] / 1e9:.0f} "
        f"| {100 * row['operations'] / row['seconds'] / row['product_rate']:.0f} % | {_goal(row.get('goal'))} |"
        for row in record["rows"]
    ]
    header = (
        "| pass | needed tokens | needed GFLOP | seconds "
        "| GFLOP/s reached | GFLOP/s of plain products | share | goal |\n"
        "| --- | --- | --- | --- | --- | --- | --- | --- |"
    )
    title = "### Share of the machine's own matrix-product rate"
    return "\n\n".join([title, measured_on(record), "\n".join([header, *lines])])


def _goal(value: float | None) -> str:
    return "none" if value is None else f"≥ {100 * value:.0f} %"


def _growth(record: dict[str, Any]) -> str:
    parts = ["### Growth", measured_on(record)]
    for part in record["parts"]:
        columns = part["columns"]
        lines = ["| " + " | ".join(columns) + " |", "|" + " --- |" * len(columns)]
        for row in part["rows"]:
            failure = [f"failed: {row['error']}"] if "error" in row else []
            cells = [_cell(row.get(column)) for column in columns]
            lines.append("| " + " | ".join([*cells[:1], *failure, *cells[1 + len(failure) :]]) + " |")
        parts.append(f"{part['title']}\n\n" + "\n".join(lines))
    return "\n\n".join(parts)


def _steps(record: dict[str, Any]) -> str:
    header = (
        "| variant | batch | seconds, whole engine / variant (each round) | ratio "
        "| peak, whole engine / variant, GiB |\n| --- | --- | --- | --- | --- |"
    )
    lines = []
    for row in record["rows"]:
        if "error" in row:
            lines.append(f"| {row['variant']} | {row['what']} | failed: {row['error']} | – | – |")
            continue
        seconds = ", ".join(f"{whole:.2f} / {without:.2f}" for whole, without in row["seconds"])
        peaks = row["peak_gib"]
        lines.append(
            f"| {row['variant']} | {row['what']} | {seconds} | {row['ratio']:.2f} "
            f"| {peaks['whole']:.2f} / {peaks['without']:.2f} |"
        )
    others: dict[str, dict[str, None]] = {}
    for row in record["rows"]:
        if (command := row.get("command", record["command"])) != record["command"]:
            others.setdefault(command, {})[row["variant"]] = None
    lines_of_others = [f"{', '.join(variants)}: `{command}`." for command, variants in others.items()]
    return "\n\n".join(["### What each step gives", measured_on(record), *lines_of_others, "\n".join([header, *lines])])


def _cell(value: Any) -> str:
    if value is None:
        return "–"
    return f"{value:,}" if isinstance(value, int) else _short(value) if isinstance(value, float) else str(value)


def _short(value: float) -> str:
    """Return three significant figures: 0.0123, 1.23, 123."""
    return f"{value:.3g}" if abs(value) < 100 else f"{value:,.0f}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the tables or write them into a page; return 1, with the reason, when this fails."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.table", description="Render the results as Markdown.")
    parser.add_argument(
        "--out", type=Path, default=Path("runs/bench"), help="folder of the results (default: %(default)s)"
    )
    parser.add_argument("--write", type=Path, metavar="PAGE", help=f"write them between {BEGIN} and {END} in this page")
    options = parser.parse_args(arguments)
    try:
        text = render(options.out)
        if options.write is None:
            print(text)
        else:
            write_between(options.write, text)
    except (OSError, ValueError, KeyError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
