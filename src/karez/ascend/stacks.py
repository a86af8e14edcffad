"""The published stacks: versions of driver, CANN, torch, torch_npu and engines that go together.

The tables are in data/ascend_versions.json, each row with its source.
"""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache
from importlib.resources import files
from typing import Any

from packaging.specifiers import SpecifierSet
from packaging.version import InvalidVersion, Version

PARTS = ("python", "driver", "cann", "torch", "torch_npu")
ENGINES = ("vllm-ascend", "mindie", "mindspore")


@cache
def _tables() -> Mapping[str, Any]:
    text = files("karez.ascend").joinpath("data", "ascend_versions.json").read_text()
    loaded: dict[str, Any] = json.loads(text)
    return loaded


@dataclass(frozen=True, slots=True, kw_only=True)
class Stack:
    """Versions that a table publishes as going together."""

    cann: str
    torch: str = ""
    torch_npu: str = ""
    drivers: tuple[str, ...] = ()
    """Drivers of which any one fits; empty: no table names one for this CANN."""
    pythons: tuple[str, ...] = ()
    engine: str = ""
    engine_version: str = ""
    sources: tuple[str, ...] = ()

    def allows(self, part: str) -> tuple[str, ...]:
        """The versions of a part in this stack; empty: the stack does not name that part."""
        if part == "driver":
            return self.drivers
        if part == "python":
            return self.pythons
        version = self.engine_version if part == self.engine else getattr(self, part, "")
        return (version,) if version else ()

    @property
    def is_released(self) -> bool:
        """Whether every version is a release, not a candidate or a development version."""
        return not any(
            order(version).is_prerelease or order(version).local
            for version in (self.torch_npu, self.engine_version if self.engine != "mindie" else "")
            if version
        )


@cache
def order(version: str) -> Version:
    """A version as a comparable value; CANN's own forms, such as 6.3.RC3.1, included."""
    plain = re.sub(r"(?i)\.beta\d+$", "", version.strip().lstrip("v"))
    plain = re.sub(r"(?i)\.?rc(\d+)\.(?:spc)?(\d+)", r"rc\1.post\2", plain)
    plain = re.sub(r"(?i)\.spc(\d+)$", r".post\1", plain)
    try:
        return Version(plain)
    except InvalidVersion:
        match = re.match(r"\d+(?:\.\d+)*", plain)
        return Version(match[0] if match else "0")


@cache
def stacks() -> tuple[Stack, ...]:
    """All published stacks, the newest first, releases before candidates."""
    ordered = sorted(
        (*_plain(), *_engines()),
        key=lambda stack: (
            stack.is_released,
            order(stack.cann),
            order(stack.torch or "0"),
            order(stack.engine_version or "0"),
        ),
        reverse=True,
    )
    return tuple(ordered)


def where(source: str) -> str:
    """Full name of a source."""
    return str(_tables()["sources"][source])


def drivers_of(cann: str) -> tuple[tuple[str, ...], str]:
    """The drivers that fit a CANN, and the source that says so; empty if no table names it."""
    for name, drivers, source in _tables()["drivers"]["rows"]:
        if name == cann:
            return tuple(drivers), source
    return (), ""


def _plain() -> Iterator[Stack]:
    table = _tables()["torch_npu"]
    for torch_npu, torch, cann in table["rows"]:
        drivers, source = drivers_of(cann)
        yield Stack(
            cann=cann,
            torch=torch,
            torch_npu=torch_npu,
            drivers=drivers,
            pythons=_pythons(torch),
            sources=tuple(filter(None, (table["source"], source))),
        )


def _engines() -> Iterator[Stack]:
    """One stack for each version of an engine and each torch_npu that fits its CANN."""
    by_cann: dict[str, list[Stack]] = {}
    for stack in _plain():
        by_cann.setdefault(stack.cann, []).append(stack)
    for engine, version, cann, torch, torch_npu, python, source in _tables()["engines"]["rows"]:
        drivers, drivers_source = drivers_of(cann)
        bases = () if torch or engine == "mindspore" else by_cann.get(cann, ())
        for base in bases:
            yield replace(
                base,
                drivers=drivers,
                engine=engine,
                engine_version=version,
                sources=(source, *base.sources),
            )
        if not bases:
            yield Stack(
                cann=cann,
                torch=torch,
                torch_npu=torch_npu,
                drivers=drivers,
                pythons=_within(python),
                engine=engine,
                engine_version=version,
                sources=tuple(filter(None, (source, drivers_source))),
            )


def _pythons(torch: str) -> tuple[str, ...]:
    return tuple(_tables()["python"]["rows"].get(torch, ()))


def _within(specifier: str) -> tuple[str, ...]:
    if not specifier:
        return ()
    spec = SpecifierSet(specifier)
    return tuple(f"3.{minor}" for minor in range(8, 16) if f"3.{minor}" in spec)
