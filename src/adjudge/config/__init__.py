"""Every setting of a run: one frozen tree, its loading, and its presets."""

from adjudge.config.comparing import GiveConfig, PrpConfig
from adjudge.config.groups import (
    AnswerConfig,
    CheckpointConfig,
    DataConfig,
    EmbeddingConfig,
    EvaluationConfig,
    GuardConfig,
    LoraConfig,
    OptimizerConfig,
    PromptConfig,
)
from adjudge.config.loading import NULL, PRESETS, change, load_config, parse_config, parse_override, upgrade
from adjudge.config.loops import LoopConfig, WarmStartConfig
from adjudge.config.machine import RuntimeConfig
from adjudge.config.methods import EncoderConfig, RewardModelConfig, SetfitConfig, SftConfig, SwieConfig
from adjudge.config.policy_gradient import (
    CritiqueGrpoConfig,
    ExactConfig,
    GrpoConfig,
    PolicyGradientConfig,
    PpoConfig,
    ReinforceConfig,
    RlooConfig,
    VineConfig,
)
from adjudge.config.preference import DpoConfig, PreferenceConfig, SpinConfig, SppoConfig, TdpoConfig
from adjudge.config.prompting import BpoConfig, GepaConfig, IipConfig, PromptSearchConfig
from adjudge.config.rewards import RewardConfig
from adjudge.config.tree import Config, keys_of, value_of
from adjudge.config.writing import ApiConfig, WriterConfig

__all__ = [
    "NULL",
    "PRESETS",
    "AnswerConfig",
    "ApiConfig",
    "BpoConfig",
    "CheckpointConfig",
    "Config",
    "CritiqueGrpoConfig",
    "DataConfig",
    "DpoConfig",
    "EmbeddingConfig",
    "EncoderConfig",
    "EvaluationConfig",
    "ExactConfig",
    "GepaConfig",
    "GiveConfig",
    "GrpoConfig",
    "GuardConfig",
    "IipConfig",
    "LoopConfig",
    "LoraConfig",
    "OptimizerConfig",
    "PolicyGradientConfig",
    "PpoConfig",
    "PreferenceConfig",
    "PromptConfig",
    "PromptSearchConfig",
    "PrpConfig",
    "ReinforceConfig",
    "RewardConfig",
    "RewardModelConfig",
    "RlooConfig",
    "RuntimeConfig",
    "SetfitConfig",
    "SftConfig",
    "SpinConfig",
    "SppoConfig",
    "SwieConfig",
    "TdpoConfig",
    "VineConfig",
    "WarmStartConfig",
    "WriterConfig",
    "change",
    "keys_of",
    "load_config",
    "parse_config",
    "parse_override",
    "upgrade",
    "value_of",
]
