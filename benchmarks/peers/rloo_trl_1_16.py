"""Measure `RLOOTrainer` of trl 1.16 with LoRA and `samples` answers per prompt.

The settings are in group_trl_1_16.py. Beta is trl's default 0.05, so every batch has a reference pass with the adapters
off; `beta` in the specification changes it.
"""

import common
import group_trl_1_16


def measure(spec: common.Spec, meter: common.Meter) -> int:
    """Run the batches; return the rows per batch."""
    from trl import RLOOConfig, RLOOTrainer

    return group_trl_1_16.run(spec, meter, RLOOConfig, RLOOTrainer)


if __name__ == "__main__":
    common.main("trl 1.16 RLOO", measure)
