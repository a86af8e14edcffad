"""A Python file with what rules ask of it: names resolved, parents, and where each node stands.

Edits are made to spans of the text, so everything else, comments and formatting included, stays as
it is. Names are resolved through imports and their aliases; a name that a scope binds otherwise
is its own and not the module's.
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
        """`bound` has, for an imported name, what it stands for; for any other, nothing."""
        self.outer, self.is_class = outer, is_class
        self.bound: dict[str, str] = {}

    def lookup(self, name: str) -> str | None:
        """What a name stands for; None: nothing that is known."""
        scope: Scope | None = self
        while scope is not None:
            if name in scope.bound:
                return scope.bound[name] or None
            scope = scope.outer
            while scope is not None and scope.is_class:
                scope = scope.outer
        return None


class Source:
    """One parsed file. Raises SyntaxError, ValueError or RecursionError if it cannot be parsed."""

    def __init__(self, path: str, text: str) -> None:
        """Parse and index it."""
        self.path, self.text = path, text
        if "\r" in text.replace("\r\n", ""):
            raise ValueError("it has line ends of old Macs, by which places cannot be told")
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

    # where things stand

    def start(self, node: ast.AST) -> int:
        """The offset of its first character."""
        return self._offset(node.lineno, node.col_offset)  # type: ignore[attr-defined]

    def end(self, node: ast.AST) -> int:
        """The offset behind its last character."""
        return self._offset(node.end_lineno, node.end_col_offset)  # type: ignore[attr-defined]

    def code(self, node: ast.AST) -> str:
        """Its text."""
        return self.text[self.start(node) : self.end(node)]

    def place(self, offset: int) -> tuple[int, int]:
        """Line and column, from 1, of an offset."""
        line = bisect_right(self._starts, offset)
        return line, offset - self._starts[line - 1] + 1

    def line(self, number: int) -> str:
        """One line's text, counted from 1."""
        return self.text[self._starts[number - 1] : self._starts[number]]

    def line_start(self, number: int) -> int:
        """The offset of a line's first character."""
        return self._starts[number - 1]

    def is_kept(self, node: ast.AST) -> bool:
        """Whether a comment on one of its lines asks to leave it alone."""
        first, last = node.lineno, node.end_lineno  # type: ignore[attr-defined]
        return any(KEEP in self.line(number) for number in range(first, last + 1))

    def _offset(self, line: int, column: int) -> int:
        start = self._starts[line - 1]
        if self._is_ascii:
            return start + column
        row = self.text[start : self._starts[line]]
        return start + (column if row.isascii() else len(row.encode()[:column].decode()))

    # what names mean

    def parent(self, node: ast.AST) -> ast.AST | None:
        """The node around it."""
        return self.parents.get(node)

    def above(self, node: ast.AST) -> Iterator[ast.AST]:
        """All nodes around it, the nearest first."""
        found = self.parents.get(node)
        while found is not None:
            yield found
            found = self.parents.get(found)

    def dotted(self, node: ast.AST) -> str | None:
        """The full name behind `a.b.c`, if `a` was imported; None otherwise."""
        tail: list[str] = []
        while isinstance(node, ast.Attribute):
            tail.append(node.attr)
            node = node.value
        if not isinstance(node, ast.Name):
            return None
        base = self.scope(node).lookup(node.id)
        return None if base is None else ".".join((base, *reversed(tail)))

    def scope(self, node: ast.AST) -> Scope:
        """The scope that a node is in."""
        return self._scopes.get(node, self.top)

    def binds(self, name: str) -> bool:
        """Whether any scope binds or uses a name."""
        return any(
            (isinstance(node, ast.Name) and node.id == name)
            or (isinstance(node, ast.arg) and node.arg == name)
            for node in self.nodes
        ) or any(name in scope.bound for scope in set(self._scopes.values()))

    def _index(self, root: ast.AST, top: Scope) -> None:
        """Parents, scopes and bindings, without recursion: generated code can be very deep."""
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
    """Whether a child stands in the scope that a node opens: not so decorators and bases."""
    match scope:
        case ast.FunctionDef() | ast.AsyncFunctionDef():
            return child in scope.body or child is scope.args
        case ast.ClassDef():
            return child in scope.body
    return True
