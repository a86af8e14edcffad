"""Names of devices: how a device string is recognised, and how the new one is spelled."""

import ast
import re

from karez.migration.findings import Target
from karez.migration.rules.expressions import string
from karez.migration.rules.site import SHIM, Site

DEVICE = re.compile(r"cuda(?::(\d+))?\Z")
_WORDS = re.compile(
    r"(^|_)(dev|device|devices|accelerator|map_location|loc|gpu|placement)s?(_|$|\d)"
)
TYPE_FORMS = ((Target.AGNOSTIC, f"{SHIM}.type"), (Target.NPU, '"npu"'))


_NO_DEVICE = re.compile(
    r"(^|_)(arch|architecture|vendor|backend|impl|implementation|kernel|runtime|toolkit|platform|"
    r"version|variant|wheel|build|brand)s?(_|$)"
)


def says_device(name: str) -> bool:
    """Whether an identifier suggests that its value is a device; gpu_arch, say, does not."""
    words = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower()
    return bool(_WORDS.search(words)) and not _NO_DEVICE.search(words)


def device_name(index: str | None, site: Site) -> str:
    """Return the expression for a device; `index` is the digits after `cuda:`, if any."""
    if site.is_npu:
        return f'"npu:{index}"' if index else '"npu"'
    return f"{site.shim}.name({index})" if index else f"{site.shim}.type"


def compared_name(literal: ast.AST, site: Site) -> str:
    """Return the expression that a device's name is compared with, from a string constant."""
    index = (string(literal) or "").partition(":")[2]
    if site.is_npu:
        return f'"npu:{index}"' if index else '"npu"'
    return f'{site.accelerator()} + ":{index}"' if index else site.accelerator()


def compared_prefix(site: Site) -> str:
    """Return the expression for the prefix `cuda:` of a device's name."""
    return '"npu:"' if site.is_npu else f'{site.accelerator()} + ":"'
