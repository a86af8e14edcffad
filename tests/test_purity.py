"""Pure rooms decide from their arguments alone: an allow-list of imports and calls."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

SRC = Path(__file__).parent.parent / "src" / "karez"
PURE_ROOMS = ("core", "scheduling", "simulation", "training/recovery")
ALLOWED = frozenset(
    {
        "abc",
        "base64",
        "bisect",
        "collections",
        "collections.abc",
        "contextlib",
        "csv",
        "dataclasses",
        "datetime",
        "decimal",
        "enum",
        "functools",
        "hashlib",
        "heapq",
        "html",
        "ipaddress",
        "itertools",
        "json",
        "math",
        "numpy",
        "numpy.typing",
        "operator",
        "pathlib",
        "re",
        "statistics",
        "string",
        "tomllib",
        "types",
        "typing",
        "typing_extensions",
        "zlib",
    }
)
"""What a pure module may import beside pure modules: nothing that has a clock, chance or I/O."""
ALSO_ALLOWED = {
    "core/gguf_header.py": frozenset({"struct"}),
    "core/alerts.py": frozenset({"fnmatch", "urllib.parse"}),  # match names, take URLs apart
    "core/codec.py": frozenset({"annotated_types", "pydantic"}),
    "core/receipts.py": frozenset(
        {"cryptography.exceptions", "cryptography.hazmat.primitives.asymmetric.ed25519"}
    ),
    "core/pipelines.py": frozenset({"graphlib"}),
    "core/safetensors_header.py": frozenset({"struct"}),
    "core/tensorboard_events.py": frozenset({"struct"}),
    "core/slurm_script.py": frozenset({"shlex"}),  # reads words as a shell does
    "studio/architectures/rows.py": frozenset({"difflib"}),
    "serving/answers.py": frozenset({"http", "orjson"}),  # phrases of statuses
    "serving/forced_tools.py": frozenset({"orjson"}),
    "serving/guarded_stream.py": frozenset({"orjson"}),
    "serving/guards.py": frozenset({"orjson"}),
    "serving/text_patterns.py": frozenset({"regex"}),
    "serving/model_call.py": frozenset({"orjson"}),
    "serving/prefix_affinity.py": frozenset({"orjson", "xxhash"}),
    "serving/stream_log.py": frozenset({"orjson"}),
    "scheduling/placement/scores_numba.py": frozenset({"numba"}),
}
OLD_NAMES = frozenset({"karez.training.worker.state"})
"""Modules of karez 0.1 that stored snapshots name."""
REFUSED_NAMES = frozenset(
    {
        "__import__",
        "breakpoint",
        "compile",
        "eval",
        "exec",
        "globals",
        "input",
        "open",
        "print",
        "vars",
    }
)
REFUSED_METHODS = frozenset(
    {
        "exists",
        "fromfile",
        "genfromtxt",
        "glob",
        "iterdir",
        "loadtxt",
        "memmap",
        "mkdir",
        "now",
        "open",
        "read_bytes",
        "read_text",
        "rglob",
        "savetxt",
        "stat",
        "today",
        "tofile",
        "touch",
        "unlink",
        "utcnow",
        "write_bytes",
        "write_text",
    }
)
"""Methods of paths, files, datetimes and NumPy that reach outside."""


def pure_modules() -> list[Path]:
    """Every module of a pure room, and every other module whose docstring says that it is pure."""
    return [path for path in sorted(SRC.rglob("*.py")) if _in_pure_room(path) or _says_pure(path)]


def _in_pure_room(path: Path) -> bool:
    return str(path.relative_to(SRC)).startswith(tuple(f"{room}/" for room in PURE_ROOMS))


def _says_pure(path: Path) -> bool:
    return "Pure." in (ast.get_docstring(ast.parse(path.read_text())) or "")


def impurities(text: str, extra: frozenset[str] = frozenset()) -> Iterator[str]:
    """What in a module's text reaches outside its arguments."""
    tree = ast.parse(text)
    modules: set[str] = set()
    for node in ast.walk(tree):
        match node:
            case ast.Import(names=names):
                modules |= {alias.asname or alias.name.split(".")[0] for alias in names}
                yield from (f"imports {a.name}" for a in names if a.name not in ALLOWED | extra)
            case ast.ImportFrom(module=name, level=0) if name is not None:
                if name.split(".")[0] != "karez" and name not in ALLOWED | extra:
                    yield f"imports {name}"
            case ast.Call(func=ast.Name(id=name)) if name in REFUSED_NAMES:
                yield f"calls {name}()"
            case ast.Call(func=ast.Name(id="getattr"), args=[ast.Name(id=name), *_]) if (
                name in modules
            ):
                yield f"calls getattr() on the module {name}"
            case ast.Call(func=ast.Attribute(attr=name)) if name in REFUSED_METHODS:
                yield f"calls .{name}()"
            case ast.Name(id="__builtins__" | "__loader__" | "__spec__" as name):
                yield f"names {name}"


