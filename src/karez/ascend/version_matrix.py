"""Which versions of driver, CANN, torch, torch_npu and engines go together, by published tables.

The tables are in data/ascend_versions.json, each row with its source. What they do not name is
unknown, not wrong.
"""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from importlib.resources import files
from pathlib import Path
from typing import Any

from packaging.specifiers import InvalidSpecifier, SpecifierSet
from packaging.version import InvalidVersion, Version

from karez.core.errors import BadRequest

PARTS = ("python", "driver", "cann", "torch", "torch_npu")
ENGINES = ("vllm-ascend", "mindie", "mindspore")
COST = {
    "python": 5,
    "driver": 8,
    "cann": 5,
    "torch": 5,
    "torch_npu": 1,
    **dict.fromkeys(ENGINES, 2),
}
"""What a change takes, relative to another torch_npu: a driver wants root and a restart."""
HOME = Path("/usr/local/Ascend")
_TORCH = re.compile(
    r"""(?im)(?:^|["'\s,:\[(])(?:py)?torch\s*(?:\[[^\]]*\])?\s*\(?\s*((?:[=<>!~]=?=?\s*\d[\w.*]*\s*,?\s*)+)"""
)
_POETRY = re.compile(r"""(?m)^torch\s*=\s*(?:\{[^}\n]*version\s*=\s*)?["']([^"']+)["']""")
_PIECE = re.compile(
    r"(?ai)(==|~=|!=|<=|>=|<|>)?\s*v?"
    r"(\d+(?:\.\d+)*(?:\.?(?:a|b|rc|post|dev|beta|spc)\d+(?:\.\d+)*)*(?:\+[\w.]+)?)(\.\*)?"
)
MAX_TEXT = 40
_TOOLKIT = ("ascend-toolkit/latest", "cann", "cann/latest", "latest")


@cache
def _tables() -> Mapping[str, Any]:
    text = files("karez.ascend").joinpath("data", "ascend_versions.json").read_text()
    loaded: dict[str, Any] = json.loads(text)
    return loaded


