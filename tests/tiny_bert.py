"""A BERT of a few kilobytes as a Hugging Face folder, which knows five words."""

from pathlib import Path
from typing import Any

import torch
from transformers import BertConfig, BertTokenizerFast

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "red", "blue", "green", "car", "bus"]


def write_tiny_bert(folder: Path, kind: Any, **more: Any) -> tuple[Any, Any]:
    """Write a model of a class of transformers; returns (tokenizer, model)."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = BertTokenizerFast(vocab={word: number for number, word in enumerate(WORDS)})
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(WORDS),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=64,
        **(more or {"num_labels": 1}),
    )
    model = kind(config).eval()
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return tokenizer, model
