"""Reads which torch a project requires, from the text of its requirement files."""

import re

from packaging.specifiers import InvalidSpecifier, SpecifierSet
from packaging.version import InvalidVersion, Version

_TORCH = re.compile(
    r"""(?im)(?:^|["'\s,:\[(])(?:py)?torch\s*(?:\[[^\]]*\])?\s*\(?\s*((?:[=<>!~]=?=?\s*\d[\w.*]*\s*,?\s*)+)"""
)
_POETRY = re.compile(r"""(?m)^torch\s*=\s*(?:\{[^}\n]*version\s*=\s*)?["']([^"']+)["']""")


def torch_wanted(text: str) -> str:
    """The specifier of torch in requirements, pyproject.toml, setup.py or a conda environment.

    Empty if the text holds none that can be read.
    """
    plain = re.sub(r"(?m)(^|\s)#.*$", "", text)
    poetry = _POETRY.search(plain)
    match = poetry or _TORCH.search(plain)
    if match is None:
        return ""
    parts = match[1].split(",")
    try:
        return str(SpecifierSet(",".join(_plainly(part.strip()) for part in parts if part.strip())))
    except (InvalidSpecifier, InvalidVersion):
        return ""


def _plainly(part: str) -> str:
    """A specifier in pip's form: conda's `=2.7` is any 2.7, Poetry's `^2.1` ends before 3."""
    if part.startswith("^"):
        version = Version(part[1:])
        return f">={version},<{version.major + 1}"
    if part[0].isdigit():
        return f"=={part}"
    conda = re.fullmatch(r"=\s*(\d[\w.]*)", part)
    return f"=={conda[1]}.*" if conda else re.sub(r"^===", "==", part)
