"""A Hugging Face Trainer on made-up tokens, with the leftovers of CUDA that such scripts have."""

import os
import tempfile

import torch
from transformers import GPT2Config, GPT2LMHeadModel, Trainer, TrainingArguments

os.environ["CUDA_LAUNCH_BLOCKING"] = "0"
torch.manual_seed(2)
device = "cuda" if torch.cuda.is_available() else "cpu"
model = GPT2LMHeadModel(
    GPT2Config(
        n_layer=2,
        n_head=2,
        n_embd=32,
        vocab_size=60,
        n_positions=16,
        bos_token_id=0,
        eos_token_id=0,
    )
).to(device)
rows = [{"input_ids": t, "labels": t} for t in torch.randint(1, 60, (32, 12))]
with tempfile.TemporaryDirectory() as folder:
    options = TrainingArguments(
        folder,
        max_steps=5,
        per_device_train_batch_size=4,
        report_to=[],
        save_strategy="no",
        disable_tqdm=True,
        use_cpu=not torch.cuda.is_available(),
        bf16=False,
    )
    Trainer(model=model, args=options, train_dataset=rows).train()
print("peak", torch.cuda.max_memory_allocated() // 2**20 if torch.cuda.is_available() else 0)
