"""What a repository needs of Ascend: fitting releases of torch_npu and CANN, and operators."""

from karez.ascend import operator_support, version_matrix
from karez.ascend.stacks import Stack
from karez.migration.repo_report import RepoReport

STACKS = 3
"""Stacks that a report lists at most."""


def fitting_stacks(report: RepoReport) -> tuple[list[Stack], str]:
    """Return the newest fitting stack for each CANN, and a note on the torch required."""
    stacks = version_matrix.resolve({"torch": report.torch} if report.torch else {})
    required = f"torch{report.torch}" if report.torch else "any torch"
    note = f"It asks for {required}."
    if not stacks:
        stacks = version_matrix.resolve({})
        note = f"It asks for {required}, for which no torch_npu is published: it has to be lifted."
    first = {stack.cann: stack for stack in reversed(stacks)}
    return list(reversed(first.values()))[:STACKS], note


def operators_to_check(report: RepoReport) -> list[operator_support.Support]:
    """Return the operators of a repository that NPUs may not support."""
    return operator_support.worth_a_look(api for file in report.files for api in file.apis)
