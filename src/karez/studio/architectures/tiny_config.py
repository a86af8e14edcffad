"""Makes the configuration of a tiny model from an architecture's own defaults."""

import contextlib
from collections.abc import Mapping
from enum import IntEnum
from typing import Any

from transformers import PreTrainedConfig

from karez.studio.architectures import tiny_sizes as sizes

_NOT_COPIED = frozenset(
    (
        "transformers_version",
        "model_type",
        "architectures",
        "dtype",
        "torch_dtype",
        "_name_or_path",
        "attn_implementation",
    )
)
_FIRST_FREE, _FREE = 300, 150
"""Ids of special tokens that do not fit a small vocabulary move here."""
_MOST_KINDS = 4


class Scale(IntEnum):
    """How a configuration is made small; each keeps more of its proportions than the one before."""

    BY_NAME = 0
    """Each field gets the size that its name stands for."""
    BY_FACTOR = 1
    """Widths are divided by 16 and heads by 4."""
    SHALLOW = 2
    """Only depth, vocabulary and experts are cut."""


def tiny_fields(config: Any, scale: Scale, overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of a configuration of the same class, made small.

    `overrides` win over the rules; a table in them is for the part of that name.
    """
    raw: dict[str, Any] = config.to_dict()
    fields: dict[str, Any] = {}
    parts: dict[str, Any] = {}
    for name, value in raw.items():
        if name in _NOT_COPIED:
            continue
        part = _part(config, name)
        if isinstance(part, PreTrainedConfig):
            nested = tiny_fields(part, scale, overrides.get(name, {}))
            parts[name] = {**nested, "model_type": part.model_type}
        else:
            fields[name] = _tiny(name, value, scale)
    if scale is Scale.BY_NAME:
        _group_heads(fields, raw)
    _cut_layers(fields, raw)
    _fit_tokens(fields)
    _name_stages(fields)
    if scale is Scale.BY_NAME:
        _fit_rotary(fields)
    return {**fields, **overrides, **parts}


def _part(config: Any, name: str) -> Any:
    with contextlib.suppress(Exception):  # some fields are a layer's, and refuse to be asked for
        return getattr(config, name, None)
    return None


def _tiny(name: str, value: Any, scale: Scale) -> Any:
    if isinstance(value, bool) or value is None:
        return value
    if isinstance(value, int):
        common = _tiny_count(name, value)
        if common is not None:
            return common
        return _OF_SCALE[scale](name, value)
    if scale is Scale.BY_NAME and _is_counts(value):
        return _tiny_list(name, value)
    return value


def _tiny_count(name: str, value: int) -> int | None:
    """What every scale does with a count; None if it does nothing."""
    if name in sizes.VOCABULARIES:
        return min(value, sizes.SIZES["vocabularies"])
    if name.endswith(("_token_id", "_token_index", "_id")) and value >= sizes.SIZES["vocabularies"]:
        return _FIRST_FREE + _number(name) % _FREE
    if name in sizes.DEPTHS:
        return min(value, sizes.SIZES["depths"])
    return None


def _by_name(name: str, value: int) -> int:
    for names, size in (
        (sizes.WIDTHS, "widths"),
        (sizes.INNER_WIDTHS, "inner_widths"),
        (sizes.HEADS, "heads"),
        (sizes.KEY_VALUE_HEADS, "key_value_heads"),
    ):
        if name in names:
            return sizes.SIZES[size]
    return sizes.FIXED.get(name, value)


def _by_factor(name: str, value: int) -> int:
    if name in sizes.WIDTHS or name in sizes.INNER_WIDTHS:
        return max(value // 16, 8)
    if name in sizes.HEADS or name in sizes.KEY_VALUE_HEADS:
        return max(value // 4, 1)
    if name in sizes.FIXED and "head_dim" in name:
        return max(value // 4, 2)
    return _shallow(name, value)


def _shallow(name: str, value: int) -> int:
    return min(value, sizes.SIZES["experts"]) if name in sizes.EXPERTS else value


_OF_SCALE = {Scale.BY_NAME: _by_name, Scale.BY_FACTOR: _by_factor, Scale.SHALLOW: _shallow}


def _is_counts(value: Any) -> bool:
    return (
        isinstance(value, list | tuple)
        and bool(value)
        and all(isinstance(one, int) and not isinstance(one, bool) for one in value)
    )


def _tiny_list(name: str, value: list[int] | tuple[int, ...]) -> list[int] | tuple[int, ...]:
    count = len(value)
    if name in sizes.WIDTH_LISTS:
        return [16 * 2 ** min(i, 2) for i in range(count)] if count <= 6 else value
    if name == "patch_size":
        return [8, 8] if count == 2 else [2] + [8] * (count - 1)
    each = {"num_attention_heads": 2, "num_heads": 2, "conv_dim": 16, "image_size": 32}.get(name)
    if each is None and name in sizes.DEPTH_LISTS:
        each = 1
    if each is None and name in sizes.WIDTHS:
        each = sizes.SIZES["widths"]
    if each is None and name in sizes.INNER_WIDTHS:
        each = sizes.SIZES["inner_widths"]
    return value if each is None else [each] * count


def _group_heads(fields: dict[str, Any], raw: Mapping[str, Any]) -> None:
    """Keep whether heads share their keys and values: all of them, some, or none."""
    for heads in sorted(sizes.HEADS & raw.keys()):  # a set's order is another in each process
        for name in sorted(sizes.KEY_VALUE_HEADS & raw.keys()):
            if isinstance(raw[heads], int) and isinstance(raw[name], int):
                is_shared_by_all = raw[name] == 1
                grouped = 1 if is_shared_by_all else sizes.SIZES["key_value_heads"]
                fields[name] = sizes.SIZES["heads"] if raw[name] == raw[heads] else grouped


def _cut_layers(fields: dict[str, Any], raw: Mapping[str, Any]) -> None:
    """Cut what has an entry for each layer, so that each kind of layer stays."""
    depth = next((n for n in sizes.MAIN_DEPTHS if isinstance(raw.get(n), int)), None)
    if depth is None or not raw[depth]:
        return
    had = raw[depth]
    lists = {
        name: value
        for name, value in fields.items()
        if isinstance(value, list | tuple) and len(value) == had and name != "conv_dim"
    }
    kinds = {value.index(kind) for value in lists.values() if _is_words(value) for kind in value}
    own = _settings_of_layers(fields.get("per_layer_config"))
    first = min(own, default=None)
    if first is not None and not kinds & own.keys():
        kinds.add(first)  # one of those with settings of their own
    left = max(fields[depth], min(len(kinds), _MOST_KINDS))
    others = [layer for layer in range(had) if layer not in kinds]
    kept = sorted((sorted(kinds) + others)[:left])
    fields[depth] = left
    for name, value in lists.items():
        fields[name] = [value[layer] for layer in kept]
    if own:
        fields["per_layer_config"] = {
            new: own[layer] for new, layer in enumerate(kept) if layer in own
        }


def _name_stages(fields: dict[str, Any]) -> None:
    """Take outputs from the stages that are left, where they were taken from later ones."""
    for name in ("stage_names", "out_indices"):
        if name in fields and fields.get("out_features"):
            del fields[name]  # follow from out_features
    wanted = fields.get("out_features")
    depth = next((fields[n] for n in sizes.MAIN_DEPTHS if isinstance(fields.get(n), int)), None)
    if depth is None or not wanted or not all(one.startswith("stage") for one in wanted):
        return
    count = min(len(wanted), depth)
    fields["out_features"] = [f"stage{depth - place}" for place in reversed(range(count))]


def _settings_of_layers(value: Any) -> dict[int, Any]:
    if not isinstance(value, dict) or not all(str(name).isdecimal() for name in value):
        return {}
    return {int(layer): settings for layer, settings in value.items()}


def _is_words(value: Any) -> bool:
    return all(isinstance(one, str) for one in value)


def _fit_tokens(fields: dict[str, Any]) -> None:
    vocabulary = fields.get("vocab_size")
    if not isinstance(vocabulary, int):
        return
    for name, value in fields.items():
        if name.endswith("_token_id") and isinstance(value, int) and value >= vocabulary:
            fields[name] = vocabulary - 1 - _number(name) % 30


def _fit_rotary(fields: dict[str, Any]) -> None:
    for name in ("rope_parameters", "rope_scaling"):
        rope = fields.get(name)
        if isinstance(rope, dict) and "mrope_section" in rope:
            fields[name] = {**rope, "mrope_section": [1, 1, 2]}


def _number(name: str) -> int:
    """A number of its own for a field, the same in every process."""
    return sum(ord(letter) * (place + 3) for place, letter in enumerate(name))
