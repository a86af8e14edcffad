"""Operators that Ascend's NPUs support, by two published sources that do not always agree.

Derived from the tables of github.com/Ascend/pytorch (CC-BY-4.0, see data/NOTICE) and from the list
of kernels in the torch-npu wheel (BSD-3-Clause). An operator that
neither names is unknown, not unsupported.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any


@cache
def _table() -> Mapping[str, Any]:
    text = files("karez.ascend").joinpath("data", "npu_support.json").read_text()
    loaded: dict[str, Any] = json.loads(text)
    return loaded


def __getattr__(name: str) -> Any:
    if name == "KERNELS":
        return frozenset(_table()["kernels"])
    if name == "SOURCES":
        return dict(_table()["source"])
    raise AttributeError(name)


@dataclass(frozen=True, slots=True, kw_only=True)
class Support:
    """Support of one function of torch, by both sources."""

    api: str
    docs: Mapping[str, bool | None]
    """Chip -> whether its documentation lists support; None: the documentation is silent."""
    kernel: bool
    """Whether the list of kernels names an operator of this name."""
    dtypes: tuple[str, ...]
    """Types that the documentation names; empty: no limit is stated."""
    falls_back: bool
    """Whether the documentation warns of the CPU doing the work."""
    inference_only: bool
    is_limited: bool
    """Whether the documentation states limits; they are in its own words there."""

    @property
    def verdict(self) -> str:
        """One word: supported, limited, contradictory, fallback, unsupported or unknown."""
        said = [known for known in self.docs.values() if known is not None]
        if not said:
            return "supported" if self.kernel else "unknown"
        if not any(said):
            return "contradictory" if self.kernel else "unsupported"
        if self.falls_back:
            return "fallback"
        return "limited" if self.is_limited or not all(said) else "supported"


def lookup(api: str) -> Support | None:
    """Look up a full name such as torch.nn.functional.gelu; None: in neither source."""
    table = _table()
    mask, dtypes, flags = table["apis"].get(api, ("", "", ""))
    last = api.rpartition(".")[2]
    kernel = last in __getattr__("KERNELS")
    if not mask and not kernel:
        return None
    known = {"1": True, "0": False}
    docs = {chip: known.get(mask[at]) if mask else None for at, chip in enumerate(table["chips"])}
    return Support(
        api=api,
        docs=docs,
        kernel=kernel,
        dtypes=tuple(dtypes.split()),
        falls_back="c" in flags,
        inference_only="i" in flags,
        is_limited="l" in flags,
    )


DTYPES = {
    "bf16": "bfloat16",
    "fp16": "float16",
    "fp32": "float32",
    "fp64": "float64",
    "complex64": "complex64",
    "complex128": "complex128",
    "bool": "bool",
    "uint8": "uint8",
    "int8": "int8",
    "int16": "int16",
    "int32": "int32",
    "int64": "int64",
}
_PLACES = ("torch.", "torch.nn.functional.", "torch.Tensor.", "torch.special.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Documented:
    """A chip's documentation of an operator, over all functions of that name."""

    is_there: bool
    dtypes: frozenset[str]
    """torch's names of types; empty: no limit is stated."""
    apis: tuple[str, ...]

    def allows(self, dtype: str) -> bool:
        """Whether a type is documented. float16 implies bfloat16: the tables lag behind."""
        if not self.dtypes or dtype in self.dtypes:
            return True
        return dtype == "bfloat16" and "float16" in self.dtypes


@cache
def documented(operator: str, chip: str) -> Documented | None:
    """Look up an operator, named without `aten::`; None: no function of that name is documented.

    Raises:
        ValueError: Unknown chip.
    """
    chips = _table()["chips"]
    if chip not in chips:
        raise ValueError(f"no table has a chip {chip!r}; there are {', '.join(chips)}")
    at = chips.index(chip)
    name = operator.partition(".")[0].strip("_")
    wanted = [f"{place}{name}" for place in _PLACES]
    if name.startswith(("linalg_", "fft_", "special_")):
        wanted.append("torch." + name.replace("_", ".", 1))
    rows = {api: _table()["apis"][api] for api in wanted if api in _table()["apis"]}
    said = {api: row for api, row in rows.items() if row[0][at] != "-"}
    if not said:
        return None
    listed = [row[1].split() for row in said.values()]
    dtypes = frozenset(DTYPES[one] for row in listed for one in row) if all(listed) else frozenset()
    return Documented(
        is_there=any(row[0][at] == "1" for row in said.values()) or name in _table()["kernels"],
        dtypes=dtypes,
        apis=tuple(said),
    )


def worth_a_look(apis: Iterable[str]) -> list[Support]:
    """Those of a repository's functions that are unsupported, contradictory or fall back."""
    found = [lookup(api) for api in sorted(set(apis))]
    return [
        one
        for one in found
        if one is not None and one.verdict in ("unsupported", "contradictory", "fallback")
    ]
