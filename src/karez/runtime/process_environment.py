"""The environment of this process: what its node has set for it."""

import os


def read(name: str, default: str = "") -> str:
    """Return a variable of this process's environment."""
    return os.environ.get(name, default)  # noqa: TID251 - the one place where a rank reads it
