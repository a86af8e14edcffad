"""Executes one run of a script on this machine."""

import os
import subprocess
import sys

from karez.core.errors import BadRequest
from karez.equivalence.run_spec import RunSpec

LAST_LINES = 12
"""Lines of a failed script's output that its error shows."""


def run_locally(piece: RunSpec) -> None:
    """Execute a run on this machine.

    Raises:
        BadRequest: The script failed, or took longer than its limit.
    """
    script = piece.base / piece.script if piece.base.is_dir() else piece.base
    env = {**os.environ, **piece.env}  # noqa: TID251 - the child process inherits it
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


def failed(piece: RunSpec, output: str) -> BadRequest:
    """The error for a script that failed, with the last lines of its output."""
    last = "\n".join(output.strip().splitlines()[-LAST_LINES:])
    script = piece.base / piece.script if piece.base.is_dir() else piece.base
    return BadRequest(
        problem=f"{script} failed on {piece.device}:\n{last}", fix=_advice(output, piece.device)
    )


def _advice(output: str, device: str) -> str:
    if device == "cpu" and ("CUDA" in output or "cuda" in output):
        return (
            "The original needs CUDA: pass its option for the CPU with --reference-args, or "
            "compare the migrated code with itself on the CPU: --reference migrated."
        )
    return "Run it by hand to see more."
