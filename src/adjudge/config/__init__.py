"""Every setting of a run: one frozen tree, its loading, and its presets."""

from adjudge.config.groups import (
    AnswerConfig,
    CheckpointConfig,
    DataConfig,
    EvaluationConfig,
    GuardConfig,
    LoraConfig,
    OptimizerConfig,
    PromptConfig,
    RuntimeConfig,
)
from adjudge.config.loading import PRESETS, change, load_config, parse_config, parse_override, upgrade
from adjudge.config.methods import (
    EncoderConfig,
    ExactConfig,
    GrpoConfig,
    LoopConfig,
    PolicyGradientConfig,
    PpoConfig,
    ReinforceConfig,
    RlooConfig,
    SftConfig,
)
from adjudge.config.rewards import RewardConfig
from adjudge.config.tree import Config, keys_of, value_of

__all__ = [
    "PRESETS",
    "AnswerConfig",
    "CheckpointConfig",
    "Config",
    "DataConfig",
    "EncoderConfig",
    "EvaluationConfig",
    "ExactConfig",
    "GrpoConfig",
    "GuardConfig",
    "LoopConfig",
    "LoraConfig",
    "OptimizerConfig",
    "PolicyGradientConfig",
    "PpoConfig",
    "PromptConfig",
    "ReinforceConfig",
    "RewardConfig",
    "RlooConfig",
    "RuntimeConfig",
    "SftConfig",
    "change",
    "keys_of",
    "load_config",
    "parse_config",
    "parse_override",
    "upgrade",
    "value_of",
]
