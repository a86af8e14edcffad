"""A LoRA adapter of PEFT as a GGUF file, which llama.cpp loads beside the converted base.

Source: llama.cpp's convert_lora_to_gguf.py for the names and the order of rows; an adapter is
accepted only after its answer was compared with PEFT's.
"""

import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gguf
import torch
from safetensors.torch import load_file

from karez.core.errors import BrokenArtifact

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
ROTATED = frozenset({"llama", "mistral"})
"""Types of models whose query and key rows llama.cpp keeps in another order."""
OWN_NAMES: Mapping[str, str] = {"mistral": "llama"}
"""Type of a model -> its architecture in GGUF, where that has another name."""
_TENSOR = re.compile(r"base_model\.model\.(.+)\.lora_([AB])\.weight")
_UNTOLD = ("use_dora", "rank_pattern", "alpha_pattern", "modules_to_save", "layers_pattern")
"""What a GGUF adapter cannot say."""


def is_adapter(folder: Path) -> bool:
    """Whether a folder holds an adapter of PEFT."""
    return (folder / CONFIG).exists()


def write_adapter_gguf(adapter: Path, base: Path, file: Path) -> int:
    """Write an adapter of a base, both as folders; returns how many matrices it adapts.

    Raises:
        BrokenArtifact: The adapter does more than add low-rank matrices to linear layers, or its
            base is of a type that GGUF has no names for.
    """
    told = json.loads((adapter / CONFIG).read_text())
    config = json.loads((base / "config.json").read_text())
    _check(adapter, told)
    rank = int(told["r"])
    alpha = float(told["lora_alpha"]) * (math.sqrt(rank) if told.get("use_rslora") else 1.0)
    kind = str(config.get("model_type", ""))
    names = _names(adapter, kind, int(config["num_hidden_layers"]))
    writer = gguf.GGUFWriter(str(file), OWN_NAMES.get(kind, kind))
    writer.add_type(gguf.GGUFType.ADAPTER)
    writer.add_string(gguf.Keys.Adapter.TYPE, "lora")
    writer.add_float32(gguf.Keys.Adapter.LORA_ALPHA, alpha)
    tensors = load_file(adapter / WEIGHTS)
    for key, tensor in sorted(tensors.items()):
        match = _TENSOR.fullmatch(key)
        name = names.get_name(match[1]) if match else None
        if match is None or name is None:
            raise BrokenArtifact(name=str(adapter), problem=f"GGUF has no name for its {key}")
        rows = tensor.float()
        if match[2] == "B" and kind in ROTATED:
            rows = _rotated(rows, match[1], config)
        writer.add_tensor(f"{name}.weight.lora_{match[2].lower()}", rows.contiguous().numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return len(tensors) // 2


def _check(adapter: Path, told: Mapping[str, Any]) -> None:
    """Refuse what a GGUF adapter cannot say. Raises BrokenArtifact."""
    if told.get("peft_type") != "LORA":
        raise BrokenArtifact(name=str(adapter), problem=f"it is {told.get('peft_type')}, not LORA")
    found = [name for name in _UNTOLD if told.get(name)]
    if told.get("bias", "none") != "none":
        found.append("bias")
    if found:
        problem = f"llama.cpp has no {found[0]} of adapters; merge it into its base instead"
        raise BrokenArtifact(name=str(adapter), problem=problem)


def _names(adapter: Path, kind: str, layers: int) -> Any:
    """GGUF's names for the parts of a type of model. Raises BrokenArtifact."""
    architecture = OWN_NAMES.get(kind, kind)
    known = {name: number for number, name in gguf.MODEL_ARCH_NAMES.items()}
    if architecture not in known:
        raise BrokenArtifact(name=str(adapter), problem=f"GGUF has no architecture {kind!r}")
    return gguf.get_tensor_name_map(known[architecture], layers)


def _rotated(rows: torch.Tensor, path: str, config: Mapping[str, Any]) -> torch.Tensor:
    """The rows of a query or key matrix in llama.cpp's order: halves of a head interleaved."""
    heads = int(config["num_attention_heads"])
    if path.endswith(".k_proj"):
        heads = int(config.get("num_key_value_heads") or heads)
    elif not path.endswith(".q_proj"):
        return rows
    halves = rows.reshape(heads, 2, rows.shape[0] // heads // 2, rows.shape[1])
    return halves.swapaxes(1, 2).reshape(rows.shape)
