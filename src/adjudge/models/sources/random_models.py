"""Models with random weights: right for measuring time and memory, useless for answers.

`random:llama-2-7b` has the shape of that model and none of its knowledge. Only the bundled model is downloaded, whose
tokenizer it borrows. Code that reports accuracy refuses it (`refuse_random`). Imports no torch until a model is built.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from adjudge.errors import ModelError, nearest

if TYPE_CHECKING:
    import torch

PREFIX = "random:"
TOKENIZER_OF = "smollm2-135m"
"""The bundled model whose tokenizer (and chat template) the random models use."""

SEED = 0
"""Seed of the weights: two loads on the same kind of device are equal."""


@dataclass(frozen=True, slots=True)
class Shape:
    """A model family of transformers, and one size's settings from its publisher's config.json."""

    family: str
    settings: Mapping[str, Any]


def _rope(theta: float, **scaling: Any) -> dict[str, Any]:
    return {"rope_type": "default", "rope_theta": theta, **scaling}


def _llama(
    hidden: int, layers: int, heads: int, kv_heads: int, intermediate: int, vocabulary: int, **more: Any
) -> dict[str, Any]:
    """Return settings under the names that Llama and Qwen2 share."""
    return {
        "hidden_size": hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "intermediate_size": intermediate,
        "vocab_size": vocabulary,
        **more,
    }


def _mpt(hidden: int, layers: int, heads: int, vocabulary: int, **more: Any) -> dict[str, Any]:
    return {
        "d_model": hidden,
        "n_layers": layers,
        "n_heads": heads,
        "vocab_size": vocabulary,
        "expansion_ratio": 4,
        **more,
    }


_LLAMA3_ROPE = _rope(
    500_000.0,
    rope_type="llama3",
    factor=32.0,
    low_freq_factor=1.0,
    high_freq_factor=4.0,
    original_max_position_embeddings=8192,
)
_SMOLLM2: dict[str, Any] = {
    "max_position_embeddings": 8192,
    "rms_norm_eps": 1e-5,
    "rope_parameters": _rope(100_000.0),
    "tie_word_embeddings": True,
}
_QWEN25: dict[str, Any] = {"max_position_embeddings": 32_768, "rms_norm_eps": 1e-6, "rope_parameters": _rope(1e6)}
# A wide range, so that the logits of a tiny model differ.
_TINY = {"max_position_embeddings": 2048, "initializer_range": 0.1}

SHAPES: dict[str, Shape] = {
    f"{PREFIX}{name}": shape
    for name, shape in {
        "llama-2-7b": Shape(
            "llama",
            _llama(
                4096,
                32,
                32,
                32,
                11_008,
                32_000,
                max_position_embeddings=4096,
                rms_norm_eps=1e-5,
                rope_parameters=_rope(10_000.0),
                tie_word_embeddings=False,
            ),
        ),
        "llama-3.2-1b": Shape(
            "llama",
            _llama(
                2048,
                16,
                32,
                8,
                8192,
                128_256,
                max_position_embeddings=131_072,
                rms_norm_eps=1e-5,
                rope_parameters=_LLAMA3_ROPE,
                tie_word_embeddings=True,
            ),
        ),
        "smollm2-135m": Shape("llama", _llama(576, 30, 9, 3, 1536, 49_152, **_SMOLLM2)),
        "smollm2-360m": Shape("llama", _llama(960, 32, 15, 5, 2560, 49_152, **_SMOLLM2)),
        "qwen2.5-7b": Shape("qwen2", _llama(3584, 28, 28, 4, 18_944, 152_064, **_QWEN25, tie_word_embeddings=False)),
        "qwen2.5-1.5b": Shape("qwen2", _llama(1536, 28, 12, 2, 8960, 151_936, **_QWEN25, tie_word_embeddings=True)),
        "mpt-7b": Shape("mpt", _mpt(4096, 32, 32, 50_432, max_seq_len=2048)),
        "llama-tiny": Shape("llama", _llama(64, 2, 4, 2, 160, 2048, **_TINY, tie_word_embeddings=True)),
        "qwen2.5-tiny": Shape("qwen2", _llama(64, 2, 4, 2, 160, 2048, **_TINY, tie_word_embeddings=False)),
        "mpt-tiny": Shape("mpt", _mpt(64, 2, 4, 2048, max_seq_len=2048, initializer_range=0.1)),
    }.items()
}


def is_random(name: str) -> bool:
    """Return whether `name` stands for a model with random weights, known or not."""
    return name.startswith(PREFIX)


def refuse_random(name: str) -> None:
    """Raise ModelError for a random model: called wherever answers are judged or trained."""
    if is_random(name):
        raise ModelError(
            f"{name} has random weights: right for timing (`make bench`), useless for answers. Name a real model."
        )


def random_config(name: str) -> Any:
    """Return the transformers configuration of a random model. Raises ModelError for an unknown name."""
    if name not in SHAPES:
        raise ModelError(f"There is no random model '{name}'.{nearest(name, SHAPES)}")
    from transformers import AutoConfig

    return AutoConfig.for_model(SHAPES[name].family, **SHAPES[name].settings)


def build_random(name: str, dtype: torch.dtype, device: torch.device | str, attn_implementation: str) -> Any:
    """Build the model in `dtype` on `device`; on the device ``meta`` it has shapes and no memory.

    Memory is allocated once, in `dtype`: the modules are made without any, then filled in place. Matrices are normal
    with the configuration's `initializer_range` (seed: `SEED`), norms 1, biases 0. A CPU fills about 10⁸ numbers per
    second. Raises ModelError for an unknown name, ValueError for an attention that the family lacks.
    """
    import torch
    from transformers import AutoModelForCausalLM

    config = random_config(name)
    with torch.device("meta"):
        model: Any = AutoModelForCausalLM.from_config(config, dtype=dtype, attn_implementation=attn_implementation)
    if torch.device(device).type == "meta":
        return model
    generator = torch.Generator(device=device).manual_seed(SEED)
    # By parameter, so that a tied pair stays one tensor (`Module.to_empty` would make two).
    filled: dict[torch.nn.Parameter, torch.nn.Parameter] = {}
    for module in model.modules():
        for key, shape in list(module.named_parameters(recurse=False)):
            if shape not in filled:
                numbers = torch.empty_like(shape, device=device, requires_grad=False)
                if numbers.ndim > 1:
                    numbers.normal_(0.0, config.initializer_range, generator=generator)
                else:
                    numbers.fill_(0.0 if key == "bias" else 1.0)
                filled[shape] = torch.nn.Parameter(numbers)
            setattr(module, key, filled[shape])
    _refill_rotary(model, config, device)
    return model


def _refill_rotary(model: Any, config: Any, device: torch.device | str) -> None:
    """Build the modules with computed buffers again: on the meta device their numbers were lost."""
    for path, module in list(model.named_modules()):
        if next(module.buffers(recurse=False), None) is None:
            continue
        if "RotaryEmbedding" not in type(module).__name__:
            raise TypeError(
                f"{path} ({type(module).__name__}) has buffers that nothing fills; add its kind to `_refill_rotary`."
            )
        parent, _, last = path.rpartition(".")
        setattr(model.get_submodule(parent), last, type(module)(config=config).to(device))


def name_special_tokens(model: Any, tokenizer: Any) -> None:
    """Set the tokenizer's begin, end and pad tokens on the model, as published models have them."""
    from transformers import GenerationConfig

    ids = {f"{kind}_token_id": getattr(tokenizer, f"{kind}_token_id") for kind in ("bos", "eos", "pad")}
    for key, value in ids.items():
        setattr(model.config, key, value)
    model.generation_config = GenerationConfig(**ids)


