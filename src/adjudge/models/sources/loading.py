"""Load a causal language model and its tokenizer.

A model is bundled, in a folder, on the hub, or random.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from huggingface_hub import try_to_load_from_cache
from huggingface_hub.errors import HTTPError, RemoteEntryNotFoundError, StrictDataclassError
from safetensors import SafetensorError
from torch import nn

from adjudge.config import RuntimeConfig
from adjudge.errors import ModelError, nearest
from adjudge.models.plain_text import control_tokens
from adjudge.models.sources.bundled import BUNDLED, bundled_folder
from adjudge.models.sources.device import resolve_device, resolve_dtype
from adjudge.models.sources.hub import hub_commit, hub_id_of, split_hub_id
from adjudge.models.sources.quiet import quiet
from adjudge.models.sources.random_models import (
    TOKENIZER_OF,
    build_random,
    cut_tokenizer,
    is_random,
    name_special_tokens,
    random_config,
    refuse_random,
)
from adjudge.models.sources.untrusted import check_model
from adjudge.system.console import note
from adjudge.system.hub import hub_answer, hub_reason, hub_resolves, is_connection_error, one_line
from adjudge.system.memory import keep_freed_memory

LOAD_ERRORS = (
    OSError,
    ValueError,
    RuntimeError,
    ImportError,
    LookupError,
    TypeError,
    AttributeError,
    AssertionError,
    RecursionError,
    SafetensorError,
    StrictDataclassError,
    UnpicklingError,
    HTTPError,
)
"""Errors of transformers for a model that is missing, damaged, or of an unknown kind; the last is a connection's."""


def load_causal_lm(name: str, runtime: RuntimeConfig, *, on_cpu: bool = False) -> tuple[Any, Any]:
    """Load a causal LM and its tokenizer; the LM is in eval mode and no parameter requires a gradient.

    `name` is a bundled model, a folder in transformers' layout, a hub id (owner/name or owner/name@revision), or a
    random model (``random:llama-2-7b``, see `adjudge.models.sources.random_models`). Weights are read from safetensors
    only. Python code of a model runs only where `runtime.trust_remote_code` is exactly its name.

    The model has transformers' sdpa attention, or plain attention in a family without sdpa (MPT). The tokenizer is a
    fast one, since character offsets are needed. It has a pad token: the end token if it has none of its own. With
    `on_cpu` the LM stays there, in the precision that its device takes.

    Raises ModelError for an unknown name, a hub that cannot be reached, missing or damaged weights, a model that is not
    a causal LM, and a tokenizer that is not fast.
    """
    from transformers import AutoModelForCausalLM

    device = resolve_device(runtime)
    if device.type == "cuda":
        # cuDNN's attention plans each new shape anew, for a second or more; almost every batch here has a new shape.
        torch.backends.cuda.enable_cudnn_sdp(False)
    keep_freed_memory()
    dtype = resolve_dtype(runtime, device)
    if on_cpu:
        device = torch.device("cpu")
    if runtime.threads is not None:
        torch.set_num_threads(runtime.threads)
    if is_random(name):
        if runtime.quantization != "none":
            raise ModelError(
                f"runtime.quantization={runtime.quantization} is for real weights; {name} has random ones."
            )
        tokenizer = load_tokenizer(name, "", {})
        model = _with_attention(name, lambda attention: build_random(name, dtype, device, attention))
        name_special_tokens(model, tokenizer)
    else:
        source, options = locate(name, runtime)
        tokenizer = load_tokenizer(name, source, options)
        options = model_options(options) | {"use_safetensors": True, "dtype": dtype, "output_loading_info": True}
        options |= quantized(runtime, device)
        load = partial(AutoModelForCausalLM.from_pretrained, source, **options)
        model, info = _with_attention(name, lambda attention: load(attn_implementation=attention))
        _check_causal(name, model, info, tokenizer)
        model.config._commit_hash = options.get("revision")  # transformers 5.24 forgets it; the adapter's file names it
    if runtime.quantization == "none":  # quantized weights are placed while they are read
        model.to(device)
    model.eval()
    model.requires_grad_(False)
    return model, tokenizer


def _with_attention(name: str, make: Callable[[str], Any]) -> Any:
    """Make a model with sdpa attention, or plain attention where its family lacks it. Raises ModelError."""
    try:
        with quiet():
            try:
                return make("sdpa")
            except ValueError as error:
                if "does not support an attention implementation" not in str(error):
                    raise
                return make("eager")
    except LOAD_ERRORS as error:
        raise explain_load(name, error) from error


