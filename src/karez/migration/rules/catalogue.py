"""The catalogue: all rules for Python, in order of precedence."""

import ast
from collections.abc import Mapping
from typing import Any

from karez.migration.rules import (
    autocast_state,
    collectives,
    compiled,
    custom_kernels,
    device_expressions,
    device_info_api,
    device_strings,
    devices_api,
    environment,
    fallback,
    imports,
    memory_api,
    nvidia_libraries,
    operator_libraries,
    precision,
    processes,
    random_api,
    streams_api,
    tensor_methods,
    tensor_types,
    trainer_options,
    training_libraries,
    types_api,
)
from karez.migration.rules.api_rule import Api
from karez.migration.rules.rule import AnyRule, Rule

APIS: tuple[AnyRule, ...] = (
    *devices_api.RULES,
    *random_api.RULES,
    *device_info_api.RULES,
    *memory_api.RULES,
    *streams_api.RULES,
    *types_api.RULES,
)
"""Rules that are found by the full name of a construct; no two share a name."""
PRECEDENCE: tuple[tuple[AnyRule, ...], ...] = (
    imports.RULES,
    tensor_types.RULES,
    tensor_methods.RULES,
    device_expressions.RULES,  # their form decides, wherever the string is
    collectives.RULES,
    environment.RULES,
    device_strings.RULES,  # their place decides; the last of them takes every device string left
    precision.RULES,
    autocast_state.RULES,
    trainer_options.RULES,
    processes.RULES,
    compiled.RULES,
    training_libraries.RULES,
    nvidia_libraries.RULES,
    operator_libraries.RULES,
    custom_kernels.RULES,  # a compiled module is reported here if no library rule knows the module
    fallback.RULES,
)
"""Groups of rules, the first to be tried first.

The first rule that reports a node claims the node. A test pins the order for each kind of node.
"""
SYNTAX: tuple[AnyRule, ...] = tuple(rule for group in PRECEDENCE for rule in group)
CATALOGUE: tuple[AnyRule, ...] = (*APIS, *SYNTAX)


def by_name() -> Mapping[str, Api]:
    """Return the rules for names of torch.cuda, by full name."""
    rules: dict[str, Api] = {}
    for kind in APIS:
        rule = kind()
        assert isinstance(rule, Api)  # noqa: S101 - narrows the type
        rules.update(dict.fromkeys(rule.names, rule))
    return rules


def by_node() -> Mapping[type[ast.AST], tuple[Rule[Any], ...]]:
    """Return the other rules in order of precedence, by the kind of node they examine."""
    apis = {name: type(rule) for name, rule in by_name().items()}
    rules: list[Rule[Any]] = [
        kind(apis) if issubclass(kind, imports.ImportRule) else kind() for kind in SYNTAX
    ]
    kinds = {kind for rule in rules for kind in rule.nodes}
    return {kind: tuple(rule for rule in rules if kind in rule.nodes) for kind in kinds}
