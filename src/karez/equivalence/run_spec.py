"""What a verification runs: the request, and each run under the recorder."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from karez.core import environment

TARGETS = ("emulated", "cpu", "cuda", "npu")
RECORDER = "karez.equivalence.recorder"
ENVIRONMENT = {
    "steps": environment.VERIFY_STEPS,
    "threads": environment.VERIFY_THREADS,
    "seed": environment.VERIFY_SEED,
    "inside": environment.VERIFY_INSIDE,
    "fault": environment.VERIFY_FAULT,
    "most": environment.VERIFY_MOST,
}
"""Setting of a run -> the variable that hands it to the recorder."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifyRequest:
    """A request to compare the original with the migrated script."""

    original: Path
    migrated: Path
    words: Sequence[str]
    """Script and arguments, within both folders."""
    reference: str = "cpu"
    """`cpu` or `cuda`, `migrated` (the migrated code on the CPU), or the folder of a record."""
    target: str = "emulated"
    steps: int = 3
    most: int = 0
    reference_words: Sequence[str] = ()
    """Further arguments for the reference, such as --device=cpu."""
    limit_s: float = 3600.0
    fault: str = ""
    """A module of the migrated run to spoil, as name=share; for tests."""
    operator_fault: str = ""
    """An operator of the emulated device to spoil, as aten::name:share; for tests."""
    kernels: Path | None = None
    """Strict mode: a file with the operators that the emulated device has."""
    chip: str = ""
    """Strict mode: what this chip is documented not to compute raises, by type too."""
    ranks: int = 1
    """Processes; more than one are started by torchrun, on one machine."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSpec:
    """One run of a script under the recorder."""

    base: Path
    """A folder, or the script itself."""
    script: str
    """Path of the script within `base`."""
    words: Sequence[str]
    """The script's arguments."""
    device: str
    env: Mapping[str, str]
    folder: Path
    """Folder of the record; empty at the start of the run."""
    limit_s: float
    ranks: int = 1

    def command(self, python: str, folder: str, script: str) -> list[str]:
        """The command line, by torchrun where there are several ranks."""
        run = ["-m", RECORDER, folder, "--", script, *self.words]
        if self.ranks == 1:
            return [python, *run]
        start = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={self.ranks}"]
        return [python, *start, *run]


Runner = Callable[[RunSpec], None]
"""Executes a run, here or on the pool. Raises BadRequest with the last lines of the output."""
