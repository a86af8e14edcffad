"""Places where an edit that is right elsewhere may change what a program does.

An automatic finding there becomes a question.
"""

import ast
import re
from collections.abc import Sequence

from karez.migration.findings import Finding
from karez.migration.repo_facts import SCRIPTED
from karez.migration.rules.expressions import string
from karez.migration.rules.site import Site

_FAKE_MODE = re.compile(r"FakeTensorMode|fake_mode")
_FAKE = re.compile(r"(?i)mock|fake|stub|dummy")
_MOCKS = re.compile(r"\bmock\.|\bpatch(\.object)?\(|monkeypatch\.(setattr|setenv|delattr)")
_SKIPS = re.compile(r"(?i)skip(_?if|_?unless)$")
_SOURCE_KEPT = re.compile(r"\bpersistent_class\b|\bregister_for_auto_class\b|\btorch\.package\b")
_SCOPES = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
_AVAILABLE = "torch.cuda.is_available"


def doubt(node: ast.AST, finding: Finding, site: Site) -> str:
    """What a person has to answer before an automatic finding is rewritten; empty: nothing."""
    above = list(site.source.above(node))
    uses_module = any(f"{site.shim}." in edit.text for edit in finding.edits)
    if uses_module and _SOURCE_KEPT.search(site.source.text):
        return "The source of classes here is stored with a model: does the reader have the import?"
    if uses_module and _is_scripted(above, site, is_autocast="autocast" in finding.rule):
        return "TorchScript cannot call functions of other modules."
    if any(isinstance(a, (ast.With, ast.AsyncWith)) and _is_fake_mode(a, site) for a in above):
        return "Tensors here are fakes of a device that need not exist: does its name matter?"
    if any(isinstance(a, ast.Call) and _SKIPS.search(_name(a.func)) for a in above):
        return "Does the test hold on every accelerator, or on CUDA alone?"
    if _is_of_a_fake(node, above):
        return "The value describes a fake: does what is tested compare it?"
    function = next((a for a in above if isinstance(a, _SCOPES[:2])), None)
    if function is not None:
        marks: list[ast.AST] = [*function.decorator_list, function]
        text = " ".join(site.source.code(part) for part in marks)
        if _MOCKS.search(text) and "cuda" in text:
            return "The test pretends that there is CUDA: which calls does it replace now?"
    return ""


def half_made(found: Sequence[tuple[ast.AST, Finding]], site: Site) -> set[ast.AST]:
    """Nodes whose edits make no sense alone: a condition without the device that it chooses.

    `"cuda" if torch.cuda.is_available() else "cpu"` is rewritten whole or not at all.
    """
    left: set[ast.AST] = set()
    made = {node: one for node, one in found if one.edits and not one.question}
    asks = {node for node, one in found if one.question and string(node) is not None}
    for node in made:
        branch = _branch_of(node, site)
        if branch is None or site.source.dotted(node) != _AVAILABLE:
            continue
        inside = {inner for part in branch for inner in ast.walk(part)}
        if inside & asks:
            left.add(node)
    for node in set(made) - left:
        choice = site.source.parent(node)
        while isinstance(choice, ast.BoolOp):
            choice = site.source.parent(choice)
        if string(node) is None or not isinstance(choice, ast.IfExp) or node is choice.test:
            continue
        tests = [n for n in ast.walk(choice.test) if site.source.dotted(n) == _AVAILABLE]
        if tests and not any(test in made and test not in left for test in tests):
            left.add(node)
    return left


def _branch_of(node: ast.AST, site: Site) -> list[ast.AST] | None:
    """What a check chooses between: both values of an `if` expression, or both blocks."""
    inside = node
    for around in site.source.above(node):
        if isinstance(around, ast.IfExp) and inside is around.test:
            return [around.body, around.orelse]
        if isinstance(around, ast.If) and inside is around.test:
            short: list[ast.AST] = [*around.body, *around.orelse]
            return short if len(short) <= 2 else None  # a block does more than choose
        if isinstance(around, ast.stmt):
            return None
        inside = around
    return None


def _is_scripted(above: Sequence[ast.AST], site: Site, *, is_autocast: bool) -> bool:
    scripted = site.facts.scripted | set(SCRIPTED.findall(site.source.text))
    names = {a.name for a in above if isinstance(a, _SCOPES)}
    functions = [a for a in above if isinstance(a, _SCOPES[:2])]
    if not functions:
        return False
    if names & scripted or any(_has_mark(a, site) for a in above if isinstance(a, _SCOPES)):
        return True
    is_method = any(isinstance(a, ast.ClassDef) for a in above)
    is_some_model = "jit.script" in site.source.text or any(name.islower() for name in scripted)
    return is_method and is_some_model and is_autocast


def _has_mark(scope: ast.AST, site: Site) -> bool:
    marks = [*getattr(scope, "decorator_list", ()), *getattr(scope, "bases", ())]
    return any("jit." in (site.source.dotted(mark) or "") for mark in marks)


def _is_fake_mode(block: ast.With | ast.AsyncWith, site: Site) -> bool:
    return any(_FAKE_MODE.search(site.source.code(item.context_expr)) for item in block.items)


def _is_of_a_fake(node: ast.AST, above: Sequence[ast.AST]) -> bool:
    if string(node) is None:
        return False
    for around in above:
        if isinstance(around, ast.Call):
            return bool(_FAKE.search(_name(around.func)))
        if isinstance(around, ast.Assign):
            return any(_FAKE.search(ast.unparse(target)) for target in around.targets)
        if isinstance(around, ast.stmt):
            return False
    return False


def _name(node: ast.AST) -> str:
    if isinstance(node, ast.Attribute):
        return node.attr
    return node.id if isinstance(node, ast.Name) else ""
