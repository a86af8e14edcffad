"""Checkpoints between PyTorch, safetensors and MindSpore, with neither framework imported."""
