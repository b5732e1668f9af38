"""Instruction embeddings (SWIE): what a layer reads of the instruction, added to the tokens after it.

Before a chosen layer, with h the states that enter it:

    z    = pool over the instruction's tokens of  up · tanh(down · h + bias) + bias'
    h_t += strength · w_t · z        for the tokens t after the instruction

The weight w_t of a token follows from its place in its segment: the prompt after the instruction, or the answer.
`up` and `bias'` begin at zero, so that the network begins as it was.

The instruction is a causal prefix: its states inside a prompt are those of a pass over it alone, and one pool serves
all rows. The engine says which tokens a pass has (`Pass`); a pass of which it says nothing is the plain network's.

Shapes: ``B`` rows, ``T`` tokens, ``C`` tokens of the instruction, ``D`` width, ``K`` inner width.
Source: arXiv 2308.12674, by its published code.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from adjudge.config.groups import EmbeddingConfig
from adjudge.errors import ConfigError, ModelError, RunError
from adjudge.models.layers import decoder_layers
from adjudge.models.sources.untrusted import EMBEDDING_SETTINGS, EMBEDDING_WEIGHTS

NAME = "instruction_embeddings"
"""What a layer holds its adapters by name in."""


@dataclass(frozen=True, slots=True)
class Segments:
    """Where the prompts of a batch have their instruction, and where they end."""

    instruction_C: Tensor
    prompt_B: Tensor
    """Number of tokens of each prompt."""

    def keep(self, rows_B: Tensor) -> Segments:
        """Return the segments of these rows."""
        return Segments(self.instruction_C, self.prompt_B[rows_B])


@dataclass(slots=True)
class Pass:
    """The tokens of one pass through the layers."""

    weight: Tensor | None = None
    """The weight of each token, 0 for those of the instruction; None adds nothing."""
    instruction: int = 0
    """How many tokens, from the first row's beginning, are the whole instruction; 0: `vectors` are known."""
    vectors: dict[int, Tensor] = field(default_factory=dict)
    """What is added at weight 1, ``[D]``, by layer."""


class Bottleneck(nn.Module):
    """``up · tanh(down · h + bias) + bias'``, in float32."""

    def __init__(self, width: int, inner: int, generator: torch.Generator) -> None:
        super().__init__()
        bound = 1 / math.sqrt(width)  # as torch begins a linear layer
        self.down_KD = nn.Parameter(torch.empty(inner, width).uniform_(-bound, bound, generator=generator))
        self.down_K = nn.Parameter(torch.empty(inner).uniform_(-bound, bound, generator=generator))
        self.up_DK = nn.Parameter(torch.zeros(width, inner))
        self.up_D = nn.Parameter(torch.zeros(width))

    def forward(self, hidden_CD: Tensor) -> Tensor:
        """Return what is read of each token, ``[C, D]``."""
        inner_CK = torch.tanh(nn.functional.linear(hidden_CD.float(), self.down_KD, self.down_K))
        return nn.functional.linear(inner_CK, self.up_DK, self.up_D)


def pool(read_CD: Tensor, how: Literal["max", "mean", "last"]) -> Tensor:
    """Return one vector of the tokens', ``[D]``. Tokens that tie for the largest share its gradient."""
    if how == "max":
        return read_CD.amax(0)
    return read_CD.mean(0) if how == "mean" else read_CD[-1]


def segment_weights(position_BT: Tensor, instruction: int, prompt_B: Tensor, kind: Literal["sin", "linear"]) -> Tensor:
    """Return each token's weight, float32 ``[B, T]``: sin(π i / n) or i / n, and 0 in the instruction.

    i is the token's index in its segment, and n the number of tokens of the prompt after the instruction, for the
    answer too. The first token of each segment therefore has weight 0.
    """
    prompt_B1 = prompt_B[:, None]
    index_BT = position_BT - torch.where(position_BT < prompt_B1, instruction, prompt_B1)
    share_BT = index_BT / (prompt_B1 - instruction)
    weight_BT = torch.sin(math.pi * share_BT) if kind == "sin" else share_BT
    return weight_BT.masked_fill(position_BT < instruction, 0.0)


