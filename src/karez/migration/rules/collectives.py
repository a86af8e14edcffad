"""Rules for NCCL as a backend of torch.distributed, and for nn.DataParallel."""

import ast
import re

from typing_extensions import override

from karez.migration.findings import Finding, Kind, Target
from karez.migration.rules.expressions import string
from karez.migration.rules.rule import AnyRule, Rule
from karez.migration.rules.site import SHIM, Site
from karez.migration.rules.value_holders import holder_of

_BACKEND_CALLS = frozenset(
    f"torch.distributed.{name}"
    for name in ("init_process_group", "new_group", "new_subgroups", "split_group")
)
_BACKEND_WORDS = re.compile(r"backend|dist|comm|process_group|nccl", re.IGNORECASE)
_FORMS = ((Target.AGNOSTIC, f"{SHIM}.backend"), (Target.NPU, '"hccl"'))


class NcclBackend(Rule[ast.AST]):
    """NCCL is the backend of torch.distributed on CUDA; NPUs have HCCL, CPUs have gloo."""

    nodes = (ast.Constant,)

    @override
    def find(self, node: ast.AST, site: Site) -> Finding | None:
        if string(node) != "nccl" or not self._is_backend(node, site):
            return None
        new = '"hccl"' if site.is_npu else f"{site.shim}.backend"
        return self.finding(
            node, site, [site.swap(node, new)], needs=site.needs("backend"), forms=_FORMS
        )

    def _is_backend(self, node: ast.AST, site: Site) -> bool:
        parent, value = site.source.parent(node), node
        while isinstance(parent, ast.IfExp) and value is not parent.test:
            value, parent = parent, site.source.parent(parent)
        if isinstance(parent, ast.Call) and value in parent.args:
            name = site.source.dotted(parent.func) or site.source.code(parent.func)
            if name in _BACKEND_CALLS or name.rpartition(".")[2] in (
                "init_process_group",
                "init_distributed",
                "new_group",
            ):
                return True
        holder = holder_of(node, site)
        return holder is not None and bool(_BACKEND_WORDS.search(holder))


class NcclComparison(Rule[ast.Compare]):
    """The backend is compared with NCCL; on a CPU the result must stay false."""

    nodes = (ast.Compare,)

    @override
    def find(self, node: ast.Compare, site: Site) -> Finding | None:
        literals = [n for n in ast.walk(node) if string(n) == "nccl"]
        if not literals:
            return None
        site.claim(*literals)
        if {string(n) for n in ast.walk(node)} & {"hccl", "xccl", "ccl"}:
            return self.finding(node, site, kind=Kind.KEEP)
        new = '"hccl"' if site.is_npu else f"{site.shim}.accelerator_backend"
        return self.finding(
            node,
            site,
            [site.swap(literal, new) for literal in literals],
            needs=site.needs("accelerator_backend"),
        )


class NcclChoice(Rule[ast.AST]):
    """A list of backends contains NCCL."""

    nodes = (ast.Constant,)

    @override
    def find(self, node: ast.AST, site: Site) -> Finding | None:
        around = site.source.parent(node)
        if string(node) != "nccl" or not isinstance(around, (ast.List, ast.Tuple, ast.Set)):
            return None
        backends = {string(item) for item in around.elts}
        if backends & {"hccl", "xccl"}:
            return self.finding(node, site, kind=Kind.KEEP)
        if not backends & {"gloo", "mpi", "ucc"}:
            return None
        new = '"hccl"' if site.is_npu else f"{site.shim}.accelerator_backend"
        return self.finding(
            node, site, [site.swap(node, new)], needs=site.needs("accelerator_backend")
        )


