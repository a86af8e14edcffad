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


def allows_before(specifier: str, minor: tuple[int, int]) -> bool:
    """Whether a requirement allows a torch before a minor version. One that is not known does."""
    known = [(1, number) for number in range(14)] + [(2, number) for number in range(minor[1])]
    wanted = SpecifierSet(specifier)
    older = (f"{major}.{number}.{patch}" for major, number in known for patch in range(3))
    return any(version in wanted for version in older)


def _plainly(part: str) -> str:
    """A specifier in pip's form: conda's `=2.7` is any 2.7, Poetry's `^2.1` ends before 3."""
    if part.startswith("^"):
        version = Version(part[1:])
        return f">={version},<{version.major + 1}"
    if part[0].isdigit():
        return f"=={part}"
    conda = re.fullmatch(r"=\s*(\d[\w.]*)", part)
    return f"=={conda[1]}.*" if conda else re.sub(r"^===", "==", part)
