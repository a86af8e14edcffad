"""How a process is told of its emulated device: by its environment."""

import os
from functools import cache


def read(name: str, default: str = "") -> str:
    """Return a variable of this process's environment."""
    return os.environ.get(name, default)  # noqa: TID251 - a device has no other settings


@cache
def visible_count() -> int:
    """Return the number of devices that this process sees.

    Whichever it uses is its own: each of several processes on a node takes another one.
    """
    visible = read("ASCEND_RT_VISIBLE_DEVICES")
    return len(visible.split(",")) if visible else int(read("LOCAL_WORLD_SIZE", "1"))