def quantized(runtime: RuntimeConfig, device: torch.device) -> dict[str, Any]:
    """Return the options of `from_pretrained` for `runtime.quantization`; none when it is unset.

    Only the fixed weights of linear layers are quantized. Adapters, value head and log-probabilities stay float32.
    Raises ModelError where bitsandbytes is not installed.
    Source: arXiv 2208.07339 (8 bits), 2305.14314 (4-bit NormalFloat).
    """
    if runtime.quantization == "none":
        return {}
    if importlib.util.find_spec("bitsandbytes") is None:
        raise ModelError(
            f"runtime.quantization={runtime.quantization} needs bitsandbytes, which is not installed: "
            "pip install 'adjudge[quantization]'."
        )
    from transformers import BitsAndBytesConfig

    if runtime.quantization == "8bit":
        kind = BitsAndBytesConfig(load_in_8bit=True)
    else:
        kind = BitsAndBytesConfig(
            load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=resolve_dtype(runtime, device)
        )
    return {"quantization_config": kind, "device_map": {"": device}}


def locate(name: str, runtime: RuntimeConfig) -> tuple[str, dict[str, Any]]:
    """Return the source that `from_pretrained` loads the model `name` from, and its options.

    Raises ModelError for an unknown name, and for a random model: the caller needs trained weights.
    """
    refuse_random(name)
    options: dict[str, Any] = {"trust_remote_code": runtime.trust_remote_code == name}
    if name in BUNDLED:
        return str(bundled_folder(name)), options
    folder = Path(name).expanduser()
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            raise ModelError(
                f"{folder} holds no model: it has no config.json. Name a folder that `save_pretrained` wrote."
            )
        return str(folder), options
    hub_id = split_hub_id(name)
    if hub_id is None:
        raise ModelError(
            f"There is no model '{name}': it is neither bundled, nor a folder here, nor a hub id "
            f"(owner/name or owner/name@revision).{nearest(name, BUNDLED)}"
        )
    commit, from_hub = _commit(name, *hub_id)
    if not (from_hub and hub_resolves()):  # models in the hub's cache still load, without waiting for retries
        options["local_files_only"] = True
    return hub_id[0], options | {"revision": commit}


def model_options(options: dict[str, Any]) -> dict[str, Any]:
    """Return the options of `locate` for a model rather than a tokenizer.

    transformers looks for an adapter beside a model, and needs its own flag to stay off the hub for that.
    """
    return options | {"adapter_kwargs": {"local_files_only": options.get("local_files_only", False)}}


def resolve_commit(name: str) -> str | None:
    """Return the commit of a model from the hub.

    Returns None for a bundled model, a folder, and a name that is not a hub id. Loading tokenizer and weights by commit
    keeps them together, and a run records it. Raises ModelError when neither the hub nor its cache has the model.
    """
    hub_id = None if name in BUNDLED else hub_id_of(name)
    return None if hub_id is None else _commit(name, *hub_id)[0]


def _commit(name: str, repo: str, revision: str | None) -> tuple[str, bool]:
    """Return the commit of a model from the hub, and whether the hub itself could be asked.

    Where the connection fails, it is the commit in the hub client's cache. Raises ModelError when that has none.
    """
    try:
        return hub_commit(repo, revision), True
    except LOAD_ERRORS as error:
        cached = try_to_load_from_cache(repo, "config.json", revision=revision) if is_connection_error(error) else None
        if not isinstance(cached, str):
            raise explain_load(name, error) from error
    commit = Path(cached).parent.name
    note(f"the connection to the hub failed: {name} is commit {commit[:12]}, from the cache.")
    return commit, False


def load_tokenizer(name: str, source: str, options: dict[str, Any]) -> Any:
    """Load the fast tokenizer of the model at `source`.

    A random model gets the bundled model's tokenizer, cut to size.
    Raises ModelError when it cannot be loaded, is not fast, or has neither a pad nor an end token.
    """
    from transformers import AutoTokenizer

    if is_random(name):
        vocabulary = random_config(name).vocab_size
        return cut_tokenizer(load_tokenizer(TOKENIZER_OF, str(bundled_folder(TOKENIZER_OF)), {}), vocabulary)
    try:
        check_model(source, options)
        tokenizer = AutoTokenizer.from_pretrained(source, **options)
    except LOAD_ERRORS as error:
        raise explain_load(name, error) from error
    if not getattr(tokenizer, "is_fast", False):
        raise ModelError(
            f"The tokenizer of {name} is not a fast one (tokenizer.json), so it cannot tell which characters a token "
            "covers. Convert it with transformers' `convert_slow_tokenizer`, or use another model."
        )
    # transformers warns of "indexing errors" at a text beyond `model_max_length`; lengths are checked here instead.
    tokenizer.deprecation_warnings["sequence-length-is-longer-than-the-specified-maximum"] = True
    if tokenizer.pad_token_id is None:
        if tokenizer.eos_token_id is None:
            raise ModelError(
                f"The tokenizer of {name} has neither a pad nor an end token; set one in its tokenizer_config.json."
            )
        tokenizer.pad_token = tokenizer.eos_token  # masks come from lengths, so any token serves
    return tokenizer


