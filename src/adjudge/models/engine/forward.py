"""The forward pass: padded, prefix-shared and packed batches, and sampling from a key-value cache.

One forward serves sampling, training and evaluation. The tokens that all prompts begin with (instruction, answer form,
demonstrations) run once per batch, in the backward pass too: their keys and values are computed for one row and
repeated, and the gradients of all rows flow back through that one row. Without gradient they are kept from pass to pass
(`PrefixStore`). Logits exist only where an answer token is predicted, never over the whole prompt.

Shapes: ``B`` rows, ``C`` tokens of the common prefix, ``T`` tokens of the longest rest, ``M`` response tokens,
``K`` requested tokens, ``D`` width, ``V`` vocabulary.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from adjudge.config import EmbeddingConfig
from adjudge.models.engine.abilities import Abilities, candidates, probe
from adjudge.models.engine.attention import ATTENTION, register
from adjudge.models.engine.batch import Branches, Side, TokenBatch, branch, build_batch, with_branches
from adjudge.models.engine.branched import Branched
from adjudge.models.engine.checkpointing import checkpoint_layers
from adjudge.models.engine.first_layers import keep_first_layers, layer_count
from adjudge.models.engine.fixed import FixedShape
from adjudge.models.engine.fused import fuse
from adjudge.models.engine.graphs import PREFIX_MULTIPLE, Graphs, Recomputed
from adjudge.models.engine.last_layer import restore_last_layer, trim_last_layer
from adjudge.models.engine.packing import Packing, answer_cells
from adjudge.models.engine.prefix import Cached, Prefilled, PrefixStore, expand
from adjudge.models.engine.sharding import Sharded
from adjudge.models.instruction import InstructionEmbeddings, Pass, Segments

MOST_NODES = 256
"""Largest number of a prompt's answer tokens in one pass with it: each of them meets all of them in attention."""


def build_engine(model: Any, name: str, sharded: Sharded | None = None) -> Engine:
    """Return an engine for a causal LM, with its layers fused and its abilities probed.

    `sharded` is how the model was divided over several processes. Raises ModelError when the logits computed here
    differ from the model's own.
    """
    engine = Engine(model, name)
    engine.sharded = sharded
    engine.fuse_layers()
    trims_last_layer = trim_last_layer(engine.decoder)
    probe(engine, candidates(engine.decoder, trims_last_layer=trims_last_layer))
    return engine


