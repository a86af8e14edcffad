"""Environments: the Python packages of a job, beside those that its node has. Pure."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from karez.core.artifacts import FileEntry

REQUIREMENTS: Final = "requirements.txt"
"""File of an environment that lists its packages, in pip's format."""
WHEELS: Final = "wheels"
"""Folder of an environment with the packages themselves, for nodes without an index."""
MAKE_S: Final = 1800.0
"""Seconds that a node may take to make an environment."""
_OTHER_LOCKS: Final = {
    "uv.lock": "uv export --format requirements-txt -o requirements.txt",
    "pylock.toml": "uv export --format requirements-txt -o requirements.txt",
    "poetry.lock": "poetry export -f requirements.txt -o requirements.txt",
    "Pipfile.lock": "pipenv requirements --hash > requirements.txt",
    "pdm.lock": "pdm export -f requirements -o requirements.txt",
    "pyproject.toml": "pip-compile --generate-hashes pyproject.toml",
    "environment.yml": "pip list --format freeze > requirements.txt",
    "conda-lock.yml": "pip list --format freeze > requirements.txt",
}
"""File of another tool -> the command that makes requirements of it."""
_REFUSED: Final = {
    "-r": "put all requirements into one file",
    "-c": "put all requirements into one file",
    "-e": "build a wheel of it with `pip wheel`, and give its folder as --wheels",
    "-i": "set the index on the nodes, in pip's configuration",
    "-f": "give the folder of wheels as --wheels",
}
_LONG: Final = {
    "--requirement": "-r",
    "--constraint": "-c",
    "--editable": "-e",
    "--index-url": "-i",
    "--extra-index-url": "-i",
    "--trusted-host": "-i",
    "--no-index": "-f",
    "--find-links": "-f",
}
_PACKAGE: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*\s*(?:\[[^\]]*\])?\s*(?:[<>=!~;@].*)?")
_HASH: Final = "--hash="


@dataclass(frozen=True, slots=True, kw_only=True)
class PythonEnvironment:
    """An environment as a node makes it."""

    artifact: str
    name: str
    files: tuple[FileEntry, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Requirements:
    """What a file of requirements says."""

    packages: tuple[str, ...]
    """Each requirement, without its hashes."""
    is_locked: bool
    """Whether every package has a hash, so that each node installs the same bytes."""


def parse_requirements(name: str, text: str) -> Requirements:
    """Read a file of requirements.

    Args:
        name: Name of the file.
        text: Its content.

    Raises:
        ValueError: It is of another tool, or a line means something on this machine only. The
            message has the line and the way.
    """
    if name in _OTHER_LOCKS:
        raise ValueError(f"{name} is not pip's; make requirements of it: {_OTHER_LOCKS[name]}")
    packages, hashed = [], 0
    for number, line in _lines(text):
        try:
            packages.append(_package(line.split(_HASH)[0].strip()))
        except ValueError as error:
            raise ValueError(f"{name} line {number}: {error}") from None
        hashed += _HASH in line
    if not packages:
        raise ValueError(f"{name} lists no packages")
    if hashed and hashed < len(packages):
        raise ValueError(f"{name}: {len(packages) - hashed} of {len(packages)} have no hash")
    return Requirements(packages=tuple(packages), is_locked=hashed > 0)


def _lines(text: str) -> Iterator[tuple[int, str]]:
    """(number of its first line, requirement), comments left out and continued lines joined."""
    begun, whole = 0, ""
    for number, line in enumerate(text.splitlines(), 1):
        plain = re.sub(r"(^|\s)#.*$", "", line).strip()
        begun = begun or number
        if plain.endswith("\\"):
            whole += plain.removesuffix("\\") + " "
            continue
        if whole + plain:
            yield begun, (whole + plain).strip()
        begun, whole = 0, ""
    if whole.strip():
        yield begun, whole.strip()


def _package(requirement: str) -> str:
    option = re.split(r"[\s=]", requirement, maxsplit=1)[0]
    short = _LONG.get(option, option[:2] if option.startswith("-") else "")
    if short in _REFUSED:
        raise ValueError(f"{option} is not for a node: {_REFUSED[short]}")
    if option.startswith("-"):
        raise ValueError(f"{option} is not understood; only packages and their hashes are")
    if re.search(r"^[.~]?/|^file:|@\s*file:", requirement):
        raise ValueError(f"{requirement} is a file of this machine: {_REFUSED['-e']}")
    if not _PACKAGE.fullmatch(requirement) and "://" not in requirement:
        raise ValueError(f"{requirement!r} is no requirement such as numpy==2.3.5")
    return requirement
