"""Runs Python in a process with an emulated NPU, since a process that has one keeps it."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from karez.core import environment

ROOT = Path(__file__).parent.parent
GRANTED = {
    environment.DEVICE: "npu",
    environment.EMUNPU: "1",
    environment.EMUNPU_RANDOM: "own",
    environment.EMUNPU_MEMORY: str(64 << 20),
    "ASCEND_RT_VISIBLE_DEVICES": "3",
}
"""What the steward sets for a process that was granted an emulated NPU of 64 MiB."""


def run_granted(code: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run code that prints, with these variables instead of some of GRANTED."""
    return subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": str(ROOT), **GRANTED, **variables},
        capture_output=True,
        text=True,
        check=False,
    )


def answer_of(code: str, **variables: str) -> Any:
    """The JSON that code prints last. Raises AssertionError if it fails."""
    done = run_granted(code, **variables)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])