def explain_load(name: str, error: Exception) -> ModelError:
    """Return a ModelError for an error of `from_pretrained`, or of the hub's client."""
    text, answer = str(error), hub_answer(error)
    if isinstance(answer, RemoteEntryNotFoundError):
        return ModelError(
            f"The hub's {name} has no config.json, so it is no model by itself. If it is an adapter, name its base "
            "model, and the adapter's folder with `adjudge evaluate --adapter DIR`. If it is a GGUF, name the model it "
            "was made from."
        )
    if answer is None and ("connect to" in text or "local_files_only" in text or "offline" in text.lower()):
        return ModelError(
            f"There is no folder {name} here; as a hub id, it is not in the hub's cache, and the hub cannot be reached."
            f" Without the hub, use a bundled model ({', '.join(BUNDLED)}) or name a folder that holds the model."
        )
    if "safetensors" in text and "does not appear to have" in text:
        return ModelError(
            f"{name} has no safetensors weights; other formats are not read, because unpickling runs code. "
            f"{one_line(error)}"
        )
    return ModelError(f"The model {name} cannot be loaded: {hub_reason(error)}")


def lora_targets(model: nn.Module, configured: Sequence[str] | None = None) -> list[str]:
    """Return the names of the modules that get a LoRA adapter.

    peft matches a name with a module's last name, or with the end of its path.
    If `configured` is None these are all linear layers but the output head, found by looking at the modules:

    - Llama, SmolLM2, Mistral, Qwen2, Qwen3, Gemma: q_proj, k_proj, v_proj, o_proj, gate_proj, up_proj, down_proj
    - MPT: Wqkv, out_proj, up_proj, down_proj
    - GPT-2: c_attn, c_proj, c_fc

    Raises ModelError when a configured name matches no linear module, and when the model has no linear module.
    """
    find_head: Callable[[], nn.Module | None] | None = getattr(model, "get_output_embeddings", None)
    head = find_head() if find_head else None
    paths = {path: module for path, module in model.named_modules() if _is_linear(module)}
    head_names = {path.rpartition(".")[2] for path, module in paths.items() if module is head}
    names = list(dict.fromkeys(path.rpartition(".")[2] for path in paths))
    adaptable = [name for name in names if name not in head_names]
    if configured is None:
        if not adaptable:
            raise ModelError(f"{type(model).__name__} has no linear layer to adapt; name modules with lora.targets.")
        return adaptable
    for target in configured:
        if not any(path == target or path.endswith(f".{target}") for path in paths):
            raise ModelError(
                f"lora.targets: no linear layer of {type(model).__name__} is called '{target}'."
                f"{nearest(target, adaptable)}"
            )
    if not configured:
        raise ModelError("lora.targets is empty; name at least one module, or leave it unset for all linear layers.")
    return list(configured)


def _is_linear(module: nn.Module) -> bool:
    from transformers.pytorch_utils import Conv1D  # GPT-2's linear layer with a transposed weight

    return isinstance(module, (nn.Linear, Conv1D))


def _check_causal(name: str, model: Any, info: dict[str, Any], tokenizer: Any) -> None:
    """Raise ModelError unless the model is a whole causal LM whose vocabulary fits the tokenizer."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_MASKED_LM_MAPPING

    kinds = model.config.architectures or ()
    reads_both_ways = type(model.config) in MODEL_FOR_MASKED_LM_MAPPING and not model.config.is_decoder
    if reads_both_ways or (kinds and all("MaskedLM" in kind for kind in kinds)):
        raise ModelError(
            f"{name} is an encoder ({', '.join(kinds) or model.config.model_type}), not a causal language model. "
            "It can serve as encoder.model (--encoder)."
        )
    if getattr(model.config.get_text_config(), "num_attention_heads", None) is None:
        raise ModelError(
            f"{name} ({type(model).__name__}) has no attention: it keeps a recurrent state, which batches of prompts "
            "cannot share. Use a transformer, such as Llama, Mistral, Qwen, Gemma or GPT-2."
        )
    missing = sorted(info.get("missing_keys") or ())
    if missing:
        raise ModelError(
            f"{name} is not a complete causal language model: its weights lack {len(missing)} parameters of "
            f"{type(model).__name__} ({', '.join(missing[:3])}{', …' if len(missing) > 3 else ''})."
        )
    _check_vocabulary(name, model, tokenizer)


def _check_vocabulary(name: str, model: Any, tokenizer: Any) -> None:
    """Raise ModelError when a prompt may have a token without an embedding.

    A special token that neither the tokenizer nor its chat template writes may lack one, since text from data never
    becomes one (`adjudge.models.plain_text`): Gemma 3's models of text alone have none for an image.
    """
    template = str(tokenizer.chat_template or "")
    unwritten = {number for text, number in control_tokens(tokenizer).items() if text not in template}
    unwritten -= {tokenizer.pad_token_id, tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.unk_token_id}
    embeddings = model.get_input_embeddings().num_embeddings
    if any(number >= embeddings and number not in unwritten for number in tokenizer.get_vocab().values()):
        raise ModelError(
            f"The tokenizer of {name} has {len(tokenizer)} tokens, its model only {embeddings}: they do not belong "
            "together."
        )
