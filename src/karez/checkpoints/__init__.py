"""Checkpoint formats: PyTorch, safetensors and MindSpore, read and written without a framework.

`convert` is the entry. Tensors are bytes with a type and a shape; no model code is run.
"""