class InstructionEmbeddings:
    """A network's instruction embeddings: adapters inside its layers, and hooks that add what they read."""

    def __init__(self, decoder: Any, config: EmbeddingConfig, seed: int = 0) -> None:
        """Add adapters to layers of `decoder`. Raises ModelError for layers of unknown kinds or numbers."""
        self.config = config.model_copy(update={"layers": _layers(decoder, config.layers)})
        every = _decoder_layers(decoder)
        self._layers = {index: every[index] for index in self.config.layers or ()}
        self._known: set[tuple[int, ...]] = set()
        self.acting: str | None = "default"
        """The name of the adapters that are added; None adds nothing."""
        self.now: Pass | None = None
        self._shares = dict.fromkeys(self._layers, torch.zeros(()))
        generator = torch.Generator().manual_seed(seed)
        width = decoder.config.hidden_size
        for index, layer in self._layers.items():
            device = next(layer.parameters()).device
            adapter = Bottleneck(width, config.width, generator).to(device)
            layer.add_module(NAME, nn.ModuleDict({"default": adapter}))
            layer.register_forward_pre_hook(_Hook(self, index), with_kwargs=True)

    @property
    def share(self) -> float:
        """Return the size of what was last read of an instruction, as a share of the size of its states.

        It is the mean over the layers.
        """
        return float(torch.stack([share.cpu() for share in self._shares.values()]).mean())

    def know(self, instruction: Sequence[int]) -> None:
        """Remember the token ids of an instruction that prompts begin with.

        Raises ModelError for an empty one.
        """
        if not instruction:
            raise ModelError("the prompts have no common beginning, which instruction embeddings need.")
        self._known.add(tuple(instruction))

    def segments(self, prompts: Sequence[Sequence[int]], device: torch.device) -> Segments:
        """Return the segments of prompts of one task. Raises ModelError for prompts that begin otherwise."""
        for known in sorted(self._known, key=len, reverse=True):
            if all(len(prompt) > len(known) and tuple(prompt[: len(known)]) == known for prompt in prompts):
                lengths = torch.tensor(list(map(len, prompts)), device=device)
                return Segments(torch.tensor(known, device=device), lengths)
        raise ModelError(
            "prompts without an instruction in common: instruction embeddings are made for prompts of a task, which "
            "begin with its instruction."
        )

    def check_same(self, config: EmbeddingConfig) -> None:
        """Raise ConfigError unless these are the settings of the embeddings."""
        layers = self.config.layers if config.layers is None else tuple(sorted(set(config.layers)))
        for name, value in config.model_copy(update={"layers": layers}):
            if value != (own_value := getattr(self.config, name)):
                raise ConfigError(
                    f"the run to start from has instruction embeddings with {name}={own_value}, and this one asks for "
                    f"{value}. Take the same, or start from a run without them."
                )

    def weights(self, segments: Segments, position_BT: Tensor) -> Tensor:
        """Return the weight of the tokens at these positions, float32 ``[B, T]``."""
        return segment_weights(position_BT, len(segments.instruction_C), segments.prompt_B, self.config.weights)

    @contextmanager
    def running(self, current: Pass | None) -> Iterator[None]:
        """Within this block, the layers see this pass."""
        self.now = current
        try:
            yield
        finally:
            self.now = None

    @contextmanager
    def acting_as(self, name: str) -> Iterator[None]:
        """Within this block, the adapters of this name are added; none where there are none."""
        before = self.acting
        self.acting = name if name in self._named() else None
        try:
            yield
        finally:
            self.acting = before

    def make_reference(self) -> None:
        """Make frozen adapters ``reference`` beside the trained ones, where there are none; train the others."""
        generator = torch.Generator()
        for layer in self._layers.values():
            adapters = _adapters(layer)
            trained = adapters["default"]
            if "reference" not in adapters:
                inner, width = trained.down_KD.shape
                adapters["reference"] = Bottleneck(width, inner, generator).to(trained.up_D.device)
            trained.requires_grad_(True)  # peft freezes whatever is not its own
            adapters["reference"].requires_grad_(False)
            adapters["reference"].load_state_dict(trained.state_dict())

    def add(self, index: int, hidden: Tensor) -> Tensor:
        """Read the instruction, if it is in the pass, and return the states with what is added."""
        if self.now is None or self.acting is None:
            return hidden
        if count := self.now.instruction:
            read_D = pool(self._adapter(index)(hidden[0, :count]), self.config.pool)
            self.now.vectors[index] = self.config.strength * read_D
            state = hidden[0, :count].detach().float().norm(dim=-1).mean()
            self._shares[index] = self.now.vectors[index].detach().norm() / state
        if self.now.weight is None:
            return hidden
        return hidden + (self.now.weight[..., None] * self.now.vectors[index]).to(hidden.dtype)

    def save(self, folder: Path) -> None:
        """Write settings and trained weights into `folder`."""
        named = {f"{index}.{name}": tensor for index, name, tensor in self._weights()}
        save_file({name: tensor.contiguous() for name, tensor in named.items()}, folder / EMBEDDING_WEIGHTS)
        (folder / EMBEDDING_SETTINGS).write_text(
            json.dumps(self.config.model_dump(mode="json"), indent=2), encoding="utf-8"
        )

    def load(self, folder: Path) -> None:
        """Read the weights that `save` wrote. Raises RunError when they do not fit."""
        expected = {f"{index}.{name}": tensor for index, name, tensor in self._weights()}
        try:
            weights = load_file(folder / EMBEDDING_WEIGHTS)
        except (SafetensorError, OSError) as error:
            raise RunError(f"{folder / EMBEDDING_WEIGHTS} is damaged: {error}") from None
        if _shapes(weights) != _shapes(expected):
            raise RunError(f"{folder / EMBEDDING_WEIGHTS} was trained on another model: its layers have other shapes.")
        with torch.no_grad():
            for name, tensor in expected.items():
                tensor.copy_(weights[name])

    def train(self, mode: bool) -> None:
        """Train the adapters, or keep them fixed."""
        for index in self._layers:
            self._adapter(index, "default").requires_grad_(mode)

    def _named(self) -> Iterable[str]:
        return _adapters(next(iter(self._layers.values()))).keys()

    def _adapter(self, index: int, name: str | None = None) -> Any:
        return _adapters(self._layers[index])[name or self.acting]

    def _weights(self) -> Iterator[tuple[int, str, Tensor]]:
        for index in self._layers:
            for name, tensor in self._adapter(index, "default").state_dict().items():
                yield index, name, tensor