class NcclMixed(Rule[ast.AST]):
    """A string names a backend for each device, as in "cuda:nccl,cpu:gloo"."""

    nodes = (ast.Constant,)

    @override
    def find(self, node: ast.AST, site: Site) -> Finding | None:
        text = string(node) or ""
        if "cuda:nccl" not in text or node in site.source.docs:
            return None
        if site.is_npu:
            new = repr(text.replace("cuda:nccl", "npu:hccl"))
            return self.finding(node, site, [site.swap(node, new)])
        before, _, after = text.partition("cuda:nccl")
        parts = [
            *([repr(before)] if before else []),
            f'{site.shim}.type + ":" + {site.shim}.backend',
            *([repr(after)] if after else []),
        ]
        new = " + ".join(parts)
        parent = site.source.parent(node)
        plain = isinstance(parent, (ast.keyword, ast.Assign, ast.Call))
        return self.finding(
            node,
            site,
            [site.swap(node, new if plain else f"({new})")],
            needs=site.needs("type", "backend"),
        )


class NcclString(Rule[ast.AST]):
    """A string "nccl" whose meaning the code around it does not show."""

    nodes = (ast.Constant,)
    kind = Kind.ASSISTED
    question = "Does the string name the backend of torch.distributed?"
    hours = 0.1

    @override
    def find(self, node: ast.AST, site: Site) -> Finding | None:
        if string(node) != "nccl":
            return None
        new = '"hccl"' if site.is_npu else f"{site.shim}.backend"
        return self.finding(node, site, [site.swap(node, new)], needs=site.needs("backend"))


class NcclAvailable(Rule[ast.AST]):
    """torch.distributed is checked for NCCL."""

    nodes = (ast.Attribute,)

    @override
    def find(self, node: ast.AST, site: Site) -> Finding | None:
        name = site.source.dotted(node) or ""
        if name not in (
            "torch.distributed.is_nccl_available",
            "torch.distributed.distributed_c10d.is_nccl_available",
        ):
            return None
        site.claim_all(node)
        if site.is_npu:
            new = "torch.distributed.is_hccl_available"
            return self.finding(node, site, [site.swap(node, new)], needs=site.needs())
        new = f"{site.shim}.is_backend_available"
        return self.finding(
            node, site, [site.swap(node, new)], needs=site.needs("is_backend_available")
        )


class NcclGroup(Rule[ast.AST]):
    """The class of NCCL's process group is used, for a group or for options."""

    nodes = (ast.Attribute, ast.Name)
    kind = Kind.ASSISTED
    question = "HCCL has ProcessGroupHCCL.Options; which options are set, and are they needed?"
    hours = 0.5

    @override
    def find(self, node: ast.AST, site: Site) -> Finding | None:
        name = site.source.dotted(node) or ""
        if "ProcessGroupNCCL" not in name.split("."):
            return None
        site.claim_all(node)
        return self.finding(node, site)


class DataParallel(Rule[ast.AST]):
    """nn.DataParallel copies the model in one process for each batch; NPUs do not support it."""

    nodes = (ast.Attribute, ast.Name)
    kind = Kind.ASSISTED
    question = "Use DistributedDataParallel, one process for each device (torchrun), or one device."
    hours = 1.0

    @override
    def find(self, node: ast.AST, site: Site) -> Finding | None:
        name = site.source.dotted(node)
        if name not in (
            "torch.nn.DataParallel",
            "torch.nn.parallel.DataParallel",
            "torch.nn.parallel.data_parallel",
            "torch.nn.parallel.replicate",
            "torch.nn.parallel.parallel_apply",
        ):
            return None
        site.claim_all(node)
        parent = site.source.parent(node)
        is_check = isinstance(parent, (ast.Tuple, ast.Compare)) or (
            isinstance(parent, ast.Call) and node in parent.args
        )
        kind = Kind.KEEP if is_check else None
        return self.finding(node, site, kind=kind, api=name)


RULES: tuple[AnyRule, ...] = (
    NcclComparison,
    NcclMixed,
    NcclChoice,
    NcclBackend,
    NcclAvailable,
    NcclGroup,
    DataParallel,
    NcclString,
)
