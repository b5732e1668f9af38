"""One file for llama.cpp and Ollama, with a Modelfile that carries the prompt.

Llama, Qwen2 and Qwen3 families with a byte-level BPE tokenizer, which covers SmolLM2, Llama 3, Qwen2.5 and Qwen3.
Others are converted by llama.cpp itself, from the format ``merged``.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Sequence
from contextlib import redirect_stderr
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from adjudge.errors import RunError
from adjudge.models.sources.quiet import quiet
from adjudge.runs.folder import Run
from adjudge.runs.portable import FILE
from adjudge.ship.merged import judging, merged_model, merged_record
from adjudge.ship.modelfile import modelfile
from adjudge.system.files import write_json, write_text
from adjudge.tasks.spec import TaskSpec

DTYPES = ("float16", "bfloat16", "float32", "q8_0")
MODEL = "model.gguf"
ARCHITECTURES = {"llama": "LLAMA", "qwen2": "QWEN2", "qwen3": "QWEN3"}
"""transformers' model type → gguf's architecture."""


def write(run: Run, specs: Sequence[TaskSpec], folder: Path, dtype: str) -> Any:
    """Write model.gguf, a Modelfile and judge.json into `folder`; return the judge of what was written.

    The check reads the file back with transformers, which restores the weights that llama.cpp would compute with.
    Raises RunError for another family or tokenizer.
    """
    from transformers import AutoModelForCausalLM

    model, tokenizer = merged_model(run)
    write_gguf(model, tokenizer, folder / MODEL, dtype)
    write_json(folder / FILE, merged_record(run, specs, "gguf"))
    for spec in specs:
        name = "Modelfile" if len(specs) == 1 else f"Modelfile.{spec.name.replace('/', '-')}"
        write_text(folder / name, modelfile(run.config, spec, tokenizer, MODEL))
    with quiet(), redirect_stderr(io.StringIO()):  # a bar of transformers without a switch of its own
        again = AutoModelForCausalLM.from_pretrained(folder, gguf_file=MODEL, dtype=torch.float32)
    return judging(run.config, again.eval().requires_grad_(False), tokenizer)


def write_gguf(model: Any, tokenizer: Any, path: Path, dtype: str) -> None:
    """Write a model and its tokenizer as one GGUF file.

    Raises RunError for a family or tokenizer that is not known.
    """
    import gguf

    config = model.config
    if config.model_type not in ARCHITECTURES:
        raise RunError(
            f"gguf files are written for {', '.join(ARCHITECTURES)}; this model is {config.model_type}. "
            "Export it as merged, and convert the folder with llama.cpp."
        )
    arch = config.model_type
    writer = gguf.GGUFWriter(path, arch)
    _add_shape(writer, config)
    _add_tokenizer(writer, tokenizer, config)
    kind = {
        "float32": gguf.GGMLQuantizationType.F32,
        "float16": gguf.GGMLQuantizationType.F16,
        "bfloat16": gguf.GGMLQuantizationType.BF16,
        "q8_0": gguf.GGMLQuantizationType.Q8_0,
    }[dtype]
    writer.add_file_type(
        {
            "float32": gguf.LlamaFileType.ALL_F32,
            "float16": gguf.LlamaFileType.MOSTLY_F16,
            "bfloat16": gguf.LlamaFileType.MOSTLY_BF16,
            "q8_0": gguf.LlamaFileType.MOSTLY_Q8_0,
        }[dtype]
    )
    for name, weight in _tensors(model, arch):
        data = weight.float().numpy()
        wanted = kind if data.ndim == 2 and data.shape[-1] % 32 == 0 else gguf.GGMLQuantizationType.F32
        writer.add_tensor(name, gguf.quants.quantize(data, wanted), raw_dtype=wanted)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _add_shape(writer: Any, config: Any) -> None:
    rope: dict[str, Any] = getattr(config, "rope_parameters", None) or {}
    if rope.get("rope_type", "default") != "default":
        raise RunError(
            f"the model's positions are scaled ({rope['rope_type']}), which this writer does not know. "
            "Export it as merged, and convert the folder with llama.cpp."
        )
    heads = config.num_attention_heads
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // heads
    writer.add_name((getattr(config, "name_or_path", "") and Path(config.name_or_path).name) or config.model_type)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_key_length(head_dim)
    writer.add_value_length(head_dim)
    writer.add_rope_dimension_count(head_dim)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(float(rope.get("rope_theta", 0) or getattr(config, "rope_theta", 10000.0)))
    writer.add_vocab_size(config.vocab_size)


def _add_tokenizer(writer: Any, tokenizer: Any, config: Any) -> None:
    import gguf

    tree = json.loads(tokenizer.backend_tokenizer.to_str())
    if tree["model"]["type"] != "BPE" or tree["model"].get("byte_fallback"):
        raise RunError(
            "gguf files are written for byte-level BPE tokenizers; this one is of another kind. "
            "Export it as merged, and convert the folder with llama.cpp."
        )
    special = {token["id"]: token["special"] for token in tree.get("added_tokens", ())}
    vocabulary = {index: token for token, index in tokenizer.get_vocab().items()}
    tokens, kinds = [], []
    for index in range(config.vocab_size):
        tokens.append(vocabulary.get(index, f"[PAD{index}]"))
        if index not in vocabulary:
            kinds.append(gguf.TokenType.UNUSED)
        elif index in special:
            kinds.append(gguf.TokenType.CONTROL if special[index] else gguf.TokenType.USER_DEFINED)
        else:
            kinds.append(gguf.TokenType.NORMAL)
    merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in tree["model"]["merges"]]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pretokenizer_of(tree))
    writer.add_token_list(tokens)
    writer.add_token_types(kinds)
    writer.add_token_merges(merges)
    for name, add in (("bos", "bos"), ("eos", "eos"), ("pad", "pad")):
        if (token := getattr(tokenizer, f"{name}_token_id")) is not None:
            getattr(writer, f"add_{add}_token_id")(token)
    writer.add_add_bos_token(False)  # the prompt has whatever the template writes
    if tokenizer.chat_template:
        writer.add_chat_template(tokenizer.chat_template)


def pretokenizer_of(tree: dict[str, Any]) -> str:
    """Return llama.cpp's name of how a tokenizer cuts a text before BPE, from its tokenizer.json.

    Raises RunError for a way that is not known: a wrong one would tokenise other texts than the model has seen.
    """
    steps = tree.get("pre_tokenizer") or {}
    steps = steps.get("pretokenizers", [steps])
    patterns = [step["pattern"].get("Regex", "") for step in steps if step.get("type") == "Split"]
    if any(step.get("type") == "Digits" and step.get("individual_digits") for step in steps):
        return "smollm"
    if any(r"\p{N}{1,3}" in pattern for pattern in patterns):
        return "llama-bpe"
    if any(r"\p{N}" in pattern for pattern in patterns):
        return "qwen2"
    if [step.get("type") for step in steps] == ["ByteLevel"] and steps[0].get("use_regex", True):
        return "gpt-2"
    raise RunError(
        "the tokenizer cuts texts in a way that llama.cpp may have no name for. "
        "Export the judge as merged, and convert the folder with llama.cpp."
    )


def _tensors(model: Any, arch: str) -> Iterator[tuple[str, Tensor]]:
    """Yield gguf's names with the weights; query and key rows as llama.cpp's rotary positions want them."""
    import gguf

    config = model.config
    names = gguf.get_tensor_name_map(getattr(gguf.MODEL_ARCH, ARCHITECTURES[arch]), config.num_hidden_layers)
    tied = config.tie_word_embeddings
    for name, weight in model.state_dict().items():
        if tied and name == "lm_head.weight":
            continue
        mapped = names.get_name(name, try_suffixes=(".weight", ".bias"))
        if mapped is None:
            raise RunError(f"gguf has no name for the weight {name} of a {arch} model.")
        plain = weight.detach().cpu()
        if arch == "llama" and name.endswith(("q_proj.weight", "k_proj.weight")):
            heads = config.num_attention_heads if "q_proj" in name else config.num_key_value_heads
            yield mapped, _interleaved(plain, heads)
        else:
            yield mapped, plain


def _interleaved(weight: Tensor, heads: int) -> Tensor:
    """Return the rows of each head with the halves of a rotated pair next to each other."""
    rows, columns = weight.shape
    return weight.reshape(heads, 2, rows // heads // 2, columns).swapaxes(1, 2).reshape(rows, columns).contiguous()
