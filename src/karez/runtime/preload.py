"""Imports what ranks need, once per node in its fork server, before they fork. Starts no thread."""

import importlib
import importlib.util

WARM = (
    "torch",
    "torch.distributed",
    "torch._dynamo",  # the first optimizer imports it: 1 s
    "numpy",
    "safetensors.torch",
    "transformers",
    "transformers.models.auto.modeling_auto",
    "transformers.models.llama.modeling_llama",
    "transformers.generation.utils",
    "peft",
    "karez.runtime.session",
)

for _name in WARM:
    if importlib.util.find_spec(_name.partition(".")[0]) is not None:
        importlib.import_module(_name)
