"""Measure `GRPOTrainer` of trl 1.16 with LoRA and `samples` answers per prompt.

The settings are in group_trl_1_16.py. Beta is trl's default 0, so there is no reference pass; `beta` in the
specification changes it.
"""

import common
import group_trl_1_16


def measure(spec: common.Spec, meter: common.Meter) -> int:
    """Run the batches; return the rows per batch."""
    from trl import GRPOConfig, GRPOTrainer

    return group_trl_1_16.run(spec, meter, GRPOConfig, GRPOTrainer)


if __name__ == "__main__":
    common.main("trl 1.16 GRPO", measure)
