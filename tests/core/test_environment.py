import ast
import itertools
import re
from pathlib import Path

import pytest

from karez.core import environment
from karez.core.settings import Settings

ROOT = Path(__file__).parent.parent.parent
SRC = ROOT / "src" / "karez"
FILE = SRC / "core" / "environment.py"
NAMES = {
    value: name
    for name, value in vars(environment).items()
    if name.isupper() and isinstance(value, str) and name != "PREFIX"
}
SETTINGS = {environment.of_setting(field) for field in Settings.__slots__}


def literals(file: Path) -> list[str]:
    """Texts in code: those that stand alone as a statement are docstrings, and left out."""
    tree = ast.parse(file.read_text())
    said = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    return [
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in said
    ]


def test_every_constant_is_its_name_and_says_who_sets_and_who_reads_it() -> None:
    body = ast.parse(FILE.read_text()).body
    documented = {}
    for node, after in itertools.pairwise(body):
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            assert isinstance(after, ast.Expr), f"{node.target.id} has no docstring"
            assert isinstance(after.value, ast.Constant), node.target.id
            documented[node.target.id] = " ".join(str(after.value.value).split())
    assert set(documented) == {*NAMES.values(), "PREFIX"}
    for value, name in NAMES.items():
        assert value == f"KAREZ_{name}"
        for part in (" Set by: ", " Read by: ", " Default: "):
            assert part in documented[name], f"{name} does not say{part}"


@pytest.mark.parametrize("file", [f for f in sorted(SRC.rglob("*.py")) if f != FILE], ids=str)
def test_code_takes_names_from_that_file(file: Path) -> None:
    stray = [text for text in literals(file) if re.fullmatch(r"KAREZ_\w*", text)]
    assert not stray, f"take {stray} from karez.core.environment"
    for name in re.findall(r"KAREZ_[A-Z_]*[A-Z]", file.read_text()):
        assert name in NAMES or name in SETTINGS or name == "KAREZ_ENGINE", name


def test_the_manual_lists_every_name_and_no_other() -> None:
    manual = (ROOT / "docs" / "environment.md").read_text()
    rows = set(re.findall(r"^\| `(KAREZ_\w+)` \|", manual, re.M))
    assert rows == set(NAMES) | SETTINGS


def test_the_manual_says_of_each_name_what_its_constant_says() -> None:
    manual = (ROOT / "docs" / "environment.md").read_text()
    source = " ".join(FILE.read_text().split())
    rows = re.findall(r"^\| `KAREZ_(\w+)` \| (.+) \| (.+) \| (.+) \| (.+) \|$", manual, re.M)
    assert {name for name, *_ in rows} == set(NAMES.values())
    for name, meaning, setter, reader, default in rows:
        said = f'{name}: Final = "KAREZ_{name}" """{meaning} Set by: {setter}. Read by: {reader}.'
        assert f'{said} Default: {default}."""' in source, name
