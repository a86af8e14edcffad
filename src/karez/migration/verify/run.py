"""Runs the original and the migrated script under the recorder, each in a process of its own."""

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from karez.core.errors import BadRequest
from karez.migration.verify.compare import Record, Verdict, compare
from karez.migration.verify.recorder import ENVIRONMENT

TARGETS = ("emulated", "cpu", "cuda", "npu")
LAST_WORDS = 12


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


@dataclass(slots=True, kw_only=True)
class Outcome:
    """Both runs and what they say."""

    order: Order
    reference: Record
    target: Record
    verdict: Verdict
    operator: str = ""
    """The first operator that differs inside the first diverging module."""


def verify(order: Order, folder: Path, say: Callable[[str], object]) -> Outcome:
    """Run everything and compare.

    Raises:
        BadRequest: A script is missing or failed, or a record cannot be read.
    """
    if order.target not in TARGETS:
        raise BadRequest(problem=f"--target is one of {', '.join(TARGETS)}, not {order.target!r}")
    again: Record | None = None
    given = Path(order.reference)
    if given.is_dir():
        reference = _read(given)
    else:
        device = "cuda" if order.reference == "cuda" else "cpu"
        base = order.migrated if order.reference == "migrated" else order.original
        say(f"the reference on {device}: {base}")
        reference = _run(
            order, base, folder / "reference", device, order.reference_words, threads=1
        )
        say("the same with sums in another order, for its own spread")
        again = _run(order, base, folder / "again", device, order.reference_words, threads=2)
    say(f"the migrated script on {order.target}")
    target = _run(order, order.migrated, folder / "target", order.target, (), threads=1)
    verdict = compare(reference, target, again)
    found = Outcome(order=order, reference=reference, target=target, verdict=verdict)
    if verdict.first is not None and verdict.first.kind == "forward" and not given.is_dir():
        say(f"inside {verdict.first.name}, operator by operator")
        found.operator = _inside(order, folder, verdict.first.name)
    return found


def digest_of(folder: Path) -> str:
    """SHA-256 over the Python files of a folder, names included."""
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*.py")):
        digest.update(path.relative_to(folder).as_posix().encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


def _inside(order: Order, folder: Path, module: str) -> str:
    """The first operator whose inputs agree and whose result does not."""
    records = []
    base = order.migrated if order.reference == "migrated" else order.original
    for where, device, words, name in (
        (base, "cpu", order.reference_words, "inside-reference"),
        (order.migrated, order.target, (), "inside-target"),
    ):
        records.append(
            _run(order, where, folder / name, device, words, threads=1, inside=module, steps=1)
        )
    found = compare(records[0], records[1])
    for one in found.differences:
        if one.kind == "operator" and one.begins:
            return one.name.partition(" ")[2]
    return ""


def _run(  # noqa: PLR0913 - a run has that many sides
    order: Order, base: Path, folder: Path, device: str, more: Sequence[str], *, threads: int,
    inside: str = "", steps: int = 0,
) -> Record:  # fmt: skip
    script = base / order.words[0] if base.is_dir() else base
    if not script.is_file():
        raise BadRequest(
            problem=f"there is no {script}", fix="Name the script within both folders."
        )
    shutil.rmtree(folder, ignore_errors=True)
    said = {
        "steps": str(steps or order.steps), "threads": str(threads), "seed": "0", "inside": inside,
        "most": str(1 if inside else order.most), "fault": "",
    }  # fmt: skip
    env = {**os.environ, "OMP_NUM_THREADS": str(threads)}  # noqa: TID251 - handed on
    for name in ("KAREZ_EMUNPU", "KAREZ_EMUNPU_FAULTS", "KAREZ_EMUNPU_OPS"):
        env.pop(name, None)
    if device == "cpu":
        env |= {"CUDA_VISIBLE_DEVICES": "", "ASCEND_RT_VISIBLE_DEVICES": ""}
    if folder.name in ("target", "inside-target"):
        said["fault"] = order.fault
        env |= {"KAREZ_EMUNPU_FAULTS": order.operator_fault}
        if order.kernels is not None:
            env |= {"KAREZ_EMUNPU_OPS": str(order.kernels.resolve())}
    if device == "emulated":
        env |= {"KAREZ_EMUNPU": "1"}
    env |= {ENVIRONMENT[name]: value for name, value in said.items()}
    words = [
        sys.executable, "-m", "karez.migration.verify.recorder", str(folder.resolve()), "--",
        str(script.resolve()), *order.words[1:], *more,
    ]  # fmt: skip
    folder.mkdir(parents=True)
    try:
        done = subprocess.run(  # noqa: S603 - what the user asked for
            words, cwd=base if base.is_dir() else base.parent, env=env, check=False,
            capture_output=True, text=True, timeout=order.limit_s, stdin=subprocess.DEVNULL,
        )  # fmt: skip
    except subprocess.TimeoutExpired as error:
        raise BadRequest(
            problem=f"{script} on {device} took longer than {order.limit_s:.0f} s",
            fix="Give it fewer steps with its own options, or say --most N.",
        ) from error
    (folder / "output.txt").write_text(done.stdout + done.stderr)
    if done.returncode:
        words_left = "\n".join(done.stderr.strip().splitlines()[-LAST_WORDS:])
        raise BadRequest(
            problem=f"{script} failed on {device}:\n{words_left}",
            fix=_advice(done.stderr, device),
        )
    return _read(folder)


def _read(folder: Path) -> Record:
    at = folder / "rank-0" if (folder / "rank-0").is_dir() else folder
    try:
        return Record.read(at)
    except (OSError, KeyError, ValueError) as error:
        raise BadRequest(problem=f"{folder} holds no record: {error}") from error


def _advice(said: str, device: str) -> str:
    if device == "cpu" and ("CUDA" in said or "cuda" in said):
        return (
            "The original needs CUDA: pass its option for the CPU with --reference-args, or "
            "compare the migrated code with itself on the CPU: --reference migrated."
        )
    return "Run it by hand to see more."