@dataclass(frozen=True, slots=True, kw_only=True)
class Stack:
    """Versions that are published as going together."""

    cann: str
    torch: str = ""
    torch_npu: str = ""
    drivers: tuple[str, ...] = ()
    """Any of them; none: no table names one for this CANN."""
    pythons: tuple[str, ...] = ()
    engine: str = ""
    engine_version: str = ""
    sources: tuple[str, ...] = ()

    def allows(self, part: str) -> tuple[str, ...]:
        """The versions of a part in it; none: it says nothing of that part."""
        if part == "driver":
            return self.drivers
        if part == "python":
            return self.pythons
        one = self.engine_version if part == self.engine else getattr(self, part, "")
        return (one,) if one else ()

    @property
    def is_released(self) -> bool:
        """Whether all of it is, and not a candidate or a development version."""
        return not any(
            order(version).is_prerelease or order(version).local
            for version in (self.torch_npu, self.engine_version if self.engine != "mindie" else "")
            if version
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Match:
    """How two installed versions go together."""

    first: str
    second: str
    fine: bool | None
    """None: no table names them."""
    why: str


@cache
def order(version: str) -> Version:
    """A version that can be compared; CANN's own forms, such as 6.3.RC3.1, too."""
    plain = re.sub(r"(?i)\.beta\d+$", "", version.strip().lstrip("v"))
    plain = re.sub(r"(?i)\.?rc(\d+)\.(?:spc)?(\d+)", r"rc\1.post\2", plain)
    plain = re.sub(r"(?i)\.spc(\d+)$", r".post\1", plain)
    try:
        return Version(plain)
    except InvalidVersion:
        found = re.match(r"\d+(?:\.\d+)*", plain)
        return Version(found[0] if found else "0")


@cache
def stacks() -> tuple[Stack, ...]:
    """All that is published, the newest first, releases before candidates."""
    ordered = sorted(
        (*_plain(), *_engines()),
        key=lambda one: (
            one.is_released,
            order(one.cann),
            order(one.torch or "0"),
            order(one.engine_version or "0"),
        ),
        reverse=True,
    )
    return tuple(ordered)


def resolve(wanted: Mapping[str, str], engine: str = "") -> list[Stack]:
    """The stacks in which every wanted part is as it should be.

    Args:
        wanted: Part -> a version or a specifier, such as `2.9` or `>=2.7,<2.10`. `2.9` stands for
            any 2.9.
        engine: One of ENGINES, or empty for none.

    Raises:
        BadRequest: A part that is not known, or a specifier that cannot be read.
    """
    if engine and engine not in ENGINES:
        raise BadRequest(problem=f"no table knows {engine}", fix=f"One of {', '.join(ENGINES)}.")
    asked = {}
    for part, text in wanted.items():
        if part not in (*PARTS, *ENGINES):
            raise BadRequest(
                problem=f"no table knows {part}", fix=f"One of {', '.join((*PARTS, *ENGINES))}."
            )
        asked[part] = _specifier(part, text)
    return [
        one
        for one in stacks()
        if one.engine == engine and all(_fits(one, part, spec) for part, spec in asked.items())
    ]


def judge(installed: Mapping[str, str]) -> list[Match]:
    """Every pair of installed parts that a table could speak of."""
    pairs = (
        ("torch_npu", "torch"),
        ("torch_npu", "cann"),
        ("cann", "driver"),
        ("torch", "python"),
        *((engine, part) for engine in ENGINES for part in ("cann", "torch_npu", "python")),
    )
    return [
        _match(one, other, installed)
        for one, other in pairs
        if installed.get(one) and installed.get(other)
    ]


def nearest(installed: Mapping[str, str]) -> tuple[Stack, dict[str, str]] | None:
    """The published stack that takes the least change, and the changes: part -> version.

    What a stack says nothing of counts as much as a change, since nobody vouches for it. None where
    nothing that is installed is in any table.
    """
    engine = next((name for name in ENGINES if installed.get(name)), "")
    seen = {part: version for part, version in installed.items() if version}
    best: tuple[int, Stack, dict[str, str]] | None = None
    for one in stacks():
        if one.engine != engine and (engine or not one.torch):
            continue
        changes = {
            part: max(one.allows(part), key=order)
            for part, version in seen.items()
            if one.allows(part) and not _has(one, part, version)
        }
        unsaid = [part for part in seen if not one.allows(part)]
        cost = sum(COST[part] for part in (*changes, *unsaid))
        if len(changes) + len(unsaid) < len(seen) and (best is None or cost < best[0]):
            best = cost, one, changes
    return None if best is None else (best[1], best[2])


def fitting(installed: Mapping[str, str]) -> list[Stack]:
    """The stacks that are as installed, as far as they say anything, with the installed engine."""
    engine = next((name for name in ENGINES if installed.get(name)), "")
    return [
        one
        for one in stacks()
        if one.engine == engine
        and all(
            _has(one, part, version) or not one.allows(part) for part, version in installed.items()
        )
    ]


def _has(one: Stack, part: str, version: str) -> bool:
    return any(_same(part, version, listed) for listed in one.allows(part))


def installed(home: Path = HOME, toolkit: str = "") -> dict[str, str]:
    """What this machine has of it: part -> version; parts that are missing are left out.

    Args:
        home: Where Ascend's installers put things.
        toolkit: CANN's folder, ASCEND_HOME_PATH, where its environment is set.
    """
    found = {
        "driver": _field(home / "driver" / "version.info", "version"),
        "cann": _cann(Path(toolkit)) if toolkit else "",
    }
    for name in _TOOLKIT:
        found["cann"] = found["cann"] or _cann(home / name)
    for part, package in (
        ("torch_npu", "torch-npu"),
        ("vllm-ascend", "vllm-ascend"),
        ("mindie", "mindie-llm"),
        ("mindspore", "mindspore"),
        ("torch", "torch"),
    ):
        try:
            found[part] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return {part: version for part, version in found.items() if version}


def where(source: str) -> str:
    """A source's name in full."""
    return str(_tables()["sources"][source])


def torch_wanted(text: str) -> str:
    """What a file of requirements, pyproject.toml, setup.py or a conda environment asks of torch.

    A specifier; empty: nothing that can be read.
    """
    plain = re.sub(r"(?m)(^|\s)#.*$", "", text)
    poetry = _POETRY.search(plain)
    found = _TORCH.search(plain)
    if poetry is None and found is None:
        return ""
    parts = (poetry or found)[1].split(",")  # type: ignore[index]
    try:
        return str(SpecifierSet(",".join(_plainly(part.strip()) for part in parts if part.strip())))
    except (InvalidSpecifier, InvalidVersion):
        return ""


def _plainly(part: str) -> str:
    """Pip's form of a piece: conda's `=2.7` is any 2.7, Poetry's `^2.1` ends before 3."""
    if part.startswith("^"):
        version = Version(part[1:])
        return f">={version},<{version.major + 1}"
    if part[0].isdigit():
        return f"=={part}"
    conda = re.fullmatch(r"=\s*(\d[\w.]*)", part)
    return f"=={conda[1]}.*" if conda else re.sub(r"^===", "==", part)


def _plain() -> Iterator[Stack]:
    table = _tables()["torch_npu"]
    for torch_npu, torch, cann in table["rows"]:
        drivers, source = _drivers(cann)
        yield Stack(
            cann=cann,
            torch=torch,
            torch_npu=torch_npu,
            drivers=drivers,
            pythons=_pythons(torch),
            sources=tuple(filter(None, (table["source"], source))),
        )


def _engines() -> Iterator[Stack]:
    plain: dict[str, list[Stack]] = {}
    for one in _plain():
        plain.setdefault(one.cann, []).append(one)
    for engine, version, cann, torch, torch_npu, python, source in _tables()["engines"]["rows"]:
        drivers, drivers_source = _drivers(cann)
        own = Stack(
            cann=cann,
            torch=torch,
            torch_npu=torch_npu,
            drivers=drivers,
            pythons=_within(python),
            engine=engine,
            engine_version=version,
            sources=tuple(filter(None, (source, drivers_source))),
        )
        bases = () if torch or engine == "mindspore" else plain.get(cann, ())
        if not bases:
            yield own
        for base in bases:
            yield Stack(
                cann=cann,
                torch=base.torch,
                torch_npu=base.torch_npu,
                drivers=drivers,
                pythons=base.pythons,
                engine=engine,
                engine_version=version,
                sources=(source, *base.sources),
            )


def _drivers(cann: str) -> tuple[tuple[str, ...], str]:
    for name, drivers, source in _tables()["drivers"]["rows"]:
        if name == cann:
            return tuple(drivers), source
    return (), ""


def _pythons(torch: str) -> tuple[str, ...]:
    return tuple(_tables()["python"]["rows"].get(torch, ()))


def _within(specifier: str) -> tuple[str, ...]:
    if not specifier:
        return ()
    spec = SpecifierSet(specifier)
    return tuple(f"3.{minor}" for minor in range(8, 16) if f"3.{minor}" in spec)


def _specifier(part: str, text: str) -> SpecifierSet:
    asked = []
    for piece in filter(None, (one.strip() for one in text.split(","))):
        found = _PIECE.fullmatch(piece) if len(piece) < MAX_TEXT else None
        if found is None:
            raise BadRequest(
                problem=f"{part} {text[:40]!r} is no version",
                fix="Write 2.9, 2.9.0 or '>=2.7,<2.10'.",
            )
        sign, version, star = found[1] or "", found[2], found[3] or ""
        bare = order(version).public
        if part == "python":
            bare = ".".join(bare.split(".")[:2])  # of Python only 3.X counts
        if not sign:
            exact = re.search(r"(?i)rc|post|dev|spc|\.\d+\.\d+", version) is not None
            sign, star = "==", "" if exact else ".*"
        asked.append(f"{sign}{bare}{star}")
    return SpecifierSet(",".join(asked), prereleases=True)


def _fits(one: Stack, part: str, spec: SpecifierSet) -> bool:
    return any(order(version) in spec for version in one.allows(part))


def _same(part: str, seen: str, listed: str) -> bool:
    """Whether an installed version is the listed one; of Python only 3.X counts."""
    if part == "python":
        return order(seen).release[:2] == order(listed).release[:2]
    return order(seen).public == order(listed).public


def _match(one: str, other: str, installed: Mapping[str, str]) -> Match:
    mine, its = installed[one], installed[other]
    rows = [row for row in stacks() if any(_same(one, mine, v) for v in row.allows(one))]
    rows.sort(key=lambda row: bool(row.engine))
    listed = sorted({v for row in rows for v in row.allows(other)}, key=order)
    if one == "cann" and not rows:
        drivers, source = _drivers(mine)
        listed, rows = (
            sorted(drivers, key=order),
            [Stack(cann=mine, drivers=drivers, sources=(source,))],
        )
    first, second = f"{one} {mine}", f"{other} {its}"
    if any(_same(other, its, version) for version in listed):
        return Match(first=first, second=second, fine=True, why="")
    if one == "torch_npu" and other == "torch":
        base = order(mine).base_version
        return Match(
            first=first,
            second=second,
            fine=order(its).base_version == base,
            why=f"the package wants torch=={base}",
        )
    if not listed:
        return Match(first=first, second=second, fine=None, why=f"no table names {first}")
    source = next(row.sources[-1 if other == "driver" else 0] for row in rows if row.allows(other))
    why = f"{first} goes with {other} {', '.join(listed)} ({where(source)})"
    newer = other == "driver" and order(its) > order(listed[-1])
    return Match(first=first, second=second, fine=None if newer else False, why=why)


def _cann(folder: Path) -> str:
    """From the toolkit's folder: the installer's note, wherever this version of it puts it."""
    for pattern in ("*-linux/ascend_toolkit_install.info", "ascend_toolkit_install.info"):
        for path in sorted(folder.glob(pattern)):
            version = _field(path, "version")
            if version:
                return version
    return ""


def _field(path: Path, name: str) -> str:
    try:
        lines = path.read_text(errors="replace").splitlines()
    except OSError:
        return ""
    for line in lines:
        key, _, value = line.partition("=")
        if key.strip().lower() == name:
            return value.strip()
    return ""
