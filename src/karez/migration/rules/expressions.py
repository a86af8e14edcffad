"""Readers of expressions: string constants, keyword arguments and identifiers."""

import ast
from collections.abc import Iterator


def string(node: ast.AST | None) -> str | None:
    """The value of a string constant."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    return None


def keyword(call: ast.Call, name: str) -> ast.expr | None:
    """A keyword argument's value."""
    return next((word.value for word in call.keywords if word.arg == name), None)


def names_in(node: ast.AST) -> Iterator[str]:
    """All identifiers within."""
    for inner in ast.walk(node):
        if isinstance(inner, ast.Name):
            yield inner.id
        elif isinstance(inner, ast.Attribute):
            yield inner.attr
        elif isinstance(inner, ast.arg):
            yield inner.arg
