"""Every rule on code it must find, under other names, and on code it must leave alone."""

import ast
from typing import Any

import pytest

from karez.migration.analyze import ScanOptions, apply, examine
from karez.migration.findings import FileReport, Kind, Target
from karez.migration.rules.api_rule import Api
from karez.migration.rules.catalogue import APIS, CATALOGUE
from karez.migration.rules.library_rule import Library
from karez.migration.rules.precision import NamesRule
from karez.migration.shim import NAMES, write_shim
from tests.migration.cases import FOUND, NOT_FOUND, PARTS

HEAD = "import torch\n"
LIBRARIES = [rule for rule in CATALOGUE if issubclass(rule, Library) and rule.modules]
NAMED = [rule for rule in CATALOGUE if issubclass(rule, NamesRule) and rule.id() not in FOUND]
ROWS = [(rule, code, after) for rule, rows in FOUND.items() for code, after in rows]
NEGATIVES = [(rule, code) for rule, codes in NOT_FOUND.items() for code in codes]


def look(code: str, target: Target = Target.AGNOSTIC) -> FileReport:
    return examine("a.py", HEAD + code + "  # cuda nccl\n", ScanOptions(target=target))


def ids(report: FileReport) -> set[str]:
    assert not report.error, report.error
    return {one.rule for one in report.findings}


def rewritten(report: FileReport, code: str) -> str:
    edits = [e for one in report.findings if one.kind == Kind.AUTOMATIC for e in one.edits]
    text = apply(HEAD + code + "  # cuda nccl\n", edits)
    ast.parse(text)
    return text.removeprefix(HEAD).replace("  # cuda nccl", "").rstrip("\n")


def test_the_catalogue_is_as_large_as_it_says_and_every_rule_has_fixtures() -> None:
    assert len({rule.id() for rule in CATALOGUE}) == len(CATALOGUE) >= 100
    covered = {*FOUND, *(r.id() for r in (*APIS, *LIBRARIES, *NAMED))}
    assert {rule.id() for rule in CATALOGUE} == covered
    assert all(len(rows) + len(NOT_FOUND[rule]) >= 4 for rule, rows in FOUND.items())
    assert all(rule.reason() and len(rule.reason()) < 200 for rule in CATALOGUE)


@pytest.mark.parametrize(("rule", "code", "after"), ROWS)
def test_what_is_found_and_what_becomes_of_it(rule: str, code: str, after: str | None) -> None:
    report = look(code)
    assert rule in ids(report), [(one.rule, one.code) for one in report.findings]
    if after is None:
        mine = [one for one in report.findings if one.rule == rule]
        assert all(one.kind != Kind.AUTOMATIC for one in mine)
        return
    text = rewritten(report, code)
    assert text.rstrip() == after.rstrip()
    again = look(text)
    assert not [one for one in again.findings if one.kind == Kind.AUTOMATIC and one.edits]


@pytest.mark.parametrize(("rule", "code"), NEGATIVES)
def test_what_is_not_found(rule: str, code: str) -> None:
    assert rule not in ids(look(code))


def of_api(rule: Any) -> tuple[str, str]:
    """A name of torch.cuda, and what it is called with."""
    name = rule.names[0].removeprefix("torch.cuda.")
    is_value = rule.id() in ("cuda-out-of-memory", "cuda-default-generators", "cuda-nvtx")
    return name, "" if is_value else "()"


