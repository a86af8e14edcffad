"""Readers of expressions: string constants, keyword arguments and identifiers."""

import ast
from collections.abc import Iterator


def string(node: ast.AST | None) -> str | None:
    """Return the value of a string constant; None for any other node."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    return None


def keyword(call: ast.Call, name: str) -> ast.expr | None:
    """Return the value of a keyword argument, or None."""
    return next((word.value for word in call.keywords if word.arg == name), None)


def names_in(node: ast.AST) -> Iterator[str]:
    """Yield all identifiers inside a node."""
    for inner in ast.walk(node):
        if isinstance(inner, ast.Name):
            yield inner.id
        elif isinstance(inner, ast.Attribute):
            yield inner.attr
        elif isinstance(inner, ast.arg):
            yield inner.arg
