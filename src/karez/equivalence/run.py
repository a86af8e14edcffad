"""Runs the original and the migrated script under the recorder, each in a process of its own."""

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from karez.ascend.operator_support import documented
from karez.core import environment
from karez.core.errors import BadRequest
from karez.equivalence.compare import Record, Verdict, compare
from karez.equivalence.recorder import ENVIRONMENT
from karez.equivalence.records import judge, read

TARGETS = ("emulated", "cpu", "cuda", "npu")
RECORDER = "karez.equivalence.recorder"
LAST_WORDS = 12
_EMULATION = (
    environment.EMUNPU,
    environment.EMUNPU_FAULTS,
    environment.EMUNPU_OPS,
    environment.EMUNPU_CHIP,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What is to be compared, and how."""

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
class Piece:
    """One run under the recorder."""

    base: Path
    """A folder, or the script itself."""
    script: str
    """Within the folder."""
    words: Sequence[str]
    """The script's arguments."""
    device: str
    env: Mapping[str, str]
    folder: Path
    """Where the record is to be; empty when it begins."""
    limit_s: float
    ranks: int = 1

    def command(self, python: str, folder: str, script: str) -> list[str]:
        """What to run, by torchrun where there are several ranks."""
        run = ["-m", RECORDER, folder, "--", script, *self.words]
        if self.ranks == 1:
            return [python, *run]
        start = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={self.ranks}"]
        return [python, *start, *run]


Runner = Callable[[Piece], None]
"""Carries a piece out, here or on the pool. Raises BadRequest with the script's last words."""


@dataclass(slots=True, kw_only=True)
class Outcome:
    """Both runs and what they say."""

    order: Order
    reference: Record
    target: Record
    verdict: Verdict
    """Of the first rank that is off, or of rank 0."""
    rank: int = 0
    operator: str = ""
    """The first operator that differs inside the first diverging module."""


def verify(
    order: Order,
    folder: Path,
    say: Callable[[str], object],
    runners: Mapping[str, Runner] | None = None,
) -> Outcome:
    """Run everything and compare.

    Args:
        order: What is to be compared.
        folder: Where records go, one folder each.
        say: Told what is being done.
        runners: For `reference` and `target`: who runs it; left out: this machine.

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


def _judged(order: Order, reference: Path, target: Path, again: Path | None) -> Outcome:
    """All ranks, up to the first that is off."""
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
    order = Order(
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


def here(piece: Piece) -> None:
    """Run it on this machine."""
    script = piece.base / piece.script if piece.base.is_dir() else piece.base
    env = {**os.environ, **piece.env}  # noqa: TID251 - handed on
    words = piece.command(sys.executable, str(piece.folder.resolve()), str(script.resolve()))
    try:
        done = subprocess.run(  # noqa: S603 - what the user asked for
            words,
            cwd=script.parent if piece.base.is_file() else piece.base,
            env=env,
            check=False,
            capture_output=True,
            text=True,
            timeout=piece.limit_s,
            stdin=subprocess.DEVNULL,
        )
    except subprocess.TimeoutExpired as error:
        raise BadRequest(
            problem=f"{script} on {piece.device} took longer than {piece.limit_s:.0f} s",
            fix="Give it fewer steps with its own options, or say --most N.",
        ) from error
    (piece.folder / "output.txt").write_text(done.stdout + done.stderr)
    if done.returncode:
        raise failed(piece, done.stderr)


def failed(piece: Piece, said: str) -> BadRequest:
    """What to raise where a script did not end well, with its last words."""
    last = "\n".join(said.strip().splitlines()[-LAST_WORDS:])
    script = piece.base / piece.script if piece.base.is_dir() else piece.base
    return BadRequest(
        problem=f"{script} failed on {piece.device}:\n{last}", fix=_advice(said, piece.device)
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Runs:
    """The runs of one order."""

    order: Order
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
            env |= {environment.EMUNPU: "1", environment.EMUNPU_CHIP: order.chip}
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
        piece = Piece(
            base=base,
            script=self.order.words[0],
            words=words,
            device=self.reference_device if side == "reference" else self.order.target,
            env=env,
            folder=folder,
            limit_s=self.order.limit_s,
            ranks=self.order.ranks,
        )
        self.runners.get(side, here)(piece)
        return folder


def _advice(said: str, device: str) -> str:
    if device == "cpu" and ("CUDA" in said or "cuda" in said):
        return (
            "The original needs CUDA: pass its option for the CPU with --reference-args, or "
            "compare the migrated code with itself on the CPU: --reference migrated."
        )
    return "Run it by hand to see more."