@pytest.mark.parametrize("rule", APIS, ids=lambda rule: rule.id())
def test_names_of_torch_cuda_under_every_alias(rule: type[Api]) -> None:
    name, call = of_api(rule)
    ways = {
        "torch": f"torch.cuda.{name}{call}",
        "alias": f"import torch as th\nth.cuda.{name}{call}",
        "module": f"import torch.cuda as tc\ntc.{name}{call}",
        "from": f"from torch import cuda\ncuda.{name}{call}",
        "local": f"def f():\n    import torch.cuda as c\n    return c.{name}{call}",
    }
    for way, code in ways.items():
        report = look(code)
        assert rule.id() in ids(report), (way, [one.rule for one in report.findings])
        if rule.kind == Kind.AUTOMATIC:
            after = rewritten(report, code)
            assert "cuda" not in after, (way, after)
            assert not [one for one in look(after).findings if one.edits], after
            for one in report.findings:
                assert one.needs <= NAMES, one.needs
                compile(write_shim(one.needs), "_device.py", "exec")
    for code in (f"mine.cuda.{name}{call}", f"def f(torch):\n    return torch.cuda.{name}{call}"):
        assert rule.id() not in ids(look(code))
    if rule.npu:
        report = look(ways["torch"], Target.NPU)
        edits = [e.text for one in report.findings for e in one.edits]
        assert edits == [rule.npu] or rule.kind != Kind.AUTOMATIC


@pytest.mark.parametrize("rule", LIBRARIES, ids=lambda rule: rule.id())
def test_libraries_for_cuda(rule: Any) -> None:
    for module in rule.modules:
        for code in (f"import {module}", f"import {module} as m", f"from {module} import x"):
            assert rule.id() in ids(look(code)), code
        assert rule.id() not in ids(look(f"from .{module} import x"))
        assert rule.id() not in ids(look(f"import {module}_other"))
        own = ScanOptions(own=frozenset({module.split(".")[0]}))
        assert rule.id() not in ids(examine("a.py", f"import {module}\n", own))


@pytest.mark.parametrize("rule", NAMED, ids=lambda rule: rule.id())
def test_names_of_switches_and_types(rule: Any) -> None:
    names = [*rule.names, *(PARTS.get(start, start) for start in rule.prefixes)]
    for name in names:
        tail = name.removeprefix("torch.")
        for code in (name, f"x = {name}", f"import torch as t\nt.{tail}", f"f(a={name})"):
            assert rule.id() in ids(look(code)), code
        assert rule.id() not in ids(look(f"mine.{tail}"))


def test_a_comment_keeps_a_line_as_it_is() -> None:
    report = examine("a.py", "import torch\nx.cuda()  # karez: keep\ny.cuda()\n")
    kinds = {one.line: one.kind for one in report.findings}
    assert kinds == {2: Kind.KEEP, 3: Kind.AUTOMATIC}
    assert not next(one for one in report.findings if one.line == 2).edits


def test_a_file_that_serves_npus_already_is_left_alone() -> None:
    code = "import torch\nif is_torch_npu_available():\n    x.npu()\nelse:\n    x.cuda()\n"
    report = examine("a.py", code)
    assert report.is_portable
    assert not any(one.edits for one in report.findings)


def test_a_file_that_cannot_be_parsed_says_where() -> None:
    report = examine("a.py", "import torch\nprint 'cuda'\n")
    assert report.error.startswith("SyntaxError in line 2")
    assert not report.findings


def test_names_that_are_taken_are_not_used() -> None:
    report = examine("a.py", "import torch\n_device = 1\nx.cuda()\n")
    assert report.shim == "_karez_device"
    assert any("_karez_device.type" in e.text for one in report.findings for e in one.edits)


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("if torch.cuda.is_available():\n    import my_cuda", Kind.ASSISTED),
        ("if torch.cuda.is_available():\n    from .triton_ops import f", Kind.ASSISTED),
        ("if not torch.cuda.is_available():\n    import my_cuda", Kind.AUTOMATIC),
        ("if torch.cuda.is_available():\n    from torch.cuda import amp", Kind.AUTOMATIC),
        ("if torch.cuda.is_available():\n    x = x.to(d)", Kind.AUTOMATIC),
    ],
)
def test_a_question_that_guards_a_kernel_stays_a_question(code: str, kind: Kind) -> None:
    mine = [one for one in look(code).findings if one.rule == "cuda-is-available"]
    assert [one.kind for one in mine] == [kind]
    assert bool(mine[0].question) == (kind == Kind.ASSISTED)
