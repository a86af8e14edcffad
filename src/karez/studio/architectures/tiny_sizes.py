"""The data of tiny_sizes.toml: sizes of tiny models by the names of fields."""

import tomllib
from collections.abc import Mapping
from importlib.resources import files
from typing import Any, Final

_DATA: Final[Mapping[str, Any]] = tomllib.loads(
    (files("karez.studio.architectures") / "tiny_sizes.toml").read_text(encoding="utf-8")
)


def _fields(kind: str) -> frozenset[str]:
    return frozenset(_DATA["counts"][kind]["fields"])


WIDTHS = _fields("widths")
INNER_WIDTHS = _fields("inner_widths")
HEADS = _fields("heads")
KEY_VALUE_HEADS = _fields("key_value_heads")
DEPTHS = _fields("depths")
VOCABULARIES = _fields("vocabularies")
EXPERTS = _fields("experts")
MAIN_DEPTHS = ("num_hidden_layers", "n_layer", "num_layers", "n_layers")
"""Depths that lists of kinds of layers go with."""
SIZES: Mapping[str, int] = {kind: table["size"] for kind, table in _DATA["counts"].items()}
WIDTH_LISTS = frozenset(_DATA["lists"]["widths"])
DEPTH_LISTS = frozenset(_DATA["lists"]["depths"])
FIXED: Mapping[str, int] = _DATA["fixed"]
OVERRIDES: Mapping[str, Mapping[str, Any]] = {
    name: table["fields"] for table in _DATA["overrides"] for name in table["types"]
}
"""Model type -> fields that the rules by name get wrong for it; a nested table is a part's."""
