"""Runs other programs of this host, and what they said."""

import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

TOO_LATE, NOT_THERE = 124, 127
"""Exit codes, as of timeout(1) and of a shell."""


def run_program(
    command: Sequence[str],
    limit_s: float,
    *,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
) -> tuple[int, str]:
    """Run a program without input; its exit code, and its output and errors together."""
    try:
        done = subprocess.run(  # noqa: S603 - programs of the operator's choice
            command,
            env=env,
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=limit_s,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return TOO_LATE, f"{command[0]} took longer than {limit_s:.0f} s"
    except OSError as error:
        return NOT_THERE, str(error)
    return done.returncode, done.stdout.decode(errors="replace")


def last_lines(output: str, count: int = 3) -> str:
    """The errors that a program printed last, or else its last lines, as one line."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    errors = [line for line in lines if line.lower().startswith("error")]
    return " ".join((errors or lines)[-count:])
