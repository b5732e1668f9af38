"""The policy: a causal language model with LoRA layers, the reference inside it, and a value head on its last hidden state.

One forward serves sampling, training and evaluation. The tokens that all rows begin with (instruction, answer form, demonstrations)
run once per batch, in the backward pass too: their keys and values are computed for one row and repeated, and the gradients of all
rows flow back through that one row. Without gradient they run once for as long as the weights stay as they are: for the reference that
is the whole run. Logits exist only where an answer token is predicted, never over the whole prompt.

The reference policy is the same network with its adapters off, so nothing but the adapters may be trained: biases stay fixed. A policy
that starts from an SFT run has that run's adapter a second time, frozen, as its reference.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from adjudge.config import Config, LoraConfig
from adjudge.errors import ModelError, RunError
from adjudge.models.engine.attention import ATTENTION, register
from adjudge.models.engine.batch import Side, TokenBatch, build_batch
from adjudge.models.engine.checkpointing import checkpoint_layers
from adjudge.models.engine.fused import fuse
from adjudge.models.engine.last_layer import trim_last_layer
from adjudge.models.engine.packing import Packing
from adjudge.models.engine.prefix import KeptPrefix, Prefilled, expand
from adjudge.models.sources.loading import load_causal_lm, lora_targets
from adjudge.models.sources.quiet import no_future_warnings
from adjudge.models.sources.untrusted import ADAPTER_WEIGHTS, check_adapter
from adjudge.system.console import note
from adjudge.system.files import whole_folder

CHECK_TOLERANCE = {torch.float32: 1e-3, torch.bfloat16: 0.15, torch.float16: 0.05}


class Policy(nn.Module):
    """A causal LM that answers. Build one with `load_policy`."""

    def __init__(self, lm: Any, tokenizer: Any, name: str) -> None:
        super().__init__()
        self.lm = lm
        self.tokenizer = tokenizer
        self.name = name
        width = lm.config.get_text_config().hidden_size
        self.value_head = nn.Linear(width, 1, dtype=torch.float32, device=lm.device)
        nn.init.zeros_(self.value_head.weight)
        nn.init.zeros_(self.value_head.bias)
        base = self._base()
        self._decoder = [getattr(base, base.base_model_prefix)]  # in a list: the module is registered once, under lm
        takes = inspect.signature(self._decoder[0].forward).parameters
        self._takes_positions = "position_ids" in takes
        self._cache_name = "cache" if "cache" in takes else "past_key_values"  # renamed in transformers 5.24
        self.share_prefix = True
        self.packs = self._takes_positions
        self.checkpoints = False
        self._kept: dict[str, KeptPrefix] = {}
        self._acting = "policy"
        fuse(lm)
        self._trimmed = trim_last_layer(self._decoder[0])
        self._check()

    @property
    def device(self) -> torch.device:
        """Where the network lies."""
        return torch.device(self.lm.device)

    @property
    def end_ids(self) -> list[int]:
        """Tokens that end a turn; the first is the one that training teaches."""
        configured = self.lm.generation_config.eos_token_id if self.lm.generation_config else None
        found = [self.tokenizer.eos_token_id, *(configured if isinstance(configured, list) else [configured])]
        return list(dict.fromkeys(token for token in found if token is not None))

    def add_adapter(self, config: LoraConfig) -> None:
        """Put fresh LoRA layers on the network; from then on the reference is the network with them off."""
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
            self.lm = get_peft_model(self.lm, layers, revision=getattr(self.lm.config, "_commit_hash", None))
        self._adapted()

    def load_adapter(self, folder: Path, *, train: bool) -> None:
        """Put a saved adapter (and its value head) on the network; with `train` a frozen copy of it becomes the reference.

        Raises RunError when there is none, when it is damaged or no plain LoRA adapter, or was trained on a network of another shape.
        """
        from peft import PeftModel, get_peft_model_state_dict

        check_adapter(folder)
        head = folder / "value_head.safetensors"
        try:
            with no_future_warnings():
                self.lm = PeftModel.from_pretrained(self.lm, str(folder), is_trainable=train)
                if train:
                    self.lm.load_adapter(str(folder), adapter_name="reference", is_trainable=False)
            expected = set(get_peft_model_state_dict(self.lm, adapter_name="default", save_embedding_layers=False))
            weights = set(load_file(folder / ADAPTER_WEIGHTS))
            if odd := sorted(expected ^ weights):  # peft would leave fresh layers there, or pass over weights
                raise RunError(
                    f"The adapter in {folder} does not fit {self.name}, or is not whole: {len(odd)} weights are missing or unknown, "
                    f"{odd[0]} among them."
                )
            if head.is_file():
                self.value_head.load_state_dict(load_file(head))
        except (SafetensorError, OSError, KeyError, TypeError) as error:
            raise RunError(f"The adapter in {folder} is damaged: {error}") from None
        except (RuntimeError, ValueError) as error:  # torch: sizes; peft: modules that are not there
            raise RunError(
                f"The adapter in {folder} does not fit {self.name}: it was trained on another model. {error}"
            ) from None
        self._adapted()

    def save_adapter(self, folder: Path) -> None:
        """Save the adapter in peft's own format, the value head beside it; the folder is there whole or not at all."""
        head = {name: tensor.contiguous() for name, tensor in self.value_head.state_dict().items()}
        with whole_folder(folder) as aside:
            self.lm.save_pretrained(str(aside), selected_adapters=["default"], save_embedding_layers=False)
            save_file(head, aside / "value_head.safetensors")

    def checkpoint_activations(self) -> None:
        """Keep only each layer's input for the backward pass. Raises ModelError when the model's layers cannot be told."""
        checkpoint_layers(self._decoder[0], self.name)
        self.checkpoints, self._trimmed = True, False
        self.share_prefix = (
            self.share_prefix and self.packs
        )  # padded rows share it through a cache, which cannot be written twice

    def merge(self) -> None:
        """Add the adapter to the weights for good: judging is then as fast as without one, and there is nothing left to train.

        Done in float32 only: rounding the sum to bfloat16 would make the judge another than the policy that was trained.
        """
        fixed = getattr(self._base(), "is_quantized", False)
        if hasattr(self.lm, "merge_and_unload") and self.lm.dtype == torch.float32 and not fixed:
            self.lm = self.lm.merge_and_unload()
            self.forget_prefix()

    def forget_prefix(self) -> None:
        """Let the next pass compute the shared prefix again: its keys and values are kept while the weights stay as they are."""
        self._kept.clear()

    def kept_prefixes(self) -> dict[str, list[int]]:
        """The token ids of the prefixes whose keys and values are kept and still hold; with `keep_prefixes`, part of a run's state."""
        version = self._weights_version()
        return {
            acting: kept.ids
            for acting, kept in self._kept.items()
            if kept.cache is not None and kept.version == version
        }

    @torch.no_grad()
    def keep_prefixes(self, ids: Mapping[str, list[int]]) -> None:
        """Compute and keep the prefixes that `kept_prefixes` told of; the weights must be those of then."""
        self.forget_prefix()
        training = self.training
        self.eval()
        for acting, prefix in ids.items():
            with self.reference() if acting == "reference" else nullcontext():
                self._prefix_cache(torch.tensor(prefix, device=self.device))
        self.train(training)

    def adapter_parameters(self) -> list[nn.Parameter]:
        """The parameters that are trained, without the value head's."""
        return [parameter for parameter in self.lm.parameters() if parameter.requires_grad]

    @contextmanager
    def reference(self) -> Iterator[None]:
        """Within this block the policy is the reference policy: adapters off, or the frozen SFT adapter."""
        acted, self._acting = self._acting, "reference"
        try:
            if "reference" in getattr(self.lm, "peft_config", {}):
                self.lm.set_adapter("reference")
                try:
                    yield
                finally:
                    self.lm.set_adapter("default")
            elif hasattr(self.lm, "disable_adapter"):
                with self.lm.disable_adapter():
                    yield
            else:
                yield
        finally:
            self._acting = acted

    def batch(
        self, prompts: Sequence[Sequence[int]], responses: Sequence[Sequence[int]], side: Side = "right"
    ) -> TokenBatch:
        """Pack rows for `hidden` or `prefill` (see `build_batch`)."""
        # Where places are not given as position ids (ALiBi), a gap between prefix and rest would count as distance.
        share = self.share_prefix and (side == "right" or self._takes_positions)
        batch = build_batch(prompts, responses, device=self.device, share_prefix=share, side=side)
        if len(batch.prefix_C) and self._beyond_window(batch):  # so it would for a window
            batch = build_batch(prompts, responses, device=self.device, share_prefix=False, side=side)
        return batch

    def hidden(self, batch: TokenBatch) -> Tensor:
        """Last hidden states at the places that predict the response's real tokens, ``[M, D]`` with M = response_mask.sum()."""
        rows, _ = batch.response_mask_BR.nonzero(as_tuple=True)
        places = batch.answer_BR[batch.response_mask_BR]
        if self._packs(batch):
            return self._run_packed(batch, Packing.of(batch, rows, places), keep_cache=False)[0]
        hidden_BTD, _ = self._run(batch, keep_cache=False)
        return hidden_BTD[rows, places]

    def logits(self, hidden: Tensor) -> Tensor:
        """Logits over the vocabulary in float32, ``[…, D] → […, V]``."""
        logits = self.lm.get_output_embeddings()(hidden).float()
        config = self.lm.config.get_text_config()
        if (cap := getattr(config, "final_logit_softcapping", None)) is not None:
            logits = cap * torch.tanh(logits / cap)
        if (scaling := getattr(config, "logits_scaling", None)) is not None:
            logits = logits / scaling
        if (scale := getattr(config, "logit_scale", None)) is not None and not isinstance(scale, str):
            logits = logits * scale
        return logits

    def value(self, hidden: Tensor) -> Tensor:
        """Values in float32, ``[…, D] → […]``."""
        return self.value_head(hidden.float()).squeeze(-1)

    def prefill(self, prompts: Sequence[Sequence[int]], *, grad: bool = False) -> Prefilled:
        """Run prompts once and keep their cache, to sample or to score labels from; with `grad`, gradients flow through it."""
        batch = self.batch(prompts, [[] for _ in prompts], side="left")
        with torch.set_grad_enabled(grad):
            if self._packs(batch):
                rows_B = torch.arange(len(prompts), device=self.device)
                packing = Packing.of(batch, rows_B, torch.full_like(rows_B, -1))
                hidden_BD, cache = self._run_packed(batch, packing, keep_cache=True)
                packing.spread(cache)
            else:
                hidden_BTD, cache = self._run(batch, keep_cache=True)
                hidden_BD = hidden_BTD[:, -1]
            return Prefilled(cache, batch.attention_mask, batch.position_BT[:, -1], hidden_BD, grad)

    def extend(self, state: Prefilled, ids_BT: Tensor) -> tuple[Tensor, Prefilled]:
        """Feed further tokens of every row; returns their hidden states ``[B, T, D]`` and the state after them (`state` is spent)."""
        added = ids_BT.shape[1]
        mask = torch.cat([state.mask_BT, state.mask_BT.new_ones(len(ids_BT), added)], dim=1)
        positions = state.position_B[:, None] + torch.arange(1, added + 1, device=self.device)
        with torch.set_grad_enabled(state.grad):
            hidden_BTD, cache = self._decode(ids_BT, mask, positions, state.cache)
            return hidden_BTD, Prefilled(cache, mask, positions[:, -1], hidden_BTD[:, -1], state.grad)

    def _weights_version(self) -> int:
        """Changes when a weight is written to."""
        return sum(parameter._version for parameter in self.lm.parameters())

    def _adapted(self) -> None:
        fuse(self.lm)
        self.forget_prefix()

    def _base(self) -> Any:
        return self.lm.get_base_model() if hasattr(self.lm, "get_base_model") else self.lm

    def _run(self, batch: TokenBatch, *, keep_cache: bool) -> tuple[Tensor, Any]:
        cache = None
        common = len(batch.prefix_C)
        if common:
            cache = expand(self._prefix_cache(batch.prefix_C), len(batch.ids_BT))
        return self._decode(
            batch.ids_BT, batch.attention_mask, batch.position_BT, cache, use_cache=keep_cache or common > 0
        )

    def _packs(self, batch: TokenBatch) -> bool:
        return self.packs and not self._beyond_window(batch)

    def _beyond_window(self, batch: TokenBatch) -> bool:
        """Whether a row may be longer than what the model's attention looks back (Mistral, Qwen2 with sliding windows)."""
        window = getattr(self._decoder[0].config, "sliding_window", None)
        return window is not None and batch.attention_mask.shape[1] > window

    def _run_packed(self, batch: TokenBatch, packing: Packing, *, keep_cache: bool) -> tuple[Tensor, Any]:
        """Hidden states of the tokens that are asked for, ``[K, D]``, and the cache of the packed sequence."""
        common = len(batch.prefix_C)
        ids, positions, cache = packing.ids_M, packing.position_M, None
        if common and (torch.is_grad_enabled() or self.training):
            ids = torch.cat([batch.prefix_C, ids])
            positions = torch.cat([torch.arange(common, device=self.device), positions])
        elif common:
            cache = expand(self._prefix_cache(batch.prefix_C), 1)
        hidden, cache = self._decode(
            ids[None], None, positions[None], cache, use_cache=keep_cache or cache is not None, packing=packing
        )
        return hidden[0] if self._trimmed else hidden[0, -len(packing.ids_M) :][packing.wanted_K], cache

    def _prefix_cache(self, prefix_C: Tensor) -> Any:
        """Keys and values of the common prefix, one row of them."""
        if torch.is_grad_enabled() or self.training:  # needed for the backward pass, or different each time (dropout)
            return self._extend_prefix(prefix_C, 0, None)
        kept = self._kept.get(self._acting)
        # The counter sees weights that are written to; not every optimizer moves it, so nothing is kept while gradients wait for one.
        version = self._weights_version()
        done, cache = kept.reuse(prefix_C, version) if kept else (0, None)
        keep = 2 * done < len(prefix_C) and all(parameter.grad is None for parameter in self.lm.parameters())
        if keep:  # computed whole, so that a run that is resumed can compute the very same again from the ids
            done, cache = 0, None
        if done < len(prefix_C):
            cache = self._extend_prefix(prefix_C, done, cache)
        if keep:
            self._kept[self._acting] = KeptPrefix.of(prefix_C, cache, version)
        return cache

    def _extend_prefix(self, prefix_C: Tensor, done: int, cache: Any) -> Any:
        positions = torch.arange(done, len(prefix_C), device=self.device)[None]
        ones = torch.ones(1, len(prefix_C), dtype=torch.bool, device=self.device)
        return self._decode(prefix_C[None, done:], ones, positions, cache)[1]

    def _decode(
        self,
        ids: Tensor,
        mask: Tensor | None,
        positions: Tensor,
        cache: Any,
        *,
        use_cache: bool = True,
        packing: Packing | None = None,
    ) -> tuple[Tensor, Any]:
        if torch.is_grad_enabled():  # a pass with gradient is what comes before every change of the weights
            self._kept.pop(self._acting, None)
        extra: dict[str, Any] = {"position_ids": positions} if self._takes_positions else {}
        if packing is not None:
            # transformers hands a mask of four dimensions on as it is, and builds none of its own.
            extra |= {"packing": packing, "attention_mask": packing.mask_BTS[:, None]}
        elif mask is not None:
            extra["attention_mask"] = mask.long()
        out = self._decoder[0](
            input_ids=ids, use_cache=use_cache, return_dict=True, **{self._cache_name: cache}, **extra
        )
        return out.last_hidden_state, out.cache if hasattr(out, "cache") else out.past_key_values

    @torch.no_grad()
    def _check(self) -> None:
        """Compare our forward with the model's own on two short rows; switch prefix sharing off where a model cannot do it.

        Raises ModelError when even the plain forward differs (a head with a step of its own that is unknown here).
        """
        words = [token for token in range(5, 13) if token < self.lm.config.get_text_config().vocab_size]
        prompts = [words[:4], words[:3] + words[4:7]]
        own = [
            self.lm(input_ids=torch.tensor([prompt], device=self.device), logits_to_keep=1).logits[0, -1].float()
            if "logits_to_keep" in inspect.signature(self._base().forward).parameters
            else self.lm(input_ids=torch.tensor([prompt], device=self.device)).logits[0, -1].float()
            for prompt in prompts
        ]

        def differs() -> bool:
            ours = self.logits(self.prefill(prompts).hidden_BD)
            scale = max(1.0, float(torch.stack(own).abs().max()))
            # NaN beside NaN is equal (training then stops and says so), NaN beside a number is not.
            tolerance = CHECK_TOLERANCE.get(self.lm.dtype, 1e-3) * scale
            return not torch.allclose(ours, torch.stack(own), rtol=0.0, atol=tolerance, equal_nan=True)

        def fails() -> bool:
            try:
                return differs()
            except (AttributeError, NotImplementedError, RuntimeError, TypeError, ValueError, IndexError):
                return True

        self._pack()
        if self.packs and not fails():
            return
        self._unpack()
        if fails():
            self.share_prefix = False
            if differs():
                raise ModelError(
                    f"{self.name}: the logits computed here differ from the model's own, so it cannot be used."
                )
            note(
                f"{self.name}: the prompts' common beginning cannot be computed once for this model; going on without, slower."
            )

    def _pack(self) -> None:
        """Let the decoder attend as a packed sequence needs it, where its attention can be chosen."""
        config = self._decoder[0].config
        drops = getattr(config, "attention_dropout", 0.0) or 0.0
        self.packs = self.packs and config._attn_implementation == "sdpa" and drops == 0
        if self.packs:
            register()
            config._attn_implementation = ATTENTION

    def _unpack(self) -> None:
        """Back to padded rows: the model's attention is of a kind that a packed sequence cannot have."""
        self.packs = False
        self.forget_prefix()
        if self._decoder[0].config._attn_implementation == ATTENTION:
            self._decoder[0].config._attn_implementation = "sdpa"


def load_policy(config: Config, *, adapter: bool = False) -> Policy:
    """Load the model that `config.model` names; with `adapter`, put fresh LoRA layers on it (seeded by `config.seed`)."""
    lm, tokenizer = load_causal_lm(config.model, config.runtime)
    policy = Policy(lm, tokenizer, config.model)
    if config.runtime.checkpoint_activations:
        policy.checkpoint_activations()
    if adapter:
        torch.manual_seed(config.seed)
        policy.add_adapter(config.lora)
    return policy
