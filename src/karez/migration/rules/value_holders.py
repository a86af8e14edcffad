"""The name of the variable, parameter, option or key that an expression is the value of."""

import ast

from karez.migration.rules.expressions import string
from karez.migration.rules.site import Site


def holder_of(node: ast.AST, site: Site) -> str | None:  # noqa: C901 - one case for each kind of node
    """Return the name of the variable, parameter, option or key that gets a value."""
    for around in site.source.above(node):
        match around:
            case ast.IfExp() | ast.BoolOp() | ast.List() | ast.Tuple() | ast.Set():
                node = around
            case ast.Assign(targets=[target]) | ast.AnnAssign(target=target):
                return _last_name(target)
            case ast.NamedExpr(target=target):
                return target.id
            case ast.keyword(arg=arg):
                return _option(around, site) or arg
            case ast.arguments():
                return _parameter(around, node)
            case ast.Dict():
                return string(_key_of(around, node))
            case ast.Return():
                return _function_name(around, site)
            case ast.Call(func=ast.Attribute(attr="get" | "setdefault" | "pop"), args=[key, *_]):
                return string(key)
            case ast.Call() if node in around.args:
                return _option_name(around, node)
            case _:
                return None
    return None


def _last_name(target: ast.AST) -> str | None:
    if isinstance(target, ast.Attribute):
        return target.attr
    if isinstance(target, ast.Subscript):
        return string(target.slice)
    return target.id if isinstance(target, ast.Name) else None


def _option(word: ast.keyword, site: Site) -> str | None:
    """The option's name if a keyword belongs to a call such as add_argument."""
    call = site.source.parent(word)
    if isinstance(call, ast.Call) and word.arg in ("default", "choices", "const"):
        return _option_name(call)
    return None


def _option_name(call: ast.Call, value: ast.AST | None = None) -> str | None:
    names = [text for text in map(string, (a for a in call.args if a is not value)) if text]
    longest = max((name for name in names if name.startswith("-")), key=len, default=None)
    option = longest or (names[0] if names else None)
    return option.strip("-").replace("-", "_") if option else None


def _parameter(args: ast.arguments, default: ast.AST) -> str | None:
    plain = [*args.posonlyargs, *args.args]
    for arg, value in zip(plain[len(plain) - len(args.defaults) :], args.defaults, strict=True):
        if value is default:
            return arg.arg
    for arg, other in zip(args.kwonlyargs, args.kw_defaults, strict=True):
        if other is default:
            return arg.arg
    return None


def _key_of(table: ast.Dict, value: ast.AST) -> ast.AST | None:
    return next((k for k, v in zip(table.keys, table.values, strict=True) if v is value), None)


def _function_name(node: ast.AST, site: Site) -> str | None:
    for around in site.source.above(node):
        if isinstance(around, (ast.FunctionDef, ast.AsyncFunctionDef)):
            return around.name
    return None
