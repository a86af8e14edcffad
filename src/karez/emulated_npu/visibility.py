"""Which emulated devices a process sees."""

from functools import cache

from karez.runtime.process_environment import read


@cache
def visible_count() -> int:
    """Return the number of devices that this process sees.

    Whichever it uses is its own: each of several processes on a node takes another one.
    """
    visible = read("ASCEND_RT_VISIBLE_DEVICES")
    return len(visible.split(",")) if visible else int(read("LOCAL_WORLD_SIZE", "1"))
