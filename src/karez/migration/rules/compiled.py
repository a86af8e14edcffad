"""Rules for compiled graphs, raw pointers, sparse tensors and the loading of models."""

import ast

from typing_extensions import override

from karez.migration.findings import Finding, Kind
from karez.migration.rules.rule import AnyRule, Rule
from karez.migration.rules.site import Site


class TorchCompile(Rule[ast.AST]):
    """torch.compile generates code for one vendor's chips, which the backend determines."""

    nodes = (ast.Attribute, ast.Name)
    kind = Kind.ASSISTED
    question = "Make torch.compile optional; on NPUs add torchair or inductor-npu as a second step."
    hours = 0.25

    @override
    def find(self, node: ast.AST, site: Site) -> Finding | None:
        if site.source.dotted(node) != "torch.compile":
            return None
        site.claim_all(node)
        return self.finding(node, site, api="torch.compile")


class TorchScript(Rule[ast.AST]):
    """TorchScript runs, but transfer_to_npu disables it, and the fusers are for CUDA."""

    nodes = (ast.Attribute, ast.Name)
    kind = Kind.KEEP

    @override
    def find(self, node: ast.AST, site: Site) -> Finding | None:
        name = site.source.dotted(node)
        if name not in ("torch.jit.script", "torch.jit.trace", "torch.jit.script_method"):
            return None
        site.claim_all(node)
        return self.finding(node, site, api=name)


class CompilerSettings(Rule[ast.AST]):
    """A setting of torch's compiler for CUDA."""

    nodes = (ast.Attribute,)
    kind = Kind.ASSISTED
    question = "Set this only on CUDA: on NPUs the setting has no effect, or another effect."
    hours = 0.25

    @override
    def find(self, node: ast.AST, site: Site) -> Finding | None:
        name = site.source.dotted(node) or ""
        if not name.startswith(("torch._inductor.config", "torch._dynamo.config")):
            return None
        if isinstance(site.source.parent(node), ast.Attribute):
            return None
        site.claim_all(node)
        return self.finding(node, site)


class DataPointer(Rule[ast.Call]):
    """A raw pointer to memory is taken; the function that gets the pointer must know the device."""

    nodes = (ast.Call,)
    kind = Kind.ASSISTED
    question = "Which function gets the pointer? Replace a CUDA library; a comparison may stay."
    hours = 0.5

    @override
    def find(self, node: ast.Call, site: Site) -> Finding | None:
        if not (isinstance(node.func, ast.Attribute) and node.func.attr == "data_ptr"):
            return None
        around = next(iter(site.source.above(node)), None)
        is_compared = isinstance(around, (ast.Compare, ast.Set, ast.Dict, ast.Subscript))
        site.claim(node)
        return self.finding(node, site, kind=Kind.KEEP if is_compared else None)


class SparseTensors(Rule[ast.AST]):
    """Sparse tensors have few kernels on NPUs."""

    nodes = (ast.Attribute, ast.Name)
    kind = Kind.ASSISTED
    question = "Are dense tensors, or the CPU, enough?"
    hours = 1.0

    @override
    def find(self, node: ast.AST, site: Site) -> Finding | None:
        name = site.source.dotted(node) or ""
        if not name.startswith(("torch.sparse.", "torch.sparse_coo_tensor", "torch.sparse_csr")):
            return None
        if isinstance(site.source.parent(node), ast.Attribute):
            return None
        site.claim_all(node)
        return self.finding(node, site, api=name)


class AttentionChoice(Rule[ast.keyword]):
    """A Hugging Face model is configured with attention kernels for CUDA."""

    nodes = (ast.keyword,)
    kind = Kind.ASSISTED
    question = 'attn_implementation="sdpa" runs on every device.'
    hours = 0.1

    @override
    def find(self, node: ast.keyword, site: Site) -> Finding | None:
        value = node.value
        is_flash = isinstance(value, ast.Constant) and "flash" in str(value.value)
        is_named = node.arg in ("attn_implementation", "_attn_implementation")
        is_old = node.arg in ("use_flash_attention_2", "use_flash_attn")
        if not ((is_named and is_flash) or is_old):
            return None
        site.claim(value)
        return self.finding(node, site)


class QuantisedLoading(Rule[ast.keyword]):
    """A model is loaded with 8-bit or 4-bit weights by bitsandbytes."""

    nodes = (ast.keyword,)
    kind = Kind.ASSISTED
    question = "Load in bfloat16, if memory allows; bitsandbytes documents no kernels for NPUs."
    hours = 0.5

    @override
    def find(self, node: ast.keyword, site: Site) -> Finding | None:
        is_named = node.arg in ("load_in_8bit", "load_in_4bit")
        is_off = isinstance(node.value, ast.Constant) and not node.value.value
        return self.finding(node, site) if is_named and not is_off else None


RULES: tuple[AnyRule, ...] = (
    TorchCompile,
    TorchScript,
    CompilerSettings,
    DataPointer,
    SparseTensors,
    AttentionChoice,
    QuantisedLoading,
)
