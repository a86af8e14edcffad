"""Rules for options of Hugging Face's Trainer that only NVIDIA's devices have."""

import ast
import re

from typing_extensions import override

from karez.migration.findings import Finding, Kind
from karez.migration.rules.expressions import string
from karez.migration.rules.rule import AnyRule, Rule
from karez.migration.rules.site import Site

_CUDA_OPTIMIZER = re.compile(r"paged_\w+|\w+_(bnb_)?8bit|\w+_4bit|\w*apex_fused")


class CudaOptimizer(Rule[ast.keyword]):
    """The optimizer is from bitsandbytes or apex, whose kernels are made for CUDA."""

    nodes = (ast.keyword,)
    kind = Kind.ASSISTED
    question = "adamw_torch has no 8-bit state: does the model fit with it? torchao has more."
    hours = 0.25

    @override
    def find(self, node: ast.keyword, site: Site) -> Finding | None:
        is_named = _CUDA_OPTIMIZER.fullmatch(string(node.value) or "")
        if node.arg not in ("optim", "optimizer", "optimizer_type") or not is_named:
            return None
        return self.finding(node, site)


class Tf32Option(Rule[ast.keyword]):
    """TF32 is asked for, which transformers refuses on other devices than NVIDIA's."""

    nodes = (ast.keyword,)
    kind = Kind.ASSISTED
    question = "Set it on CUDA only; NPUs have HF32, another format."
    hours = 0.1

    @override
    def find(self, node: ast.keyword, site: Site) -> Finding | None:
        is_on = isinstance(node.value, ast.Constant) and node.value.value is True
        return self.finding(node, site) if node.arg == "tf32" and is_on else None


RULES: tuple[AnyRule, ...] = (CudaOptimizer, Tf32Option)
