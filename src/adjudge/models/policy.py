"""The policy: a causal language model with LoRA layers, a value head, and the reference inside it.

The value head reads the last hidden state. The reference policy is the same network with its adapters off, so nothing
but the adapters may be trained: biases stay fixed. A policy that starts from an SFT run holds that run's adapter a
second time, frozen, as its reference; `freeze_reference` makes the adapter of the moment the reference.

How batches are run is the engine's part (`adjudge.models.engine`): it makes the passes fast, and may be skipped.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from adjudge.config import Config, EmbeddingConfig, LoraConfig
from adjudge.errors import ModelError, RunError
from adjudge.models.acting import acting_adapter
from adjudge.models.engine.abilities import Abilities
from adjudge.models.engine.batch import Branches, Side, TokenBatch
from adjudge.models.engine.forward import Engine, build_engine
from adjudge.models.engine.graphs import Graphs
from adjudge.models.engine.positions import find_positions
from adjudge.models.engine.prefix import POLICY, REFERENCE, Prefilled
from adjudge.models.engine.sharding import Sharded, shard
from adjudge.models.instruction import InstructionEmbeddings, read_settings
from adjudge.models.sources.bundled import published_name
from adjudge.models.sources.device import resolve_device
from adjudge.models.sources.foreign_adapter import ForeignAdapter, with_checked_config
from adjudge.models.sources.loading import load_causal_lm, lora_targets
from adjudge.models.sources.quiet import no_future_warnings
from adjudge.models.sources.untrusted import (
    ADAPTER_WEIGHTS,
    as_plain_lora,
    check_adapter,
    has_embeddings,
    mark_embeddings,
)
from adjudge.system.console import note
from adjudge.system.files import whole_folder
from adjudge.system.parallel import have_joined, world_size

VALUE_HEAD = "value_head.safetensors"
CARD = "README.md"


class Policy(nn.Module):
    """A causal LM that answers prompts. Build one with `load_policy`.

    Shapes: ``M`` response tokens of a batch, ``D`` width, ``V`` vocabulary.
    """

    def __init__(self, lm: Any, tokenizer: Any, name: str, engine: Engine) -> None:
        super().__init__()
        self.lm = lm
        """The network, in peft's wrapper once there is an adapter; the engine holds the network without it."""
        self.tokenizer = tokenizer
        self.name = name
        self.engine = engine
        self.positions = find_positions(lm)
        width = lm.config.get_text_config().hidden_size
        self.value_head = nn.Linear(width, 1, dtype=torch.float32, device=lm.device)
        nn.init.zeros_(self.value_head.weight)
        nn.init.zeros_(self.value_head.bias)

    @property
    def device(self) -> torch.device:
        """The device of the network."""
        return self.engine.device

    @property
    def end_ids(self) -> list[int]:
        """Tokens that end a turn; training teaches the first."""
        configured = self.lm.generation_config.eos_token_id if self.lm.generation_config else None
        candidates = [self.tokenizer.eos_token_id, *(configured if isinstance(configured, list) else [configured])]
        return list(dict.fromkeys(token for token in candidates if token is not None))

    @property
    def abilities(self) -> Abilities:
        """How batches are run; chosen by comparing logits when the policy is loaded."""
        return self.engine.abilities

    @property
    def packs(self) -> bool:
        """True if a batch runs without padding."""
        return self.engine.abilities.packs

    @property
    def replays(self) -> bool:
        """True if passes are captured and replayed, on a GPU; sampling then keeps no gradient."""
        return self.engine.replays

    @property
    def sharded(self) -> Sharded | None:
        """How the base is divided over several processes; None where this one holds all of it."""
        return self.engine.sharded

    @property
    def checkpoints(self) -> bool:
        """True if activations are computed again in the backward pass."""
        return self.engine.checkpoints

    def use(self, abilities: Abilities) -> None:
        """Run batches in another way from now on: same figures up to rounding, for comparisons and tests."""
        self.engine.use(abilities)

    def train(self, mode: bool = True) -> Policy:
        """Switch dropout on or off; with it on, no prefix is kept."""
        self.engine.training = mode
        return super().train(mode)

    def add_adapter(self, config: LoraConfig) -> None:
        """Add fresh LoRA layers; from then on the reference is the network with them off.

        Raises ModelError for layers that peft cannot adapt.
        """
        from peft import LoraConfig as PeftLoraConfig
        from peft import get_peft_model

        layers = PeftLoraConfig(
            task_type="CAUSAL_LM",
            r=config.r,
            lora_alpha=config.alpha,  # type: ignore[arg-type]
            lora_dropout=config.dropout,
            use_rslora=config.rank_stabilised,
            target_modules=lora_targets(self.lm, config.targets),
            bias="none",
        )
        with no_future_warnings():
            # Named in the adapter, so that plain peft loads the same base; only a model from the hub has a commit.
            try:
                self.lm = get_peft_model(self.lm, layers, revision=getattr(self.lm.config, "_commit_hash", None))
            except ValueError as error:
                reason = " ".join(str(error).split())
                raise ModelError(
                    f"{self.name}: peft cannot adapt some of its layers; name others with lora.targets. "
                    f"{reason if len(reason) < 300 else reason[:300] + ' …'}"
                ) from error
        self.engine.fuse_layers()

    @property
    def embeddings(self) -> InstructionEmbeddings | None:
        """What is added to the tokens after the instruction; None for nothing."""
        return self.engine.embeddings

    def add_embeddings(self, config: EmbeddingConfig, seed: int) -> None:
        """Add instruction embeddings, which begin at zero; the reference is the network without them.

        With strength 0 nothing is added. Where the adapter brought its own, they stay. Raises ConfigError when those
        have other settings, ModelError for layers of unknown kinds or numbers.
        """
        if self.embeddings is not None:
            self.embeddings.check_same(config)
        elif config.strength:
            self.engine.add_embeddings(config, seed)

    def load_adapter(self, folder: Path, *, train: bool) -> None:
        """Load a saved adapter and its value head; with `train`, a frozen copy of it becomes the reference.

        Instruction embeddings saved beside it are loaded, too. Raises RunError when there is no adapter, when it is
        damaged or not a plain LoRA adapter, and when it was trained on a network of another shape.
        """
        check_adapter(folder)
        with as_plain_lora(folder) as lora:
            self._load_lora(folder, lora, train=train, head=folder / VALUE_HEAD)
        if has_embeddings(folder):
            embeddings = self.engine.add_embeddings(read_settings(folder))
            embeddings.load(folder)
            if train:
                embeddings.make_reference()
            else:
                embeddings.train(False)

    def load_foreign_adapter(self, adapter: ForeignAdapter) -> None:
        """Load the LoRA layers that another program trained, to judge with.

        Raises RunError when they do not fit.
        """
        with with_checked_config(adapter) as lora:
            self._load_lora(adapter.folder, lora, train=False)

    def _load_lora(self, folder: Path, lora: Path, *, train: bool, head: Path | None = None) -> None:
        """Load the LoRA layers in `lora` for the adapter in `folder`.

        The value head in the file `head` is loaded too, if there is one.
        """
        from peft import PeftModel, get_peft_model_state_dict

        try:
            with no_future_warnings():
                # Without a device peft reads the weights onto the first GPU, whichever the layers are on.
                self.lm = PeftModel.from_pretrained(self.lm, str(lora), is_trainable=train, torch_device="cpu")
                if train:
                    self.lm.load_adapter(str(lora), "reference", is_trainable=False, torch_device="cpu")
            expected = set(get_peft_model_state_dict(self.lm, adapter_name="default", save_embedding_layers=False))
            weights = set(load_file(lora / ADAPTER_WEIGHTS))
            if odd := sorted(expected ^ weights):  # peft would leave fresh layers there, or ignore weights
                raise RunError(
                    f"The adapter in {folder} does not fit {self.name}, or is incomplete: "
                    f"{len(odd)} weights are missing or unknown, for example {odd[0]}."
                )
            if head is not None and head.is_file():
                self.value_head.load_state_dict(load_file(head))
        except (SafetensorError, OSError, KeyError, TypeError) as error:
            raise RunError(f"The adapter in {folder} is damaged: {error}") from None
        except (RuntimeError, ValueError) as error:  # torch: sizes; peft: modules that do not exist
            raise RunError(
                f"The adapter in {folder} does not fit {self.name}: it was trained on another model. {error}"
            ) from None
        self.engine.fuse_layers()

    def freeze_reference(self) -> None:
        """Make a frozen copy of the trained adapter the reference."""
        if "reference" not in self.lm.peft_config:
            with no_future_warnings():
                self.lm.add_adapter("reference", self.lm.peft_config["default"])
            self.lm.set_adapter("default")
            self.engine.fuse_layers()
        if self.embeddings is not None:
            self.embeddings.make_reference()
        trained = self._adapter_weights("default")
        with torch.no_grad():
            for name, weight in self._adapter_weights("reference").items():
                weight.copy_(trained[name])
                weight.requires_grad_(False)
        self.forget_prefix(reference=True)

    def reference_state(self) -> dict[str, Tensor]:
        """Return the weights of a frozen reference adapter; empty while the reference is the bare network."""
        if "reference" not in self.lm.peft_config:
            return {}
        return {name: weight.detach() for name, weight in self._adapter_weights("reference").items()}

    def load_reference_state(self, state: Mapping[str, Tensor]) -> None:
        """Restore what `reference_state` returned. Nothing happens for an empty state."""
        if not state:
            return
        self.freeze_reference()
        with torch.no_grad():
            for name, weight in self._adapter_weights("reference").items():
                weight.copy_(state[name])

    def _adapter_weights(self, adapter: str) -> dict[str, nn.Parameter]:
        """Return the parameters of an adapter, by names without the adapter's."""
        mark = f".{adapter}."
        return {name.replace(mark, "."): weight for name, weight in self.lm.named_parameters() if mark in name}

    def save_adapter(self, folder: Path) -> None:
        """Save adapter (in peft's format), value head and tokenizer; `folder` appears whole or not at all.

        The adapter names the published model as its base, so that peft finds it on another machine.
        """
        head = {name: tensor.contiguous() for name, tensor in self.value_head.state_dict().items()}
        self.lm.peft_config["default"].base_model_name_or_path = published_name(self.name)
        with whole_folder(folder) as temporary:
            self.lm.save_pretrained(str(temporary), selected_adapters=["default"], save_embedding_layers=False)
            (temporary / CARD).unlink(missing_ok=True)  # peft's is a form to fill in; ours is written with the scores
            if self.embeddings is not None:
                self.embeddings.save(temporary)
                mark_embeddings(temporary)
            save_file(head, temporary / VALUE_HEAD)
            self.tokenizer.save_pretrained(str(temporary))

    @property
    def layer_count(self) -> int:
        """The number of layers. Raises ModelError when they are of unknown kinds."""
        return self.engine.layer_count()

    def keep_first_layers(self, count: int) -> None:
        """Keep the first `count` layers, fewer than there are.

        From now on `hidden` returns the states after them. The final norm is left out, and the network can no longer
        answer. Raises ModelError for unknown layers.
        """
        self.engine.keep_first_layers(count)

    def checkpoint_activations(self) -> None:
        """Keep only each layer's input for the backward pass. Raises ModelError for layers of unknown kinds."""
        self.engine.checkpoint_activations()

    def merge(self) -> None:
        """Add the adapter to the weights for good.

        Judging is then as fast as without an adapter, and nothing can be trained. Instruction embeddings are not part
        of any weight; they stay as they are.
        Done in float32 only: rounding the sum to bfloat16 would make the judge differ from the policy that was trained.
        Not done where the base is divided over several processes: nobody has all of a weight.
        """
        fixed = getattr(self.engine.model, "is_quantized", False) or self.sharded is not None
        if hasattr(self.lm, "merge_and_unload") and self.lm.dtype == torch.float32 and not fixed:
            self.lm = self.lm.merge_and_unload()
            self.engine.forget()

    def forget_prefix(self, *, reference: bool = False) -> None:
        """Compute the policy's shared prefix again in its next pass; call it after changing trained weights.

        The reference's prefix is kept, since training does not change the reference; with `reference`, drop it too.
        """
        self.engine.prefixes.forget(POLICY)
        if reference:
            self.engine.prefixes.forget(REFERENCE)

    def kept_prefixes(self) -> dict[str, list[int]]:
        """Return the token ids of all valid kept prefixes: part of a run's state, see `keep_prefixes`."""
        return self.engine.prefixes.ids()

    @torch.no_grad()
    def keep_prefixes(self, ids: Mapping[str, list[int]]) -> None:
        """Compute and keep the prefixes that `kept_prefixes` returned; the weights must be the same as then."""
        self.forget_prefix(reference=True)
        training = self.training
        self.eval()
        for network, prefix in ids.items():
            with self.reference() if network == REFERENCE else nullcontext():
                self.engine.prefix_cache(torch.tensor(prefix, device=self.device))
        self.train(training)

    def adapter_parameters(self) -> list[nn.Parameter]:
        """Return the parameters that are trained, without the value head's."""
        return [parameter for parameter in self.lm.parameters() if parameter.requires_grad]

    @contextmanager
    def reference(self) -> Iterator[None]:
        """Within this block the policy is the reference policy: adapters off, or the frozen SFT adapter."""
        without = nullcontext() if self.embeddings is None else self.embeddings.acting_as("reference")
        with self.engine.prefixes.acting_as(REFERENCE), without:
            if hasattr(self.lm, "peft_config"):
                with acting_adapter(self.engine.model, "reference" if "reference" in self.lm.peft_config else None):
                    yield
            else:
                yield

    def batch(
        self, prompts: Sequence[Sequence[int]], responses: Sequence[Sequence[int]], side: Side = "right"
    ) -> TokenBatch:
        """Lay rows out for `hidden` (see `build_batch`)."""
        return self.engine.batch(prompts, responses, side)

    def hidden(self, batch: TokenBatch) -> Tensor:
        """Return the last hidden states that predict the response's real tokens, ``[M, D]``."""
        return self.engine.hidden(batch)

    def can_branch(self, prompts: Sequence[Sequence[int]], branches: Sequence[Branches]) -> bool:
        """Return whether answers run fastest in one pass with their prompts (`branched`)."""
        return self.engine.can_branch(prompts, branches)

    def branched(self, prompts: Sequence[Sequence[int]], branches: Sequence[Branches]) -> Tensor:
        """Run prompts and the answers that branch off each in one pass, where `can_branch`.

        Return the hidden states of each prompt's end and of its nodes, one prompt after the other, ``[M, D]``.
        """
        return self.engine.branched(prompts, branches)

    def logits(self, hidden: Tensor) -> Tensor:
        """Return logits over the vocabulary in float32, ``[…, D] → […, V]``."""
        return self.engine.logits(hidden)

    def value(self, hidden: Tensor) -> Tensor:
        """Return values in float32, ``[…, D] → […]``."""
        return self.value_head(hidden.float()).squeeze(-1)

    def prefill(
        self, prompts: Sequence[Sequence[int]], *, grad: bool = False, expected: Sequence[Sequence[int]] = ()
    ) -> Prefilled:
        """Run prompts once and return their state, to sample or score labels from; `grad` lets gradients flow.

        Answers that are `expected` run in the same pass where that is possible, so that feeding their tokens one by one
        runs nothing.
        """
        return self.engine.prefill(prompts, grad=grad, expected=expected)

    def extend(self, state: Prefilled, ids_BT: Tensor) -> tuple[Tensor, Prefilled]:
        """Feed further tokens of every row; return their hidden states ``[B, T, D]`` and the new state.

        `state` itself is used up.
        """
        return self.engine.extend(state, ids_BT)


