"""Language models of a few random numbers, made in a test: a BERT and a Llama, each with a tokenizer of whole words."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import (
    BertConfig,
    BertModel,
    BertTokenizerFast,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
)

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "<s>", "</s>"]


def bert(folder: Path, texts: Iterable[str], positions: int = 128) -> Path:
    """8 dimensions, one layer; positions count from the first token, so padding on the left would move them."""
    words = _words(texts)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.txt").write_text("\n".join([*SPECIAL, *words]))
    BertTokenizerFast(vocab=str(folder / "vocab.txt")).save_pretrained(folder)
    config = BertConfig(
        vocab_size=len(words) + len(SPECIAL),
        hidden_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        max_position_embeddings=positions,
    )
    _save(BertModel, config, folder)
    return folder


def llama(folder: Path, texts: Iterable[str], side: str, pad: str | None) -> Path:
    """8 dimensions, two layers; its tokenizer puts <s> in front and pads on `side`, with `pad` if there is one."""
    words = _words(texts)
    known = Tokenizer(
        models.WordLevel({word: number for number, word in enumerate([*SPECIAL, *words])}, unk_token="[UNK]")
    )
    known.pre_tokenizer = pre_tokenizers.Whitespace()
    known.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", SPECIAL.index("<s>"))]
    )
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=known,
        bos_token="<s>",
        eos_token="</s>",
        unk_token="[UNK]",
        pad_token=pad,
        padding_side=side,
    )
    wrapped.save_pretrained(folder)
    config = LlamaConfig(
        vocab_size=len(words) + len(SPECIAL),
        hidden_size=8,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        intermediate_size=16,
        max_position_embeddings=128,
        pad_token_id=None,
    )
    _save(LlamaForCausalLM, config, folder)  # as published: with the head that writes words
    return folder


def _words(texts: Iterable[str]) -> list[str]:
    return sorted({word for text in texts for word in text.lower().replace(":", " ").split()})


def _save(kind: Any, config: Any, folder: Path) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        model = kind(config)
        for values in model.parameters():  # small standard weights would make all texts nearly alike
            values.data.normal_(std=0.5)
        model.save_pretrained(folder)
