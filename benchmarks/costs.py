"""Measure what a row costs with each method, beside another with the same number of passes, by turns.

    python -m benchmarks.costs --rounds 3

Each turn is `adjudge train` on the same rows, on all cores. Methods with a warm start go on from an SFT run instead, so
that they answer as they do after one. Seconds are those of the steps alone, without loading, from timings.jsonl; the
first step is left out. The best turn of each counts, since other work only makes a turn slower.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from adjudge.runs.environment import cpu_name, usable_cores
from benchmarks.processes import options, rows_per_s


class Variant(NamedTuple):
    """A method with its settings."""

    method: str
    settings: Sequence[str] = ()

    def __str__(self) -> str:
        """Return it as in a command."""
        return " ".join([self.method, *self.settings])


SFT = Variant("sft")
ONE_ANSWER = Variant("ppo", ("ppo.samples=1",))
PAIRS = (
    (Variant("ppo", ("ppo.samples=4",)), ONE_ANSWER),
    (Variant("ppo", ("ppo.samples=8",)), ONE_ANSWER),
    (Variant("exact", ("exact.update_epochs=1", "exact.kl=0")), SFT),
    (Variant("exact", ("exact.update_epochs=1",)), SFT),
    (Variant("exact"), SFT),
    (Variant("ppo"), SFT),
)
"""What is measured, and beside what."""
TAUGHT_STEPS = 15
"""Steps of the SFT run that the others go on from."""


def main() -> None:
    """Run the command line."""
    given = options(__doc__).parse_args()
    threads = usable_cores()
    seconds: dict[Variant, float] = {}
    with tempfile.TemporaryDirectory() as place:
        taught = Path(place) / "taught"
        teaching = argparse.Namespace(**{**vars(given), "steps": TAUGHT_STEPS})
        rows_per_s("sft", 1, threads, teaching, taught)
        for turn in range(given.rounds):
            for variant in dict.fromkeys(variant for pair in reversed(PAIRS) for variant in reversed(pair)):
                start = () if variant.method == "sft" else (f"init={taught}",)
                folder = Path(place) / variant.method
                measured = 1 / rows_per_s(variant.method, 1, threads, given, folder, (*start, *variant.settings))
                seconds[variant] = min(measured, seconds.get(variant, measured))
                print(f"round {turn + 1}: {variant}: {measured:.3f} s per row", flush=True)
    print(f"\n{cpu_name()}, {threads} cores, {given.model}, {given.task}, batches of {given.batch}\n")
    print("| method | seconds per row | beside | seconds per row | times |")
    print("| --- | --: | --- | --: | --: |")
    for one, other in PAIRS:
        ratio = seconds[one] / seconds[other]
        print(f"| {one} | {seconds[one]:.3f} | {other} | {seconds[other]:.3f} | {ratio:.2f} |")


if __name__ == "__main__":
    main()