def load_policy(config: Config, *, adapter: bool = False) -> Policy:
    """Load the model of `config.model`; with `adapter`, add fresh LoRA layers (seeded by `config.seed`).

    With ``runtime.shard_base``, several processes divide the model's weights. Raises ModelError when the model cannot
    be loaded or divided, or computes other logits here than by itself.
    """
    divides = config.runtime.shard_base and have_joined()
    lm, tokenizer = load_causal_lm(config.model, config.runtime, on_cpu=divides)
    sharded = shard(lm, config.model, resolve_device(config.runtime)) if divides else None
    policy = Policy(lm, tokenizer, config.model, build_engine(lm, config.model, sharded))
    if sharded is not None:
        note(
            f"{config.model}: a base of {sharded.whole_bytes / 1e6:,.1f} MB is divided over {world_size()} processes. "
            f"Each holds {sharded.held_bytes / 1e6:,.1f} MB, and {sharded.largest_bytes / 1e6:,.1f} MB of what runs."
        )
    if config.runtime.checkpoint_activations:
        policy.checkpoint_activations()
    plain = config.runtime.quantization == "none" and sharded is None
    if config.runtime.cuda_graphs and policy.device.type == "cuda" and plain:
        policy.engine.use_graphs(Graphs(policy.engine))
    if adapter:
        torch.manual_seed(config.seed)
        policy.add_adapter(config.lora)
    return policy
