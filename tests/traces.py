"""Real traces, where this machine has them: KAREZ_TRACES names their folder."""

import os
from pathlib import Path

import pytest

FOLDER = Path(
    os.environ.get("KAREZ_TRACES", Path(__file__).parent.parent.parent / "shared" / "traces")
)


def trace(name: str) -> Path:
    """A file of the traces folder; skips the test where there is none."""
    path = FOLDER / name
    if not path.exists():
        pytest.skip(f"no {name} in {FOLDER}; set KAREZ_TRACES")
    return path
