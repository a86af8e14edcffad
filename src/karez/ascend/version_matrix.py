"""Resolves and judges versions of driver, CANN, torch, torch_npu and engines by published tables.

A version that no table names is unknown, not wrong.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from packaging.specifiers import SpecifierSet

from karez.ascend.stacks import ENGINES, PARTS, Stack, drivers_of, order, stacks, where
from karez.core.errors import BadRequest

COST = {
    "python": 5,
    "driver": 8,
    "cann": 5,
    "torch": 5,
    "torch_npu": 1,
    **dict.fromkeys(ENGINES, 2),
}
"""Cost of changing a part, relative to torch_npu: a driver needs root and a restart."""
_PIECE = re.compile(
    r"(?ai)(==|~=|!=|<=|>=|<|>)?\s*v?"
    r"(\d+(?:\.\d+)*(?:\.?(?:a|b|rc|post|dev|beta|spc)\d+(?:\.\d+)*)*(?:\+[\w.]+)?)(\.\*)?"
)
MAX_TEXT = 40


@dataclass(frozen=True, slots=True, kw_only=True)
class Match:
    """Whether two installed versions go together, with the reason."""

    first: str
    second: str
    fine: bool | None
    """Whether the two go together; None: no table names them."""
    why: str


def resolve(wanted: Mapping[str, str], engine: str = "") -> list[Stack]:
    """The stacks in which every wanted part satisfies its specifier.

    Args:
        wanted: Part -> a version or a specifier, such as `2.9` or `>=2.7,<2.10`. `2.9` stands for
            any 2.9.
        engine: One of ENGINES, or empty for none.

    Raises:
        BadRequest: Unknown part or engine, or invalid specifier.
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
        stack
        for stack in stacks()
        if stack.engine == engine and all(_fits(stack, part, spec) for part, spec in asked.items())
    ]


def judge(installed: Mapping[str, str]) -> list[Match]:
    """Judge every pair of installed parts that the tables cover."""
    pairs = (
        ("torch_npu", "torch"),
        ("torch_npu", "cann"),
        ("cann", "driver"),
        ("torch", "python"),
        *((engine, part) for engine in ENGINES for part in ("cann", "torch_npu", "python")),
    )
    return [
        _match(part, other, installed)
        for part, other in pairs
        if installed.get(part) and installed.get(other)
    ]


def nearest(installed: Mapping[str, str]) -> tuple[Stack, dict[str, str]] | None:
    """The published stack that needs the least change, and the changes: part -> version.

    A part that a stack does not name costs as much as a change, since no source vouches for it.
    Returns None where no table names any installed part.
    """
    engine = next((name for name in ENGINES if installed.get(name)), "")
    seen = {part: version for part, version in installed.items() if version}
    best: tuple[int, Stack, dict[str, str]] | None = None
    for stack in stacks():
        if stack.engine != engine and (engine or not stack.torch):
            continue
        changes = {
            part: max(stack.allows(part), key=order)
            for part, version in seen.items()
            if stack.allows(part) and not _has(stack, part, version)
        }
        unsaid = [part for part in seen if not stack.allows(part)]
        cost = sum(COST[part] for part in (*changes, *unsaid))
        if len(changes) + len(unsaid) < len(seen) and (best is None or cost < best[0]):
            best = cost, stack, changes
    return None if best is None else (best[1], best[2])


def fitting(installed: Mapping[str, str]) -> list[Stack]:
    """The stacks of the installed engine that contradict no installed version."""
    engine = next((name for name in ENGINES if installed.get(name)), "")
    return [
        stack
        for stack in stacks()
        if stack.engine == engine
        and all(
            _has(stack, part, version) or not stack.allows(part)
            for part, version in installed.items()
        )
    ]


def _has(stack: Stack, part: str, version: str) -> bool:
    return any(_same(part, version, listed) for listed in stack.allows(part))


def _specifier(part: str, text: str) -> SpecifierSet:
    asked = []
    for piece in filter(None, (part_text.strip() for part_text in text.split(","))):
        found = _PIECE.fullmatch(piece) if len(piece) < MAX_TEXT else None
        if found is None:
            raise BadRequest(
                problem=f"{part} {text[:40]!r} is not a version",
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


def _fits(stack: Stack, part: str, spec: SpecifierSet) -> bool:
    return any(order(version) in spec for version in stack.allows(part))


def _same(part: str, seen: str, listed: str) -> bool:
    """Whether an installed version is the listed one; of Python only 3.X counts."""
    if part == "python":
        return order(seen).release[:2] == order(listed).release[:2]
    return order(seen).public == order(listed).public


def _match(part: str, other: str, installed: Mapping[str, str]) -> Match:
    """Judge one installed part by the versions of another that go with it."""
    first, second = f"{part} {installed[part]}", f"{other} {installed[other]}"
    rows = _stacks_with(part, installed[part])
    listed = sorted({v for row in rows for v in row.allows(other)}, key=order)
    if any(_same(other, installed[other], version) for version in listed):
        return Match(first=first, second=second, fine=True, why="")
    if part == "torch_npu" and other == "torch":
        base = order(installed[part]).base_version
        is_fine = order(installed[other]).base_version == base
        why = f"the package wants torch=={base}"
        return Match(first=first, second=second, fine=is_fine, why=why)
    if not listed:
        return Match(first=first, second=second, fine=None, why=f"no table names {first}")
    source = next(row.sources[-1 if other == "driver" else 0] for row in rows if row.allows(other))
    why = f"{first} goes with {other} {', '.join(listed)} ({where(source)})"
    is_newer = other == "driver" and order(installed[other]) > order(listed[-1])
    return Match(first=first, second=second, fine=None if is_newer else False, why=why)


def _stacks_with(part: str, version: str) -> Sequence[Stack]:
    """The stacks that name a version of a part, those without an engine first."""
    rows = [row for row in stacks() if any(_same(part, version, v) for v in row.allows(part))]
    if part == "cann" and not rows:
        drivers, source = drivers_of(version)
        return [Stack(cann=version, drivers=drivers, sources=(source,))]
    return sorted(rows, key=lambda row: bool(row.engine))
