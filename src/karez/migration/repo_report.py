"""The report of a repository: findings, figures, and whether a rewrite makes sense."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from karez.migration.findings import FileReport, Finding, Kind
from karez.migration.repo_facts import RepoFacts

PORTABLE_SHARE = 0.25
"""Share of portable files from which a repository is portable by design."""
KERNEL_SHARE = 0.35
"""Share of kernel lines above which a repository is mainly kernels."""
FEW = 3


@dataclass(slots=True, kw_only=True)
class RepoReport:
    """Findings and figures of a repository."""

    root: str
    files: list[FileReport] = field(default_factory=list)
    skipped: list[tuple[str, str]] = field(default_factory=list)
    """Files that were not read, with the reason."""
    paths: tuple[str, ...] = ()
    """Paths of all Python files."""
    code_lines: int = 0
    """Lines of Python, C++ and CUDA."""
    torch: str = ""
    """Version specifier of torch in the requirements; empty: none was recognized."""

    facts: RepoFacts = field(default_factory=RepoFacts)

    @property
    def findings(self) -> Iterator[Finding]:
        """Yield all findings, in order of files and lines."""
        for report in self.files:
            yield from report.findings

    @property
    def counts(self) -> Counter[Kind]:
        """Number of findings of each kind."""
        return Counter(finding.kind for finding in self.findings)

    @property
    def lines(self) -> int:
        """Number of lines read."""
        return sum(report.lines for report in self.files)

    @property
    def portable(self) -> tuple[str, ...]:
        """Paths of files that support other devices already."""
        return tuple(report.path for report in self.files if report.is_portable)

    @property
    def is_portable(self) -> bool:
        """Whether the repository is portable by design, with some files left to rewrite."""
        bound = [r for r in self.files if _is_bound(r) and not r.is_portable]
        ported = len(self.portable)
        return bool(bound) and ported >= max(FEW, PORTABLE_SHARE * (ported + len(bound)))

    @property
    def kernel_lines(self) -> int:
        """Number of lines of CUDA, Triton and C++ for CUDA."""
        return sum(report.kernel_lines for report in self.files)

    @property
    def is_about_kernels(self) -> bool:
        """Whether the repository is mainly kernels, which cannot be rewritten automatically."""
        return self.kernel_lines > KERNEL_SHARE * max(1, self.code_lines)

    @property
    def refusal(self) -> str:
        """Why the repository should not be rewritten; empty: no objection."""
        if self.is_portable:
            count = len(self.portable)
            return f"{count} of its files serve other devices already: it is portable by design."
        if self.is_about_kernels:
            share = 100 * self.kernel_lines / max(1, self.code_lines)
            return (
                f"{self.kernel_lines} lines, {share:.0f}% of its code, are kernels for CUDA: what "
                "they do has to be written for NPUs first, and then the rest is small."
            )
        return ""


def _is_bound(report: FileReport) -> bool:
    """Whether a file has constructs to rewrite."""
    return any(f.kind == Kind.AUTOMATIC and f.edits for f in report.findings)
