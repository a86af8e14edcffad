"""What a fork server imports here: below it the first process finds no place for another one.

Before that, the server has forked the first process of the sandbox.
"""

import errno
import os

_fork, _server = os.fork, os.getpid()
_count = 0


def fork() -> int:
    """Fork; in the first child of the fork server, fail."""
    global _count
    is_server = os.getpid() == _server
    if not is_server and _count == 2:
        raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))
    _count += is_server
    return _fork()


os.fork = fork
