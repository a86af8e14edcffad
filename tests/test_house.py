"""What a linter cannot count. The lists of exceptions may only shrink."""

import ast
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from karez.cli.main import COMMANDS
from karez.core.errors import every_error
from karez.core.settings import Settings
from karez.migration.analyze import examine

ROOT = Path(__file__).parent.parent
SRC = ROOT / "src" / "karez"
FILES = sorted(SRC.rglob("*.py"))
MOST = {"noqa": 170, "fmt: skip": 0, "type: ignore": 55}
"""Suppressions in src, tests and benchmarks. These numbers may only fall."""
SEARCHED = {
    "admission": "admission",
    "affinity": "affinity",
    "all-reduce": "all_?reduce",
    "authorization": "authorization",
    "backfill": "backfill",
    "checkpoint": "checkpoint",
    "controller": "controller",
    "decision log": "decision_log",
    "defragmentation": "defrag",
    "device discovery": "probe",
    "elastic": "elastic",
    "eviction": "evict",
    "fair share": "fair_share",
    "feasibility": "feasib",
    "fork server": "fork_server",
    "gateway": "gateway",
    "hang": "hang_",
    "heartbeat": "heartbeat",
    "lease": "lease",
    "loader": "loader",
    "node health": "node_health",
    "orphan": "orphan",
    "placement": "placement",
    "preemption": "preempt",
    "process group": "process_group",
    "project": "project",
    "queue": "queue",
    "quota": "quota",
    "rendezvous": "rendezvous",
    "replica": "replica",
    "replication": "replicat",
    "reshard": "reshard",
    "scheduler": "scheduler",
    "session": "session",
    "sidecar": "sidecar",
    "snapshot": "snapshot",
    "state machine": "transitions",
    "straggler": "straggl",
    "supervisor": "supervisor",
    "watchdog": "hang_monitor",
}
LONG_FILES: frozenset[str] = frozenset()
LONG_FUNCTIONS = frozenset(  # numba kernels: their signatures are arrays, one by one
    {
        "scheduling/placement/scores_numba.py:refresh",
        "scheduling/placement/scores_numba.py:_gradient",
    }
)


def test_no_file_is_too_long_to_hold_in_the_head() -> None:
    long = {str(f.relative_to(SRC)) for f in FILES if len(f.read_text().splitlines()) > 400}
    assert long == LONG_FILES


def test_no_function_is_too_long_to_see_at_once() -> None:
    assert {name for name, length in functions_of(FILES) if length > 60} == LONG_FUNCTIONS


def functions_of(files: Iterable[Path]) -> Iterator[tuple[str, int]]:
    """(file:function, lines) of every function, nested ones included."""
    for file in files:
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                name = f"{file.relative_to(SRC)}:{node.name}"
                yield name, (node.end_lineno or 0) - node.lineno + 1


def test_sizes_stay_where_they_are_easy_to_read() -> None:
    """95 of 100 files have at most 250 lines, and 95 of 100 functions at most 25."""
    files = sorted(len(f.read_text().splitlines()) for f in FILES if f.stat().st_size > 200)
    assert files[int(0.95 * len(files))] <= 250
    functions = sorted(length for _, length in functions_of(FILES))
    assert functions[int(0.95 * len(functions))] <= 25


def test_suppressions_only_become_fewer() -> None:
    counts = Counter(
        word
        for file in [*FILES, *(ROOT / "tests").rglob("*.py"), *(ROOT / "benchmarks").glob("*.py")]
        if "scripts" not in file.parts
        for word in re.findall(r"# (noqa|fmt: skip|type: ignore)", file.read_text())
        if file != Path(__file__)
    )
    assert {word: counts[word] for word in MOST} == {
        word: min(counts[word], most) for word, most in MOST.items()
    }


@pytest.mark.parametrize("term", SEARCHED)
def test_a_term_that_people_search_for_is_a_file_name(term: str) -> None:
    """Terms of Kubernetes, Slurm and PyTorch users; docs/glossary.md has their meaning here."""
    names = [str(file.relative_to(SRC)) for file in FILES]
    assert any(re.search(SEARCHED[term], name) for name in names), term


def test_every_room_says_what_it_is_for() -> None:
    """One sentence says what a room does, a second paragraph what it never does."""
    said: dict[str, str] = {}
    for room in (path for path in SRC.iterdir() if path.is_dir() and path.name != "__pycache__"):
        text = ast.get_docstring(ast.parse((room / "__init__.py").read_text())) or ""
        first, _, rest = text.partition("\n\n")
        assert re.fullmatch(r".{20,100}\.", first), f"{room.name}: {first}"
        assert re.search(r"(?i)\b(never|no|nothing|only)\b", rest), f"{room.name}: {rest}"
        assert first not in said, f"{room.name} says what {said[first]} does"
        said[first] = room.name


def test_every_error_has_a_code_of_its_own_and_a_line_in_the_manual() -> None:
    manual = (ROOT / "docs" / "errors.md").read_text()
    codes = [error.code for error in every_error()]
    assert len(set(codes)) == len(codes)
    for code in codes:
        assert f"`{code}`" in manual, code


def test_every_setting_and_command_is_in_the_operators_guide() -> None:
    guide = (ROOT / "docs" / "operators-guide.md").read_text()
    for name in Settings.__slots__:
        assert f"`{name}`" in guide, name
    for command in COMMANDS:
        assert f"karez {command}" in guide, command


def test_the_cli_starts_without_the_server_and_its_libraries() -> None:
    heavy = "('fastapi', 'torch', 'ray', 'httpx', 'sqlalchemy', 'pydantic')"
    code = f"import sys, karez.cli.main; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


RAW = ("cli/output.py", "cli/remote/cloud_process.py", "cli/remote/logs.py", "cli/terminal.py")
"""Print as it is what they have made safe, or what asks for it."""


def test_what_users_wrote_goes_to_a_terminal_through_say_alone() -> None:
    """`karez.cli.terminal.say` escapes what would steer a terminal; typer.echo does not."""
    raw = [str(file.relative_to(SRC)) for file in FILES if "typer.echo(" in file.read_text()]
    assert sorted(raw) == sorted(RAW)


def test_the_project_speaks_of_itself_alone() -> None:
    for file in [*FILES, ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]:
        text = file.read_text()
        for word in ("/work/", "shared/notes", "TODO", "FIXME"):
            assert word not in text, f"{file}: {word}"


SUBJECT = ("migration/", "equivalence/", "emulated_npu/", "tuning/", "drivers/")
"""Rooms whose subject CUDA and NPUs are."""


def test_only_the_device_module_and_rooms_of_the_subject_are_bound_to_a_vendor() -> None:
    bound = []
    for file in FILES:
        name = str(file.relative_to(SRC))
        if not name.startswith((*SUBJECT, "runtime/device.py")):
            found = examine(name, file.read_text()).findings
            bound += [f"{name}:{f.line} {f.code}" for f in found if f.kind != "keep"]
    assert not bound, "ask karez.runtime.device, or move it to a room of the subject"
