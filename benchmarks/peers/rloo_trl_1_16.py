"""trl 1.16: `RLOOTrainer` with LoRA and `samples` answers a prompt.

Settings as group_trl_1_16.py says; beta is trl's default 0.05, so a reference pass with the adapters off is part of every
batch (`beta` in the specification changes it).
"""

import common
import group_trl_1_16


def measure(spec: common.Spec, meter: common.Meter) -> int:
    """Run the batches; returns the rows a batch."""
    from trl import RLOOConfig, RLOOTrainer

    return group_trl_1_16.run(spec, meter, RLOOConfig, RLOOTrainer)


if __name__ == "__main__":
    common.main("trl 1.16 RLOO", measure)
