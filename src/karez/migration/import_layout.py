"""Decides where the generated module is written, and how each file imports the module.

A file is either imported by a dotted name from a folder on the path, or run as a script with its
own folder on the path. The imports between the repository's files show which is the case.
"""

import ast
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import PurePosixPath

from karez.migration.rules.site import SHIM


@dataclass(frozen=True, slots=True, kw_only=True)
class Home:
    """How one file imports the generated module."""

    file: str
    """Path of the generated module in the repository."""
    statement: str
    """Import statement for the module."""
    module: str
    """Module name for `from ... import` of single names."""
    fallback: str = ""
    """The same where the file is run by its path instead; empty: it is not, or nothing changes."""

    def lines(self, alias: str = "") -> str:
        """The import, under another name if one is given."""
        name = f" as {alias}" if alias and alias != SHIM else ""
        if not self.fallback:
            return f"{self.statement}{name}\n"
        return (
            f"try:\n    {self.statement}{name}\n"
            f"except ImportError:  # run by its path\n    import {self.fallback}{name}\n"
        )


class Layout:
    """The import structure of a repository, by the paths and the texts of its Python files."""

    def __init__(self, paths: Iterable[str]) -> None:
        """Keep the paths of all files: relative, with slashes."""
        self.paths = frozenset(paths)
        self._folders = {str(PurePosixPath(path).parent) for path in self.paths}
        self._roots: dict[str, Counter[str]] = {}
        """File -> folders from which other files import the file."""
        self._empty: set[str] = set()
        """Files `__init__.py` without a statement."""

    def note(self, path: str, text: str) -> None:
        """Record from which folders a file imports other files."""
        here = PurePosixPath(path).parent
        if path.endswith("/__init__.py") and not re.sub(r"(?m)^\s*#.*$", "", text).strip():
            self._empty.add(path)
        for match in _IMPORT.finditer(text):
            dotted = match.group(1) or match.group(2)
            names = re.findall(r"(\w+)(?:[ \t]+as[ \t]+\w+)?", match.group(3) or "")
            for root in (here, *here.parents):
                if self._learn(str(root), dotted):
                    for name in names:  # a name may be a module of the package
                        self._learn(str(root), f"{dotted}.{name}")
                    break

    def home(self, path: str, text: str) -> Home:
        """Return how a file imports the generated module."""
        here = PurePosixPath(path).parent
        top = self._top_of(here)
        if top is not None and not self._is_script(path, text, top):
            return self._home_in_package(path, text, top)
        seen = self._roots.get(path)
        root = PurePosixPath(seen.most_common(1)[0][0]) if seen else here
        package = self._package_of_script(text, root) if root == here else None
        if package is not None:
            return Home(
                file=f"{root / package / SHIM}.py",
                statement=f"from {package} import {SHIM}",
                module=f"{package}.{SHIM}",
            )
        return Home(file=str(root / f"{SHIM}.py"), statement=f"import {SHIM}", module=SHIM)

    def _home_in_package(self, path: str, text: str, top: PurePosixPath) -> Home:
        here = PurePosixPath(path).parent
        file = str(top / f"{SHIM}.py")
        full = self._full_name(path, top)
        is_both = self._is_run_and_imported(path, text, top)
        if is_both and here != top:  # by its path, a file finds only what lies beside it
            file = str(here / f"{SHIM}.py")
            full = ".".join([full, *here.relative_to(top).parts]) if full else ""
        if _is_relative(text) or not self._is_package(here) or not full:
            dots = "." * (1 if is_both else len(here.parts) - len(top.parts) + 1)
            statement, module = f"from {dots} import {SHIM}", f"{dots}{SHIM}"
        else:
            statement, module = f"from {full} import {SHIM}", f"{full}.{SHIM}"
        return Home(file=file, statement=statement, module=module, fallback=SHIM if is_both else "")

    def _full_name(self, path: str, top: PurePosixPath) -> str:
        """The name by which files import a package; empty: none does, and its own is not enough.

        A folder without `__init__.py` may be part of it, and then nothing finds the package from
        its own folder.
        """
        roots: Counter[str] = Counter(self._roots.get(path, ()))
        if not roots:
            for other, seen in self._roots.items():
                if top in PurePosixPath(other).parents:
                    roots.update(seen)
        above = [root for root in roots if PurePosixPath(root) in top.parents]
        if not above:
            return top.name if len(top.parts) == 1 or top.parts[0] in _CODE_FOLDERS else ""
        root = max(above, key=lambda one: roots[one])
        return ".".join(top.relative_to(root).parts)

    def _package_of_script(self, text: str, root: PurePosixPath) -> str | None:
        """The package beside a script that the script imports, if importing it does nothing else.

        Such a package's module serves the script, too.
        """
        for match in _IMPORT.finditer(text):
            name = (match.group(1) or match.group(2)).split(".")[0]
            if f"{root / name}/__init__.py" in self._empty:
                return name
        return None

    def _learn(self, root: str, dotted: str) -> bool:
        stem = PurePosixPath(root, *dotted.split("."))
        for found in (f"{stem}.py", f"{stem}/__init__.py"):
            if found in self.paths:
                self._roots.setdefault(found, Counter())[root] += 1
                return True
        if str(stem) in self._folders:  # a folder of modules: `from folder import module`
            for path in self.paths:
                if str(PurePosixPath(path).parent) == str(stem):
                    self._roots.setdefault(path, Counter())[root] += 1
            return True
        return False

    def _is_package(self, folder: PurePosixPath) -> bool:
        return str(folder) != "." and f"{folder}/__init__.py" in self.paths

    def _top_of(self, folder: PurePosixPath) -> PurePosixPath | None:
        """The outermost package around a folder; the folder itself may be no package."""
        found = None
        for around in (folder, *folder.parents):
            if self._is_package(around):
                found = around
            elif found is not None:
                break
        return found

    def _is_script(self, path: str, text: str, top: PurePosixPath) -> bool:
        """Whether a file in a package is run by its path.

        True if the file imports its neighbours without a package name, or if it has a main part,
        imports nothing of its own package, and no file imports it.
        """
        if _is_relative(text):
            return False
        here = PurePosixPath(path).parent
        neighbours = {
            PurePosixPath(other).stem for other in self.paths if PurePosixPath(other).parent == here
        }
        imported = {(m.group(1) or m.group(2)).split(".")[0] for m in _IMPORT.finditer(text)}
        plain = imported & (neighbours - {"__init__"})
        if bool(plain) and here.name not in imported:
            return True
        return _has_main(text) and top.name not in imported and path not in self._roots

    def _is_run_and_imported(self, path: str, text: str, top: PurePosixPath) -> bool:
        """Whether a file in a package has a main part, and files import it as a module."""
        imported = {(m.group(1) or m.group(2)).split(".")[0] for m in _IMPORT.finditer(text)}
        is_imported = path in self._roots and not _is_relative(text)
        return is_imported and _has_main(text) and top.name not in imported