class _Hook:
    """Adds to the states that enter a layer."""

    def __init__(self, embeddings: InstructionEmbeddings, index: int) -> None:
        self.embeddings, self.index = embeddings, index

    def __call__(self, layer: nn.Module, args: Any, kwargs: dict[str, Any]) -> Any:
        if args:
            return (self.embeddings.add(self.index, args[0]), *args[1:]), kwargs
        return args, {**kwargs, "hidden_states": self.embeddings.add(self.index, kwargs["hidden_states"])}


def read_settings(folder: Path) -> EmbeddingConfig:
    """Return the settings that `InstructionEmbeddings.save` wrote. Raises RunError."""
    path = folder / EMBEDDING_SETTINGS
    try:
        return EmbeddingConfig.model_validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        reason = error.errors()[0]["msg"] if isinstance(error, ValidationError) else error.strerror
        raise RunError(f"{path}: cannot be read as settings of instruction embeddings: {reason}") from None


def _layers(decoder: nn.Module, chosen: tuple[int, ...] | None) -> tuple[int, ...]:
    """Return the layers' numbers: the chosen ones, or the middle third.

    Raises ModelError for one that is not there.
    """
    count = len(_decoder_layers(decoder))
    if chosen is None:
        return tuple(range(count // 3, max(count // 3 + 1, count - count // 3)))
    if wrong := [index for index in chosen if index >= count]:
        raise ModelError(f"there is no layer {wrong[0]}; the model's {count} layers are 0 to {count - 1}.")
    return tuple(sorted(set(chosen)))


def _decoder_layers(decoder: nn.Module) -> list[nn.Module]:
    layers = decoder_layers(decoder)
    if not layers:
        raise ModelError(
            f"instruction embeddings are not possible for {type(decoder).__name__}: its layers are unknown."
        )
    return layers


def _adapters(layer: nn.Module) -> Any:
    """Return a layer's adapters by name, an `nn.ModuleDict`."""
    return layer.get_submodule(NAME)


def _shapes(tensors: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in tensors.items()}
