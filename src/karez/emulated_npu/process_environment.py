"""How a process is told of its emulated device: by its environment."""

import os


def read(name: str, default: str = "") -> str:
    """Return a variable of this process's environment."""
    return os.environ.get(name, default)  # noqa: TID251 - a device has no other settings