def _is_relative(text: str) -> bool:
    return bool(re.search(r"^\s*from \.", text, re.MULTILINE))


def _has_main(text: str) -> bool:
    return bool(re.search(r"""^if __name__ == ['"]__main__""", text, re.MULTILINE))


_CODE_FOLDERS = frozenset(("src", "lib", "python"))
"""Folders that are on the path of an installed project, and no part of a module's name."""

_IMPORT = re.compile(
    r"^[ \t]*(?:from[ \t]+([A-Za-z_][\w.]*)[ \t]+import|import[ \t]+([A-Za-z_][\w.]*))"
    r"(?(1)[ \t]*(\([^)]*\)|[^\n#]*)|)",
    re.MULTILINE,
)


def place_of_import(text: str, first_use: int | None = None) -> int:
    """Return the offset at which the import of the generated module is inserted.

    The place is after the last top-level import of torch before the first use; if there is none,
    after the imports at the beginning of the file.
    """
    last = len(text) if first_use is None or first_use < 0 else first_use
    use_line = text.count("\n", 0, last) + 1
    line, after_torch = _first_code_line(text), 0
    is_head = True
    for node in ast.parse(text).body:
        end = node.end_lineno or node.lineno
        if end >= use_line and (first_use or 0) > 0:
            break
        is_head &= isinstance(node, (ast.Import, ast.ImportFrom)) or _is_doc(node)
        if is_head:
            line = end
        if _imports_torch(node):
            after_torch = end
    line = after_torch or line
    starts = [0]
    for row in text.split("\n"):
        starts.append(starts[-1] + len(row) + 1)
    return min(starts[line], len(text))


def own_modules(paths: Iterable[str]) -> frozenset[str]:
    """Return the names of the repository's own top-level modules."""
    found: set[str] = set()
    for path in paths:
        parts = PurePosixPath(path).parts
        found.add(PurePosixPath(parts[0]).stem)
        if parts[0] in _CODE_FOLDERS and len(parts) > 1:
            found.add(PurePosixPath(parts[1]).stem)
    return frozenset(found)


def _is_doc(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


def _imports_torch(node: ast.stmt) -> bool:
    if isinstance(node, ast.Import):
        return any(alias.name.split(".")[0] == "torch" for alias in node.names)
    return isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "torch"


def _first_code_line(text: str) -> int:
    """Number of comment lines at the top: interpreter, encoding, licence."""
    count = 0
    for line in text.split("\n"):
        if not line.startswith("#"):
            break
        count += 1
    return count
