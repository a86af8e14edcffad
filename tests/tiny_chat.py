"""A chat model of a few kilobytes as a Hugging Face folder, and chat rows for it."""

import json
from pathlib import Path

import torch
from peft import LoraConfig, get_peft_model
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

TEMPLATE = (
    "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant: {% endif %}"
)


def write_tiny_chat(folder: Path, *, width: int = 32, layers: int = 2) -> Path:
    """Write a Llama of random weights with a tokenizer of bytes."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = {token: n for n, token in enumerate(["<s>", "</s>", "<pad>", *alphabet])}
    made = Tokenizer(models.BPE(vocab=words, merges=[]))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=made, bos_token="<s>", eos_token="</s>", pad_token="<pad>"
    )
    tokenizer.chat_template = TEMPLATE
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(words),
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=layers,
        num_attention_heads=2,
        max_position_embeddings=256,
        pad_token_id=2,
        eos_token_id=1,
        bos_token_id=0,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def speak_ascii(folder: Path) -> Path:
    """Make a tiny chat say printable characters alone, each because of the one before it.

    So it says the same however its requests are batched, in any precision.
    """
    model = LlamaForCausalLM.from_pretrained(folder)
    words = PreTrainedTokenizerFast.from_pretrained(folder).get_vocab()
    plain = [n for word, n in words.items() if len(word) == 1 and word.isascii()]
    with torch.no_grad():
        for layer in model.model.layers:
            for weights in layer.parameters():
                weights.mul_(0.02)
        head = torch.zeros_like(model.lm_head.weight)
        head[plain] = torch.randn(len(plain), head.shape[1])
        model.lm_head.weight.copy_(head)
    model.save_pretrained(folder)
    return folder


def write_adapter(base: Path, folder: Path) -> Path:
    """Write an adapter of random weights that changes what a model says."""
    torch.manual_seed(1)
    config = LoraConfig(r=4, lora_alpha=256, target_modules="all-linear", init_lora_weights=False)
    get_peft_model(LlamaForCausalLM.from_pretrained(base), config).save_pretrained(folder)
    return folder


def write_rows(folder: Path, count: int = 24) -> Path:
    """Write questions with one-word answers, as train.jsonl and held_out.jsonl."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("train", "held_out"):
        rows = [
            {
                "messages": [
                    {"role": "user", "content": f"what comes after {n % 7}?"},
                    {"role": "assistant", "content": "odd" if n % 2 else "even"},
                ]
            }
            for n in range(count)
        ]
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (folder / f"{name}.jsonl").write_text(text)
    return folder