class Engine:
    """Runs a causal LM over batches of prompts and responses. Build one with `build_engine`."""

    def __init__(self, model: Any, name: str) -> None:
        self.model = model
        """The network itself, without peft's wrapper; adapters are layers inside it."""
        self.name = name
        self.decoder = getattr(model, model.base_model_prefix)
        self.abilities = candidates(self.decoder, trims_last_layer=False)[-1]
        self.prefixes = PrefixStore(model)
        self.graphs: Graphs | None = None
        """Captured passes, on a GPU that runs them (`use_graphs`)."""
        self.sharded: Sharded | None = None
        """How the weights are divided over several processes."""
        self.embeddings: InstructionEmbeddings | None = None
        self.training = True
        """Like `nn.Module.training`: dropout may be on, so each pass computes its prefix anew."""
        self.checkpoints = False
        """Activations are computed again in the backward pass."""

    @property
    def device(self) -> torch.device:
        """The device of the network."""
        return torch.device(self.model.device)

    def use(self, abilities: Abilities) -> None:
        """Run the model with other abilities from now on, and forget every kept prefix."""
        config = self.decoder.config
        if abilities.packs:
            register()
            config._attn_implementation = ATTENTION
        elif config._attn_implementation == ATTENTION:
            config._attn_implementation = "sdpa"
        if abilities.trims_last_layer:
            trim_last_layer(self.decoder)
        elif self.abilities.trims_last_layer:
            restore_last_layer(self.decoder)
        self.abilities = abilities
        self.forget()

    def use_graphs(self, graphs: Graphs | None) -> None:
        """Replay captured passes from now on where that is possible; None: run every pass as usual."""
        self.graphs = graphs

    @property
    def replays(self) -> bool:
        """True if passes are replayed now; sampling then keeps no gradient, and no cache."""
        return self.graphs is not None and self.graphs.usable

    def forget(self) -> None:
        """Forget every kept prefix and captured pass; call it after changing the network's layers."""
        self.prefixes.forget_all()
        if self.graphs is not None:
            self.graphs.clear()

    def fuse_layers(self) -> None:
        """Fuse layers of known kinds and forget every kept prefix. Call it again after adding adapters."""
        fuse(self.model)
        self.forget()

    def add_embeddings(self, config: EmbeddingConfig, seed: int = 0) -> InstructionEmbeddings:
        """Add instruction embeddings to the layers, and return them.

        Raises ModelError for layers that are unknown.
        """
        self.embeddings = InstructionEmbeddings(self.decoder, config, seed)
        self.forget()
        return self.embeddings

    def layer_count(self) -> int:
        """Return the number of layers. Raises ModelError when they are of unknown kinds."""
        return layer_count(self.decoder, self.name)

    def keep_first_layers(self, count: int) -> None:
        """Run only the first `count` layers from now on, without the final norm (`keep_first_layers`)."""
        keep_first_layers(self.decoder, count, self.name)
        trims = trim_last_layer(self.decoder) and self.abilities.packs
        self.use(replace(self.abilities, trims_last_layer=trims))

    def checkpoint_activations(self) -> None:
        """Keep only each layer's input for the backward pass. Raises ModelError when no layers are known."""
        checkpoint_layers(self.decoder, self.name)  # replaces the last layer's trimmed forward
        self.checkpoints = True
        # Padded rows share the prefix through a cache, which cannot be written twice.
        shares_prefix = self.abilities.shares_prefix and self.abilities.packs
        self.abilities = replace(self.abilities, trims_last_layer=False, shares_prefix=shares_prefix)

    def batch(
        self, prompts: Sequence[Sequence[int]], responses: Sequence[Sequence[int]], side: Side = "right"
    ) -> TokenBatch:
        """Lay rows out for `hidden` or `prefill` (see `build_batch`)."""
        # A gap between prefix and rest would count as distance without position ids (ALiBi), and against a window when
        # more tokens follow.
        gapless = self.abilities.takes_positions and (self.abilities.packs or not self._has_window)
        share = self.abilities.shares_prefix and (side == "right" or gapless)
        segments = None if self.embeddings is None else self.embeddings.segments(prompts, self.device)
        multiple = PREFIX_MULTIPLE if self.replays else 1
        lay_out = partial(build_batch, prompts, responses, side=side, device=self.device, segments=segments)
        lay_out = partial(lay_out, prefix_multiple=multiple)
        batch = lay_out(share_prefix=share)
        if len(batch.prefix_C) and self._exceeds_window(batch.width):  # the gap would count against the window too
            batch = lay_out(share_prefix=False)
        return batch

    def hidden(self, batch: TokenBatch) -> Tensor:
        """Return the last hidden states that predict the response's real tokens, ``[M, D]``."""
        if self.graphs is not None and batch.sees_BTT is None and self._can_replay(batch.width):
            return self.graphs.hidden(batch.rows)
        if self._packs(batch.width):
            return self._run_packed(batch, Packing.of_answers(batch), keep_cache=False)[0]
        hidden_BTD, _ = self._run_padded(batch, keep_cache=False)
        return hidden_BTD[answer_cells(batch)]

    def can_branch(self, prompts: Sequence[Sequence[int]], branches: Sequence[Branches]) -> bool:
        """Return whether `branched` may run here, and takes less than answers fed after their prompts."""
        nodes = max(len(tree.ids) for tree in branches)
        return not self.replays and nodes <= MOST_NODES and self._packs(max(map(len, prompts)) + nodes)

    def branched(self, prompts: Sequence[Sequence[int]], branches: Sequence[Branches]) -> Tensor:
        """Run prompts and the answers that branch off each in one pass, where `can_branch`.

        Return the hidden states of each prompt's end and of its nodes, one prompt after the other, ``[M, D]``.
        """
        return self.hidden(self._with_branches(prompts, branches))

    def _with_branches(self, prompts: Sequence[Sequence[int]], branches: Sequence[Branches]) -> TokenBatch:
        batch = self.batch(prompts, [[*tree.ids, 0] for tree in branches])
        return with_branches(batch, branches)

    def logits(self, hidden: Tensor) -> Tensor:
        """Return logits over the vocabulary in float32, ``[…, D] → […, V]``."""
        logits: Tensor = self.model.get_output_embeddings()(hidden).float()
        config = self.model.config.get_text_config()
        if (cap := getattr(config, "final_logit_softcapping", None)) is not None:
            logits = cap * torch.tanh(logits / cap)
        if (scaling := getattr(config, "logits_scaling", None)) is not None:
            logits = logits / scaling
        if (scale := getattr(config, "logit_scale", None)) is not None and not isinstance(scale, str):
            logits = logits * scale
        return logits

    def prefill(
        self, prompts: Sequence[Sequence[int]], *, grad: bool = False, expected: Sequence[Sequence[int]] = ()
    ) -> Prefilled:
        """Run prompts once and return their state, to sample or score labels from; `grad` lets gradients flow.

        Answers that are `expected` run in the same pass where that is possible, so that feeding their tokens one by one
        runs nothing.
        """
        if self.graphs is not None and not grad and self._can_replay(max(map(len, prompts))):
            return self.graphs.prefill(prompts)
        tree, places = branch(expected)
        if tree.ids and self.can_branch(prompts, [tree]):
            return self._prefill_branched(prompts, tree, places, grad=grad)
        return self._prefill(prompts, grad=grad)

    def _prefill_branched(
        self, prompts: Sequence[Sequence[int]], tree: Branches, places: Mapping[tuple[int, ...], int], *, grad: bool
    ) -> Branched:
        batch = self._with_branches(prompts, [tree] * len(prompts))
        with torch.set_grad_enabled(grad):
            packing = Packing.of_answers(batch)
            hidden_MD, cached = self._run_packed(batch, packing, keep_cache=True)
        hidden_PND = hidden_MD.unflatten(0, (len(prompts), -1))
        length_P = torch.tensor([len(prompt) for prompt in prompts], device=self.device)
        after = (batch.mask_BT[:, :0], length_P - 1, hidden_PND[:, 0], grad, batch.segments, cached.vectors)
        return Branched.of(Prefilled(cached.cache, *after), packing, hidden_PND, places)

    def _prefill(self, prompts: Sequence[Sequence[int]], *, grad: bool) -> Prefilled:
        batch = self.batch(prompts, [[] for _ in prompts], side="left")
        with torch.set_grad_enabled(grad):
            if self._packs(batch.width):
                row_B = torch.arange(len(prompts), device=self.device)
                packing = Packing.of(batch, row_B, torch.full_like(row_B, -1))
                hidden_BD, cached = self._run_packed(batch, packing, keep_cache=True)
                mask_BS = packing.spread(cached.cache)
            else:
                hidden_BTD, cached = self._run_padded(batch, keep_cache=True)
                hidden_BD, mask_BS = hidden_BTD[:, -1], batch.attention_mask
            last_B = batch.position_BT[:, -1]
            return Prefilled(cached.cache, mask_BS, last_B, hidden_BD, grad, batch.segments, cached.vectors)

    def extend(self, state: Prefilled, ids_BT: Tensor) -> tuple[Tensor, Prefilled]:
        """Feed further tokens of every row; return their hidden states ``[B, T, D]`` and the new state.

        `state` itself is used up.
        """
        if isinstance(state, Recomputed):
            width = max(map(len, state.tokens)) + ids_BT.shape[1]
            if self.graphs is not None and self._can_replay(width) and not self.graphs.needs_cache(state):
                return self.graphs.extend(state, ids_BT)
            state = self._prefill(state.tokens, grad=False)
        if isinstance(state, Branched):
            return state.extend(ids_BT, self.extend)
        added = ids_BT.shape[1]
        mask = torch.cat([state.mask_BT, state.mask_BT.new_ones(len(ids_BT), added)], dim=1)
        positions = state.position_B[:, None] + torch.arange(1, added + 1, device=self.device)
        with torch.set_grad_enabled(state.grad):
            current = Pass(self._weights(state.segments, positions), vectors=state.vectors)
            hidden_BTD, cache = self._decode(ids_BT, mask, positions, state.cache, current=current)
            state = replace(state, cache=cache, mask_BT=mask, position_B=positions[:, -1], hidden_BD=hidden_BTD[:, -1])
            return hidden_BTD, state

    def prefix_cache(self, prefix_C: Tensor) -> Cached:
        """Return the keys and values of the common prefix, in one row."""
        if self._computes_anew:
            return self._extend_prefix(prefix_C, 0, None)
        done, cache = self.prefixes.reuse(prefix_C)
        keep = 2 * done < len(prefix_C) and self.prefixes.may_keep()
        if keep:  # computed as a whole, so that a resumed run can compute exactly the same from the ids
            done, cache = 0, None
        if done == len(prefix_C):
            return Cached(cache, self.prefixes.vectors())
        prefix = self._extend_prefix(prefix_C, done, cache)
        if keep:
            self.prefixes.keep(prefix_C, prefix)
        return prefix

    def run_fixed(self, shape: FixedShape, indices: Tensor) -> Tensor:
        """Run a packed batch of a fixed shape; return its requested hidden states.

        It waits for no result of the GPU.
        """
        ids, positions, packing = shape.unpack(indices)
        hidden, _ = self._decode(ids[None], None, positions[None], None, use_cache=False, packing=packing)
        if not self.abilities.trims_last_layer:
            hidden = hidden[:, shape.common :].index_select(1, packing.wanted_K)
        return hidden[0]

    def _can_replay(self, width: int) -> bool:
        return self.replays and self._packs(width)

    @property
    def _computes_anew(self) -> bool:
        """True where a prefix is part of the backward pass, or differs from pass to pass (dropout)."""
        return torch.is_grad_enabled() or self.training

    def _packs(self, width: int) -> bool:
        return self.abilities.packs and not self._exceeds_window(width)

    def _exceeds_window(self, width: int) -> bool:
        """True if a row may be longer than the model's attention window (Mistral, Qwen2 with sliding windows)."""
        window = getattr(self.decoder.config, "sliding_window", None)
        return window is not None and width > window

    @property
    def _has_window(self) -> bool:
        """True if layers attend to a window, and all layers keep keys and values."""
        kinds = set(getattr(self.decoder.config, "layer_types", None) or ())
        window = getattr(self.decoder.config, "sliding_window", None)
        return window is not None and kinds <= {"sliding_attention", "full_attention"}

    def _run_padded(self, batch: TokenBatch, *, keep_cache: bool) -> tuple[Tensor, Cached]:
        """Return the hidden states of all tokens, ``[B, T, D]``, and the cache."""
        cache, current = None, Pass(self._weights(batch.segments, batch.position_BT))
        common = len(batch.prefix_C)
        if common:
            prefix = self.prefix_cache(batch.prefix_C)
            cache, current.vectors = expand(prefix.cache, len(batch.ids_BT)), prefix.vectors
        elif batch.segments is not None:
            current.vectors = self._read(batch.segments.instruction_C)
        hidden_BTD, cache = self._decode(
            *(batch.ids_BT, batch.attention_mask, batch.position_BT, cache),
            use_cache=keep_cache or common > 0,
            current=current,
        )
        return hidden_BTD, Cached(cache, current.vectors)

    def _run_packed(self, batch: TokenBatch, packing: Packing, *, keep_cache: bool) -> tuple[Tensor, Cached]:
        """Return the hidden states of the requested tokens, ``[K, D]``, and the cache of the packed sequence."""
        common = len(batch.prefix_C)
        ids, positions, cache = packing.ids_M, packing.position_M, None
        weight_BT = self._weights(batch.segments, batch.position_BT)
        weight = None if weight_BT is None else weight_BT[batch.mask_BT]
        current = Pass()
        if common and self._computes_anew:
            ids = torch.cat([batch.prefix_C, ids])
            positions = torch.cat([torch.arange(common, device=self.device), positions])
            if weight is not None:
                weight, current.instruction = torch.cat([weight.new_zeros(common), weight]), common
        elif common:
            prefix = self.prefix_cache(batch.prefix_C)
            cache, current.vectors = expand(prefix.cache, 1), prefix.vectors
        elif batch.segments is not None:
            current.vectors = self._read(batch.segments.instruction_C)
        current.weight = None if weight is None else weight[None]
        hidden, cache = self._decode(
            *(ids[None], None, positions[None], cache),
            use_cache=keep_cache or cache is not None,
            packing=packing,
            current=current,
        )
        if not self.abilities.trims_last_layer:
            hidden = hidden[:, -len(packing.ids_M) :][:, packing.wanted_K]
        return hidden[0], Cached(cache, current.vectors)

    def _weights(self, segments: Segments | None, position_BT: Tensor) -> Tensor | None:
        """Return what instruction embeddings are weighted by at these positions; None without them."""
        if self.embeddings is None or segments is None:
            return None
        return self.embeddings.weights(segments, position_BT)

    def _read(self, instruction_C: Tensor) -> dict[int, Tensor]:
        """Return an instruction's vectors, of a pass over it alone."""
        current = Pass(instruction=len(instruction_C))
        ones = torch.ones(1, len(instruction_C), dtype=torch.bool, device=self.device)
        positions = torch.arange(len(instruction_C), device=self.device)[None]
        self._decode(instruction_C[None], ones, positions, None, use_cache=False, current=current)
        return current.vectors

    def _extend_prefix(self, prefix_C: Tensor, done: int, cache: Any) -> Cached:
        """Return a cache of the whole prefix; `cache` holds its first `done` tokens."""
        current = Pass(instruction=0 if done else len(prefix_C))
        positions = torch.arange(done, len(prefix_C), device=self.device)[None]
        ones = torch.ones(1, len(prefix_C), dtype=torch.bool, device=self.device)
        _, cache = self._decode(prefix_C[None, done:], ones, positions, cache, current=current)
        return Cached(cache, current.vectors)

    def _decode(
        self,
        ids: Tensor,
        mask: Tensor | None,
        positions: Tensor,
        cache: Any,
        *,
        use_cache: bool = True,
        packing: Packing | None = None,
        current: Pass | None = None,
    ) -> tuple[Tensor, Any]:
        """Call the decoder; return its last hidden states and its cache."""
        if torch.is_grad_enabled():
            self.prefixes.forget_acting()
        named: dict[str, Any] = {"position_ids": positions} if self.abilities.takes_positions else {}
        if packing is not None:
            # transformers passes a mask of four dimensions on unchanged, and builds none of its own.
            named |= {"packing": packing, "attention_mask": packing.mask_BTS[:, None]}
        elif mask is not None:
            named["attention_mask"] = mask.long()
        if use_cache and cache is None and self._has_window:
            from transformers import DynamicCache

            # The model's own would keep a window of the packed sequence, in which all rows stand side by side.
            cache = DynamicCache()
        named[self.abilities.cache_name] = cache
        with nullcontext() if self.embeddings is None else self.embeddings.running(current):
            out = self.decoder(input_ids=ids, use_cache=use_cache, return_dict=True, **named)
        return out.last_hidden_state, out.cache if hasattr(out, "cache") else out.past_key_values