@pytest.mark.parametrize("path", pure_modules(), ids=lambda path: str(path.relative_to(SRC)))
def test_a_pure_module_reaches_nothing_outside(path: Path) -> None:
    extra = ALSO_ALLOWED.get(str(path.relative_to(SRC)), frozenset())
    assert list(impurities(path.read_text(), extra)) == []


def test_pure_modules_import_only_pure_modules_of_karez() -> None:
    pure = {_module(path) for path in pure_modules()}
    packages = {name.rpartition(".")[0] for name in pure}
    for path in pure_modules():
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("karez"):
                named = {f"{node.module}.{alias.name}" for alias in node.names}
                assert node.module in pure | packages or named <= pure, f"{path}: {node.module}"


def _module(path: Path) -> str:
    parts = path.relative_to(SRC.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@pytest.mark.parametrize(
    "text",
    [
        "import uuid",
        "import secrets",
        "import threading",
        "import urllib.request",
        "import os\nos.getpid()",
        "open('x').read()",
        "import importlib\nimportlib.import_module('time')",
        "from importlib.util import find_spec",
        "import mmap",
        "__import__('time').time()",
        "import numpy\ngetattr(numpy, 'fromfile')('x')",
        "from pathlib import Path\nPath('x').read_text()",
        "from datetime import datetime\ndatetime.now()",
        "eval('1')",
        "def f() -> None:\n    import time",
    ],
)
def test_ways_around_purity_are_refused(text: str) -> None:
    assert list(impurities(text))


def test_what_pure_modules_do_is_not_refused() -> None:
    text = "import numpy as np\nfrom dataclasses import dataclass\nx = np.zeros(3).sum()"
    assert list(impurities(text)) == []


def test_no_module_names_a_higher_room_by_string() -> None:
    """A module path in a string is an import that import-linter does not see."""
    for path in sorted(SRC.rglob("*.py")):
        room = path.relative_to(SRC).parts[0]
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                named = node.value.partition(":")[0]
                if named in OLD_NAMES:
                    continue
                if named.startswith("karez.") and " " not in named and "/" not in named:
                    assert _may_name(room, named.split(".")[1]), f"{path}: {node.value}"


def _may_name(room: str, named: str) -> bool:
    layers = (
        ("server", "cli", "console"),
        ("experiments",),
        ("client",),
        ("studio",),
        ("simulation",),
        ("training", "serving", "federation"),
        ("tuning",),
        ("migration", "equivalence", "checkpoints", "emulated_npu"),
        ("ascend",),
        ("vault",),
        ("scheduling", "store", "drivers", "runtime"),
        ("transport",),
        ("core",),
    )
    depth = {name: number for number, names in enumerate(layers) for name in names}
    return named not in depth or room == named or depth.get(room, 0) <= depth[named]
