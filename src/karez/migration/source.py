"""A parsed Python file: nodes with parents, positions, and names resolved through imports.

Edits replace spans of the text, so all other text, comments and formatting included, is unchanged.
Names are resolved through imports and aliases; a name that a scope binds in another way does not
refer to a module.
"""

import ast
from bisect import bisect_right
from collections.abc import Iterator

KEEP = "karez: keep"
_SCOPES = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda, ast.ClassDef)
_DEFINED = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
_OPAQUE = ""


class Scope:
    """Names bound by a module, class or function."""

    __slots__ = ("bound", "is_class", "outer")

    def __init__(self, outer: "Scope | None", *, is_class: bool = False) -> None:
        """Create an empty scope; `bound` maps imported names to full names, others to ''."""
        self.outer, self.is_class = outer, is_class
        self.bound: dict[str, str] = {}

    def lookup(self, name: str) -> str | None:
        """Return the full name of an imported name; None for any other name."""
        scope: Scope | None = self
        while scope is not None:
            if name in scope.bound:
                return scope.bound[name] or None
            scope = scope.outer
            while scope is not None and scope.is_class:
                scope = scope.outer
        return None


class Source:
    """A parsed file. Raises SyntaxError, ValueError or RecursionError if parsing fails."""

    def __init__(self, path: str, text: str) -> None:
        """Parse and index the text of a file."""
        self.path, self.text = path, text
        if "\r" in text.replace("\r\n", ""):
            raise ValueError("CR-only line endings are not supported")
        self.tree = ast.parse(text)
        self._starts = [0]
        for line in text.split("\n"):
            self._starts.append(self._starts[-1] + len(line) + 1)
        self._is_ascii = text.isascii()
        self.parents: dict[ast.AST, ast.AST] = {}
        self._scopes: dict[ast.AST, Scope] = {}
        self.top = Scope(None)
        self.nodes: list[ast.AST] = []
        self.docs: set[ast.AST] = set()
        self._index(self.tree, self.top)

    def start(self, node: ast.AST) -> int:
        """Return the offset of a node's first character."""
        return self._offset(node.lineno, node.col_offset)  # type: ignore[attr-defined]  # callers pass nodes with positions

    def end(self, node: ast.AST) -> int:
        """Return the offset after a node's last character."""
        return self._offset(node.end_lineno, node.end_col_offset)  # type: ignore[attr-defined]  # callers pass nodes with positions

    def code(self, node: ast.AST) -> str:
        """Return the text of a node."""
        return self.text[self.start(node) : self.end(node)]

    def place(self, offset: int) -> tuple[int, int]:
        """Return line and column of an offset, both counted from 1."""
        line = bisect_right(self._starts, offset)
        return line, offset - self._starts[line - 1] + 1

    def line(self, number: int) -> str:
        """Return the text of a line; `number` counts from 1."""
        return self.text[self._starts[number - 1] : self._starts[number]]

    def line_start(self, number: int) -> int:
        """Return the offset of a line's first character; `number` counts from 1."""
        return self._starts[number - 1]

    def is_kept(self, node: ast.AST) -> bool:
        """Whether a comment on a line of a node asks to keep the line."""
        first, last = node.lineno, node.end_lineno  # type: ignore[attr-defined]  # callers pass nodes with positions
        return any(KEEP in self.line(number) for number in range(first, last + 1))

    def _offset(self, line: int, column: int) -> int:
        start = self._starts[line - 1]
        if self._is_ascii:
            return start + column
        row = self.text[start : self._starts[line]]
        return start + (column if row.isascii() else len(row.encode()[:column].decode()))

    def parent(self, node: ast.AST) -> ast.AST | None:
        """Return the node that contains a node."""
        return self.parents.get(node)

    def above(self, node: ast.AST) -> Iterator[ast.AST]:
        """Yield the nodes that contain a node, innermost first."""
        parent = self.parents.get(node)
        while parent is not None:
            yield parent
            parent = self.parents.get(parent)

    def dotted(self, node: ast.AST) -> str | None:
        """Return the full name of `a.b.c` if `a` was imported; None otherwise."""
        tail: list[str] = []
        while isinstance(node, ast.Attribute):
            tail.append(node.attr)
            node = node.value
        if not isinstance(node, ast.Name):
            return None
        base = self.scope(node).lookup(node.id)
        return None if base is None else ".".join((base, *reversed(tail)))

    def scope(self, node: ast.AST) -> Scope:
        """Return the scope of a node."""
        return self._scopes.get(node, self.top)

    def binds(self, name: str) -> bool:
        """Whether any scope binds or uses a name."""
        return any(
            (isinstance(node, ast.Name) and node.id == name)
            or (isinstance(node, ast.arg) and node.arg == name)
            for node in self.nodes
        ) or any(name in scope.bound for scope in set(self._scopes.values()))

    def _index(self, root: ast.AST, top: Scope) -> None:
        """Collect parents, scopes and bindings; no recursion, as generated code can be deep."""
        stack: list[tuple[ast.AST, Scope]] = [(root, top)]
        while stack:
            node, scope = stack.pop()
            self.nodes.append(node)
            self._scopes[node] = scope
            self._bind(node, scope)
            inner = scope
            if isinstance(node, _SCOPES):
                inner = Scope(scope, is_class=isinstance(node, ast.ClassDef))
            if isinstance(node, (ast.Module, ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
                self._note_doc(node)
            for child in reversed(list(ast.iter_child_nodes(node))):
                self.parents[child] = node
                outside = inner is not scope and not _is_inside(node, child)
                stack.append((child, scope if outside else inner))

    def _note_doc(
        self, node: ast.Module | ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
    ) -> None:
        for item in node.body:
            if isinstance(item, ast.Expr) and isinstance(item.value, ast.Constant):
                self.docs.add(item.value)

    def _bind(self, node: ast.AST, scope: Scope) -> None:
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            _bind_import(node, scope)
            return
        name: str | None = None
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            name = node.id
        elif isinstance(node, ast.arg):
            name = node.arg
        elif isinstance(node, (*_DEFINED, ast.ExceptHandler)):
            name = node.name
        if name is not None:
            scope.bound.setdefault(name, _OPAQUE)


def _bind_import(node: ast.Import | ast.ImportFrom, scope: Scope) -> None:
    for alias in node.names:
        if isinstance(node, ast.Import):
            root = alias.name.partition(".")[0]
            scope.bound[alias.asname or root] = alias.name if alias.asname else root
        elif node.module and not node.level:
            scope.bound[alias.asname or alias.name] = f"{node.module}.{alias.name}"
        else:
            scope.bound.setdefault(alias.asname or alias.name, _OPAQUE)


def _is_inside(scope: ast.AST, child: ast.AST) -> bool:
    """Whether a child is in the scope that a node opens; decorators and bases are not."""
    match scope:
        case ast.FunctionDef() | ast.AsyncFunctionDef():
            return child in scope.body or child is scope.args
        case ast.ClassDef():
            return child in scope.body
    return True
