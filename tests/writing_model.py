"""A tiny model that writes short sentences at random, to test what is made of them."""

from __future__ import annotations

from pathlib import Path

import torch
from conftest import make_tokenizer
from transformers import LlamaConfig, LlamaForCausalLM

WORDS, STOP, LINE_END = (" the", " film", " is", " a", " plot", " and"), ".", "\n"


def save_writing_model(folder: Path, *, stops: bool = True) -> Path:
    """Save a Llama that writes a few words, stops (unless without `stops`) and line ends, by chances of its prompt's.

    The first entry of its last hidden state is large and positive, whatever it read: that rules out all other tokens.
    """
    tokenizer = make_tokenizer()
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=512,
        tie_word_embeddings=False,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=2,
    )
    allowed = [
        token
        for text in (*WORDS, LINE_END, *[STOP] * stops)
        for token in tokenizer(text, add_special_tokens=False).input_ids[:1]
    ]
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        model = LlamaForCausalLM(config)
        model.model.embed_tokens.weight[:, 0] = 1.0
        model.lm_head.weight.normal_(0, 0.5)
        model.lm_head.weight[:, 0] = -20.0
        model.lm_head.weight[allowed, 0] = 0.0
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