def cut_tokenizer(tokenizer: Any, vocabulary: int) -> Any:
    """Return the byte-level BPE `tokenizer` with only its first `vocabulary` tokens, or itself if it fits.

    Merges that need or make a later token are dropped, so a text becomes more tokens and still decodes to itself.
    Special tokens and the chat template stay.
    Raises ValueError when a special token or a single character would be lost.
    """
    if len(tokenizer) <= vocabulary:
        return tokenizer
    from tokenizers import Tokenizer

    tree = json.loads(tokenizer.backend_tokenizer.to_str())
    words: dict[str, int] = tree["model"]["vocab"]
    kept = {word: number for word, number in words.items() if number < vocabulary}
    needed = {added["content"]: added["id"] for added in tree["added_tokens"]}
    needed |= {word: number for word, number in words.items() if len(word) == 1}
    if lost := [word for word, number in needed.items() if number >= vocabulary]:
        raise ValueError(
            f"A vocabulary of {vocabulary} tokens has no room for {len(lost)} tokens that a text may need: {lost[:3]} …"
        )
    tree["model"]["vocab"] = kept
    tree["model"]["merges"] = [
        [left, right]
        for left, right in tree["model"]["merges"]
        if left in kept and right in kept and left + right in kept
    ]
    cut = type(tokenizer)(
        tokenizer_object=Tokenizer.from_str(json.dumps(tree)),
        model_max_length=tokenizer.model_max_length,
        **tokenizer.special_tokens_map,
    )
    cut.chat_template = tokenizer.chat_template
    return cut
