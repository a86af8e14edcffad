"""Runs the original and the migrated script under the recorder, each in a process of its own."""

import hashlib
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from karez.ascend.operator_support import documented
from karez.core import environment
from karez.core.errors import BadRequest
from karez.equivalence.compare import compare
from karez.equivalence.judgement import judge, read
from karez.equivalence.local_run import run_locally
from karez.equivalence.record import Record
from karez.equivalence.run_spec import ENVIRONMENT, TARGETS, Runner, RunSpec, VerifyRequest
from karez.equivalence.verdict import Verdict

_EMULATION = (
    environment.EMUNPU,
    environment.EMUNPU_FAULTS,
    environment.EMUNPU_OPS,
    environment.EMUNPU_CHIP,
    environment.EMUNPU_RANDOM,
)


@dataclass(slots=True, kw_only=True)
class Outcome:
    """Both runs and the verdict on them."""

    order: VerifyRequest
    reference: Record
    target: Record
    verdict: Verdict
    """Verdict on the first rank that is off, or on rank 0."""
    rank: int = 0
    operator: str = ""
    """The first operator that differs inside the first diverging module."""


def verify(
    order: VerifyRequest,
    folder: Path,
    say: Callable[[str], object],
    runners: Mapping[str, Runner] | None = None,
) -> Outcome:
    """Run everything and compare.

    Args:
        order: What is to be compared.
        folder: Where records go, one folder each.
        say: Called with a line before each run.
        runners: What executes `reference` and `target`; left out: this machine.

    Raises:
        BadRequest: A script is missing or failed, or a record cannot be read.
    """
    if order.target not in TARGETS:
        raise BadRequest(problem=f"--target is one of {', '.join(TARGETS)}, not {order.target!r}")
    if order.chip:
        try:
            documented("add", order.chip)
        except ValueError as error:
            raise BadRequest(problem=str(error), fix="Leave out --chip, or name one.") from error
    run = _Runs(order=order, folder=folder, runners=runners or {})
    again: Path | None = None
    reference = Path(order.reference)
    was_given = reference.is_dir()
    if not was_given:
        say(f"the reference on {run.reference_device}: {run.reference_base}")
        reference = run.reference("reference", threads=1)
        say("the same with sums in another order, for its own spread")
        again = run.reference("again", threads=2)
    say(f"the migrated script on {order.target}")
    found = _judged(order, reference, run.target("target"), again)
    first = found.verdict.first
    if first is not None and first.kind == "forward" and not was_given:
        say(f"inside {first.name}, operator by operator")
        found.operator = run.inside(first.name, found.rank)
    return found


def _judged(order: VerifyRequest, reference: Path, target: Path, again: Path | None) -> Outcome:
    """Judge all ranks, up to the first that is off."""
    for rank in reversed(range(order.ranks)):
        left, right = read(reference, rank), read(target, rank)
        verdict = judge(left, right, read(again, rank) if again else None)
        if not verdict.is_lossless:
            break
    return Outcome(order=order, reference=left, target=right, verdict=verdict, rank=rank)


def compare_folders(
    reference: Path, target: Path, again: Path | None = None, rank: int = 0
) -> Outcome:
    """Judge one record by another, without running anything.

    Args:
        reference: What is right: a record, or a dump of msprobe.
        target: What is judged.
        again: A second record of the reference, for its own spread.
        rank: Which process's.

    Raises:
        BadRequest: One cannot be read, or they have nothing in common.
    """
    left, right = read(reference, rank), read(target, rank)
    verdict = judge(left, right, read(again, rank) if again else None)
    order = VerifyRequest(
        original=reference,
        migrated=target,
        words=(),
        reference="record",
        target="record",
        steps=max((row["step"] for row in left.rows), default=-1) + 1,
    )
    return Outcome(order=order, reference=left, target=right, verdict=verdict)


def digest_of(folder: Path) -> str:
    """SHA-256 over a folder's Python files, or all where it has none; names included."""
    digest = hashlib.sha256()
    files = [path for path in folder.rglob("*") if path.is_file()]
    for path in sorted([path for path in files if path.suffix == ".py"] or files):
        digest.update(path.relative_to(folder).as_posix().encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Runs:
    """Executes the runs of one request."""

    order: VerifyRequest
    folder: Path
    runners: Mapping[str, Runner]

    @property
    def reference_device(self) -> str:
        return "cuda" if self.order.reference == "cuda" else "cpu"

    @property
    def reference_base(self) -> Path:
        order = self.order
        return order.migrated if order.reference == "migrated" else order.original

    def reference(self, name: str, *, threads: int, inside: str = "") -> Path:
        env = self._env(threads=threads, inside=inside)
        if self.reference_device == "cpu":
            env |= {"CUDA_VISIBLE_DEVICES": "", "ASCEND_RT_VISIBLE_DEVICES": ""}
        words = (*self.order.words[1:], *self.order.reference_words)
        return self._run("reference", name, self.reference_base, words, env)

    def target(self, name: str, *, inside: str = "") -> Path:
        order = self.order
        env = self._env(threads=1, inside=inside)
        env[ENVIRONMENT["fault"]] = order.fault
        env[environment.EMUNPU_FAULTS] = order.operator_fault
        if order.kernels is not None:
            env[environment.EMUNPU_OPS] = str(order.kernels.resolve())
        if order.target == "emulated":
            env |= {
                environment.EMUNPU: "1",
                environment.EMUNPU_CHIP: order.chip,
                environment.EMUNPU_RANDOM: "shared",  # both sides draw the same numbers
            }
        if order.target == "cpu":
            env |= {"CUDA_VISIBLE_DEVICES": "", "ASCEND_RT_VISIBLE_DEVICES": ""}
        return self._run("target", name, order.migrated, order.words[1:], env)

    def inside(self, module: str, rank: int) -> str:
        """The first operator of a module whose inputs agree and whose result does not."""
        found = compare(
            read(self.reference("inside-reference", threads=1, inside=module), rank),
            read(self.target("inside-target", inside=module), rank),
        )
        for one in found.differences:
            if one.kind == "operator" and one.begins:
                return one.name.partition(" ")[2]
        return ""

    def _env(self, *, threads: int, inside: str) -> dict[str, str]:
        order = self.order
        said = {
            "steps": str(1 if inside else order.steps),
            "threads": str(threads),
            "seed": "0",
            "inside": inside,
            "most": str(1 if inside else order.most),
            "fault": "",
        }
        quiet = dict.fromkeys(_EMULATION, "")
        named = {ENVIRONMENT[name]: value for name, value in said.items()}
        return {**quiet, **named, "OMP_NUM_THREADS": str(threads)}

    def _run(
        self, side: str, name: str, base: Path, words: Sequence[str], env: Mapping[str, str]
    ) -> Path:
        script = base / self.order.words[0] if base.is_dir() else base
        if not script.is_file():
            raise BadRequest(
                problem=f"there is no {script}", fix="Name the script within both folders."
            )
        folder = self.folder / name
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        piece = RunSpec(
            base=base,
            script=self.order.words[0],
            words=words,
            device=self.reference_device if side == "reference" else self.order.target,
            env=env,
            folder=folder,
            limit_s=self.order.limit_s,
            ranks=self.order.ranks,
        )
        self.runners.get(side, run_locally)(piece)
        return folder
