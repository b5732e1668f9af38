"""Make tiny tokenizers of the families that published models have, to test that text is tokenised as a whole."""

from __future__ import annotations

import json
from collections.abc import Callable

from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

TEXTS = [
    "Judge the film: Positive or Negative?\n<Judgement>Negative</Judgement>",
    "<Judgement>Positive</Judgement> negative positive film </Judgement>",
    "A warm, funny surprise. Nobody should pay for this; 3.5 of 5.0, or -1.",
]
SPECIAL = ("<unk>", "<s>", "</s>")
TURNS = ("<|user|>", "<|assistant|>")
CHAT = (
    "{{ bos_token }}{% for m in messages %}{{ '<|' + ('assistant' if m['role'] == 'assistant' else 'user') + '|>\n'"
    " + m['content'] + eos_token + '\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}"
)


def _bpe(pre_tokenizer: pre_tokenizers.PreTokenizer | None, decoder: decoders.Decoder, **options: bool) -> Tokenizer:
    raw = Tokenizer(models.BPE(unk_token="<unk>", **options))
    if pre_tokenizer is not None:
        raw.pre_tokenizer = pre_tokenizer
    raw.decoder = decoder
    return raw


def _trained(raw: Tokenizer, alphabet: list[str] | None = None) -> Tokenizer:
    """Train on `TEXTS`; a model with byte fallback gets the bytes as tokens, which are no added ones."""
    with_bytes = isinstance(raw.model, models.BPE) and raw.model.byte_fallback
    names = [f"<0x{byte:02X}>" for byte in range(256)] if with_bytes else []
    kind = trainers.WordPieceTrainer if isinstance(raw.model, models.WordPiece) else trainers.BpeTrainer
    trainer = kind(
        vocab_size=600, special_tokens=[*SPECIAL, *names], initial_alphabet=alphabet or [], show_progress=False
    )
    raw.train_from_iterator(TEXTS, trainer)
    tree = json.loads(raw.to_str())
    tree["added_tokens"] = [token for token in tree["added_tokens"] if token["content"] in SPECIAL]
    return Tokenizer.from_str(json.dumps(tree))


def byte_level() -> Tokenizer:
    """GPT-2, Llama-3, Qwen: bytes, split by a pattern."""
    raw = _bpe(pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel())
    return _trained(raw, pre_tokenizers.ByteLevel.alphabet())


def byte_level_with_a_space() -> Tokenizer:
    """RoBERTa-like: a space is put before every text."""
    raw = _bpe(pre_tokenizers.ByteLevel(add_prefix_space=True), decoders.ByteLevel())
    return _trained(raw, pre_tokenizers.ByteLevel.alphabet())


def byte_level_merging_lines() -> Tokenizer:
    """Bytes without a pattern: any characters may become one token, across every boundary of a prompt."""
    raw = _bpe(pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False), decoders.ByteLevel())
    return _trained(raw, pre_tokenizers.ByteLevel.alphabet())


def metaspace(scheme: str) -> Callable[[], Tokenizer]:
    """Return a maker of SentencePiece-like BPE with ``▁`` before the first text, every text, or none (not legacy)."""

    def make() -> Tokenizer:
        raw = _bpe(
            pre_tokenizers.Metaspace(prepend_scheme=scheme, split=False),
            decoders.Metaspace(prepend_scheme=scheme),
            byte_fallback=True,
        )
        return _trained(raw)

    return make


def legacy_sentencepiece() -> Tokenizer:
    """Llama-2 and Mistral as first published: the normaliser puts ``▁`` before every text."""
    raw = _bpe(None, decoders.Metaspace(), byte_fallback=True, fuse_unk=True)
    raw.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    return _trained(raw)


def unigram() -> Tokenizer:
    """T5-like: the likeliest pieces of each word, with compatibility characters made plain."""
    raw = Tokenizer(models.Unigram())
    raw.normalizer = normalizers.NFKC()
    raw.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    raw.decoder = decoders.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=120, special_tokens=list(SPECIAL), unk_token="<unk>", show_progress=False
    )
    raw.train_from_iterator(TEXTS, trainer)
    return raw


def word_piece() -> Tokenizer:
    """BERT-like: lower case, split at white space and punctuation."""
    raw = Tokenizer(models.WordPiece(unk_token="<unk>"))
    raw.normalizer = normalizers.BertNormalizer(lowercase=True)
    raw.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    raw.decoder = decoders.WordPiece()
    return _trained(raw)


FAMILIES: dict[str, Callable[[], Tokenizer]] = {
    "byte level": byte_level,
    "byte level, a space first": byte_level_with_a_space,
    "byte level, no pattern": byte_level_merging_lines,
    "metaspace first": metaspace("first"),
    "metaspace always": metaspace("always"),
    "metaspace never": metaspace("never"),
    "legacy SentencePiece": legacy_sentencepiece,
    "unigram": unigram,
    "word piece": word_piece,
}


def make_family(name: str, *, chat: bool = True) -> PreTrainedTokenizerFast:
    """Return a tokenizer of a family, with a chat template whose turn marks are special tokens unless `chat` is off."""
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=FAMILIES[name](), unk_token="<unk>", bos_token="<s>", eos_token="</s>", pad_token="</s>"
    )
    if chat:
        tokenizer.add_special_tokens(
            {"additional_special_tokens": [AddedToken(turn, special=True, normalized=False) for turn in TURNS]}
        )
        tokenizer.chat_template = CHAT
    return tokenizer
