"""What all files of a repository say together, and one file alone does not."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from karez.ascend.torch_requirement import allows_before

ACCELERATOR_SINCE = (2, 6)
"""First torch with torch.accelerator; code for older ones asks the generated module instead."""
_LOADS_KERNELS = re.compile(
    r"cpp_extension|\bload_inline\b|\bget_plugin\b|ops\.load_library|\.cu[\"']|^\s*(?:import|from) "
    r"(?:triton|cupy|pycuda|amp_C|apex|flash_attn|xformers|mamba_ssm|causal_conv1d)\b",
    re.MULTILINE,
)
SCRIPTED = re.compile(r"jit\.script(?:_if_tracing)?\(\s*(\w+)")


@dataclass(frozen=True, slots=True, kw_only=True)
class RepoFacts:
    """Facts for the rules."""

    is_old_torch: bool = False
    """Whether the code may run with a torch before 2.6."""
    kernels: frozenset[str] = frozenset()
    """Last parts of the names of modules that load kernels for CUDA."""
    scripted: frozenset[str] = frozenset()
    """Names of what is handed to torch.jit.script."""


def facts_of(torch: Sequence[str], texts: Iterable[tuple[str, str]]) -> RepoFacts:
    """Gather facts from all requirements of torch, and the paths and texts of all Python files.

    Code that requires no torch may meet any.
    """
    kernels: set[str] = set()
    scripted: set[str] = set()
    for path, text in texts:
        if _LOADS_KERNELS.search(text):
            place = PurePosixPath(path)
            kernels.add(place.parent.name if place.stem == "__init__" else place.stem)
        scripted.update(SCRIPTED.findall(text))
    return RepoFacts(
        is_old_torch=any(allows_before(one, ACCELERATOR_SINCE) for one in torch or [""]),
        kernels=frozenset(kernels - {""}),
        scripted=frozenset(scripted),
    )
