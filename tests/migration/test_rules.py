"""Every rule on code it must find, under other names, and on code it must leave alone."""

import ast
from typing import Any

import pytest

from karez.migration.analyze import ScanOptions, apply, examine
from karez.migration.findings import FileReport, Kind, Target
from karez.migration.rules.api_rule import Api
from karez.migration.rules.catalogue import APIS, CATALOGUE, by_node
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


def test_every_rule_has_an_id_of_its_own_a_short_reason_and_fixtures() -> None:
    assert len({rule.id() for rule in CATALOGUE}) == len(CATALOGUE) >= 100
    covered = {*FOUND, *(r.id() for r in (*APIS, *LIBRARIES, *NAMED))}
    assert {rule.id() for rule in CATALOGUE} == covered
    assert all(len(rows) + len(NOT_FOUND[rule]) >= 4 for rule, rows in FOUND.items())
    assert all(rule.reason() and len(rule.reason()) < 200 for rule in CATALOGUE)


ORDER = {
    ast.Constant: (
        "tensor-type-string",
        "autocast-device",
        "device-format",
        "nccl-mixed",
        "nccl-choice",
        "nccl-backend",
        "nccl-string",
        "environment-name",
        "nvidia-program",
        "operator-device",
        "device-literal",
        "device-choices",
        "device-variable",
        "device-map",
        "device-key",
        "cuda-string",
        "cuda-path",
        "mentions-cuda",
    ),
    ast.Compare: ("device-comparison", "nccl-comparison"),
    ast.Call: (
        "default-tensor-type",
        "tensor-type-method",
        "tensor-type-check",
        "cuda-by-name",
        "cuda-method",
        "device-index",
        "device-with-index",
        "device-prefix",
        "double-method",
        "autocast-state",
        "fork-with-device",
        "data-pointer",
    ),
    ast.FunctionDef: ("cuda-method-defined", "triton-kernel", "mentions-cuda"),
    ast.keyword: (
        "model-device-map",
        "profiler-flag",
        "pin-device",
        "cuda-optimizer",
        "tf32-option",
        "attention-choice",
        "quantised-loading",
        "mentions-cuda",
    ),
}


@pytest.mark.parametrize("kind", ORDER, ids=lambda kind: kind.__name__)
def test_rules_for_one_kind_of_node_are_tried_in_a_fixed_order(kind: type[ast.AST]) -> None:
    assert tuple(rule.id() for rule in by_node()[kind]) == ORDER[kind]


def test_rules_for_imports_try_torch_first_then_libraries_then_any_compiled_module() -> None:
    for kind in (ast.Import, ast.ImportFrom):
        ids_in_order = [rule.id() for rule in by_node()[kind]]
        known = [rule.id() for rule in CATALOGUE if issubclass(rule, Library) and rule.modules]
        assert ids_in_order[0] in ("cuda-import", "cuda-from-import")
        first_after = ids_in_order.index("compiled-module")
        assert set(known) <= set(ids_in_order[:first_after])


def test_a_later_rule_does_not_report_what_an_earlier_one_has_claimed() -> None:
    assert "cuda-string" not in ids(look("x.to('cuda')"))
    assert "compiled-module" not in ids(look("import selective_scan_cuda"))
    assert "mentions-cuda" not in ids(look("torch.cuda.synchronize()"))


@pytest.mark.parametrize(("rule", "code", "after"), ROWS)
def test_a_rule_reports_its_construct_and_rewrites_it_once(
    rule: str, code: str, after: str | None
) -> None:
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
def test_a_rule_does_not_report_similar_code(rule: str, code: str) -> None:
    assert rule not in ids(look(code))


def of_api(rule: Any) -> tuple[str, str]:
    """A name of torch.cuda, and what it is called with."""
    name = rule.names[0].removeprefix("torch.cuda.")
    is_value = rule.id() in ("cuda-out-of-memory", "cuda-default-generators", "cuda-nvtx")
    return name, "" if is_value else "()"


@pytest.mark.parametrize("rule", APIS, ids=lambda rule: rule.id())
def test_names_of_torch_cuda_are_found_under_every_alias(rule: type[Api]) -> None:
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
def test_libraries_are_found_under_every_form_of_import(rule: Any) -> None:
    for module in rule.modules:
        for code in (f"import {module}", f"import {module} as m", f"from {module} import x"):
            assert rule.id() in ids(look(code)), code
        assert rule.id() not in ids(look(f"from .{module} import x"))
        assert rule.id() not in ids(look(f"import {module}_other"))
        own = ScanOptions(own=frozenset({module.split(".")[0]}))
        assert rule.id() not in ids(examine("a.py", f"import {module}\n", own))


@pytest.mark.parametrize("rule", NAMED, ids=lambda rule: rule.id())
def test_settings_and_types_are_found_by_their_full_names(rule: Any) -> None:
    names = [*rule.names, *(PARTS.get(start, start) for start in rule.prefixes)]
    for name in names:
        tail = name.removeprefix("torch.")
        for code in (name, f"x = {name}", f"import torch as t\nt.{tail}", f"f(a={name})"):
            assert rule.id() in ids(look(code)), code
        assert rule.id() not in ids(look(f"mine.{tail}"))


def test_a_keep_comment_prevents_the_rewrite_of_a_line() -> None:
    report = examine("a.py", "import torch\nx.cuda()  # karez: keep\ny.cuda()\n")
    kinds = {one.line: one.kind for one in report.findings}
    assert kinds == {2: Kind.KEEP, 3: Kind.AUTOMATIC}
    assert not next(one for one in report.findings if one.line == 2).edits


def test_a_file_that_supports_npus_already_is_not_rewritten() -> None:
    code = "import torch\nif is_torch_npu_available():\n    x.npu()\nelse:\n    x.cuda()\n"
    report = examine("a.py", code)
    assert report.is_portable
    assert not any(one.edits for one in report.findings)


def test_a_syntax_error_is_reported_with_its_line() -> None:
    report = examine("a.py", "import torch\nprint 'cuda'\n")
    assert report.error.startswith("SyntaxError in line 2")
    assert not report.findings


def test_the_generated_module_gets_another_name_if_the_file_uses_its_name() -> None:
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
def test_a_check_that_guards_a_kernel_is_not_rewritten_automatically(code: str, kind: Kind) -> None:
    mine = [one for one in look(code).findings if one.rule == "cuda-is-available"]
    assert [one.kind for one in mine] == [kind]
    assert bool(mine[0].question) == (kind == Kind.ASSISTED)
