"""The catalogue: every construct that is bound to CUDA, a small class each."""

import ast
from collections.abc import Mapping
from typing import Any

from karez.migration.rules import (
    collectives,
    compiled,
    devices_api,
    environment,
    fallback,
    imports,
    libraries,
    literals,
    memory_api,
    precision,
    streams_api,
    tensors,
    types_api,
)
from karez.migration.rules.base import AnyRule, Api, Rule

APIS: tuple[AnyRule, ...] = (
    *devices_api.RULES,
    *memory_api.RULES,
    *streams_api.RULES,
    *types_api.RULES,
)
SYNTAX: tuple[AnyRule, ...] = (
    *tensors.RULES,
    *literals.RULES[:5],
    *collectives.RULES,
    *environment.RULES,
    *literals.RULES[5:],
    *precision.RULES,
    *compiled.RULES,
    *libraries.RULES,
    *fallback.RULES,
)
"""In the order in which they are asked; what one claims, the next never sees."""
CATALOGUE: tuple[AnyRule, ...] = (*APIS, *SYNTAX, *imports.RULES)


def by_name() -> Mapping[str, Api]:
    """The rules of torch.cuda's names, by full name."""
    found: dict[str, Api] = {}
    for kind in APIS:
        rule = kind()
        assert isinstance(rule, Api)  # noqa: S101 - narrows
        found.update(dict.fromkeys(rule.names, rule))
    return found


def by_node() -> Mapping[type[ast.AST], tuple[Rule[Any], ...]]:
    """The other rules, by the nodes they are asked about."""
    names = {name: type(rule) for name, rule in by_name().items()}
    whole: list[Rule[Any]] = [imports.CudaImport(names), imports.CudaFromImport(names)]
    rules: list[Rule[Any]] = [*whole, *(rule() for rule in SYNTAX)]
    kinds = {kind for rule in rules for kind in rule.nodes}
    return {kind: tuple(rule for rule in rules if kind in rule.nodes) for kind in kinds}
