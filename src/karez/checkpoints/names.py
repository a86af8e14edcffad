"""Renames weights from one framework to another: by kind of layer, never by guessing."""

import re
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from karez.checkpoints.tensors import Tensor
from karez.core.errors import BadRequest

NORMS = {
    "weight": "gamma",
    "bias": "beta",
    "running_mean": "moving_mean",
    "running_var": "moving_variance",
}
"""nn.BatchNorm, nn.LayerNorm and nn.GroupNorm of MindSpore (2.10); mint.nn has torch's names."""
DROPPED = ("num_batches_tracked",)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """Renames what matches the pattern to `to`, which may use the pattern's groups."""

    pattern: re.Pattern[str]
    to: str
    shape: str = ""
    """`conv1d`: a weight gets a dimension of size 1 before its last; `drop`: it is left out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Mapped:
    """Tensors renamed by rules, and what the rules did."""

    tensors: Sequence[Tensor]
    renamed: Mapping[str, str]
    dropped: Sequence[str]
    unmatched: Sequence[str]
    """Names that no rule matches; they are kept as they are."""


def read_rules(path: Path) -> list[Rule]:
    """Read rules from TOML: `[[rule]]` with `from`, `to` and perhaps `shape`. Raises BadRequest."""
    try:
        table = tomllib.loads(path.read_text())
        return [
            Rule(pattern=re.compile(row["from"]), to=row.get("to", ""), shape=row.get("shape", ""))
            for row in table["rule"]
        ]
    except (OSError, tomllib.TOMLDecodeError, KeyError, re.error, TypeError) as error:
        raise BadRequest(
            problem=f"{path} holds no rules: {error}",
            fix='Each is a table [[rule]] with from = "a pattern" and to = "a name".',
        ) from error


def to_mindspore(tensors: Iterable[Tensor], kinds: Mapping[str, str]) -> Mapped:
    """Rename tensors from torch's names to those of MindSpore's nn.

    `kinds` says what each module is (`norm`, `embedding`, `prelu`, `conv1d`, `same`). A module with
    running means is a norm whether it is named or not; of the others nothing is assumed.
    """
    every = list(tensors)
    means = {one.name.rpartition(".")[0] for one in every if one.name.endswith("running_mean")}
    known = {**dict.fromkeys(means, "norm"), **kinds}
    return _rename(every, [*_by_kind(known)])


def apply_rules(tensors: Iterable[Tensor], rules: Sequence[Rule]) -> Mapped:
    """Rename by rules; the first match counts. Raises BadRequest if two names become equal."""
    return _rename(list(tensors), rules)


def _by_kind(kinds: Mapping[str, str]) -> Iterable[Rule]:
    for module, kind in kinds.items():
        base = re.escape(module)
        prefix = f"{base}\\." if module else ""
        plain = f"{module}." if module else ""
        if kind == "norm":
            for ours, theirs in NORMS.items():
                yield Rule(pattern=re.compile(f"{prefix}{ours}"), to=f"{plain}{theirs}")
            for name in DROPPED:
                yield Rule(pattern=re.compile(f"{prefix}{name}"), to="", shape="drop")
        elif kind == "embedding":
            yield Rule(pattern=re.compile(f"{prefix}weight"), to=f"{plain}embedding_table")
        elif kind == "prelu":
            yield Rule(pattern=re.compile(f"{prefix}weight"), to=f"{plain}w")
        elif kind == "conv1d":
            yield Rule(pattern=re.compile(f"{prefix}weight"), to=f"{plain}weight", shape="conv1d")
            yield Rule(pattern=re.compile(f"{prefix}bias"), to=f"{plain}bias")
        elif kind == "same":
            yield Rule(pattern=re.compile(f"{prefix}(.+)"), to=f"{plain}\\1")
        else:
            raise BadRequest(
                problem=f"{module} is said to be {kind!r}",
                fix="Kinds are norm, embedding, prelu, conv1d and same.",
            )


def _rename(tensors: Sequence[Tensor], rules: Sequence[Rule]) -> Mapped:
    made: list[Tensor] = []
    renamed: dict[str, str] = {}
    dropped: list[str] = []
    unmatched: list[str] = []
    taken: dict[str, str] = {}
    for one in tensors:
        rule = next((rule for rule in rules if rule.pattern.fullmatch(one.name)), None)
        if rule is not None and rule.shape == "drop":
            dropped.append(one.name)
            continue
        if rule is None:
            unmatched.append(one.name)
            new, shape = one.name, one.shape
        else:
            new = rule.pattern.sub(rule.to, one.name, count=1)
            shape = _reshaped(one.shape, rule.shape)
            renamed[one.name] = new
        if new in taken:
            raise BadRequest(problem=f"{taken[new]} and {one.name} would both be called {new}")
        taken[new] = one.name
        made.append(Tensor(name=new, dtype=one.dtype, shape=shape, read=one.read))
    return Mapped(tensors=made, renamed=renamed, dropped=dropped, unmatched=unmatched)


def _reshaped(shape: tuple[int, ...], how: str) -> tuple[int, ...]:
    if how == "conv1d" and len(shape) == 3:
        return (*shape[:2], 1, shape[2])
    if how == "conv1d-back" and len(shape) == 4 and shape[2] == 1:
        return (*shape[:2], shape[3])
    return shape
