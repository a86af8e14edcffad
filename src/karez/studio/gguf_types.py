"""Which type each tensor of a quantised GGUF file gets, as llama.cpp mixes them. Pure.

Its rules for single families of models, and those of its types of two bits, are left out.
"""

import re
from collections.abc import Mapping

MIXTURES: Mapping[str, tuple[str, str]] = {
    "q8_0": ("Q8_0", "Q8_0"),
    "q6_k": ("Q6_K", "Q6_K"),
    "q5_k_m": ("Q5_K", "Q6_K"),
    "q4_k_m": ("Q4_K", "Q6_K"),
    "q4_0": ("Q4_0", "Q4_0"),
    "q3_k_s": ("Q3_K", "Q3_K"),
    "q2_k_s": ("Q2_K", "Q2_K"),
}
"""Name -> type of most matrices, and of those that suffer most: the values of attention, and the
second matrix of a block, in an eighth of the layers at each end and in each third one between."""
FILE_TYPES: Mapping[str, str] = {
    "q8_0": "MOSTLY_Q8_0",
    "q6_k": "MOSTLY_Q6_K",
    "q5_k_m": "MOSTLY_Q5_K_M",
    "q4_k_m": "MOSTLY_Q4_K_M",
    "q4_0": "MOSTLY_Q4_0",
    "q3_k_s": "MOSTLY_Q3_K_S",
    "q2_k_s": "MOSTLY_Q2_K_S",
}
"""Name -> gguf's LlamaFileType."""
SUPER_BLOCK, BLOCK = 256, 32
"""Values that a block of the types with K and of the others has."""
_INSTEAD: Mapping[str, str] = {
    "Q2_K": "Q4_0",
    "Q3_K": "Q4_0",
    "Q4_K": "Q5_0",
    "Q5_K": "Q5_1",
    "Q6_K": "Q8_0",
}
"""Type -> what llama.cpp takes for rows that its blocks do not divide."""
_LAYER = re.compile(r"blk\.(\d+)\.(attn_v|ffn_down\w*)\.weight")
_KEPT = re.compile(
    r"ffn_gate_inp|altup|laurel|per_layer_model_proj|ssm_conv1d|shortconv|time_mix_"
    r"|position_embd|token_types|attn_rel_b"
)
"""Small matrices that llama.cpp keeps as they are, among them routers of experts."""


def tensor_type(name: str, mixture: str, *, width: int, layers: int, is_tied: bool) -> str:
    """The type of a matrix; empty: it is kept as it is.

    Args:
        name: As GGUF has it.
        mixture: A name of MIXTURES.
        width: Values of a row.
        layers: How many the model has.
        is_tied: Whether the embedding is the output as well.
    """
    if not name.endswith(".weight") or _KEPT.search(name) or "_norm" in name:
        return ""
    most, better = MIXTURES[mixture]
    found = _LAYER.match(name)
    wanted = most
    if name == "output.weight" or (is_tied and name == "token_embd.weight"):
        wanted = "Q6_K" if most.endswith("_K") or most == "Q4_0" else most
    elif name.endswith("attn_qkv.weight") and most == "Q4_K":
        wanted = "Q5_K"
    elif found and _needs_more(int(found[1]), layers):
        wanted = better
    if width % (SUPER_BLOCK if wanted.endswith("_K") else BLOCK) == 0:
        return wanted
    other = _INSTEAD.get(wanted, "")
    return other if other and width % BLOCK == 0 else ""


def _needs_more(layer: int, layers: int) -> bool:
    """As `use_more_bits` of llama.cpp's llama-quant.cpp."""
    eighth = layers // 8
    return layer < eighth or layer >= 7 * layers // 8 or (layer - eighth) % 3 == 2
