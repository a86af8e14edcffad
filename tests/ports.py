"""Ports of loopback for the tests: each worker of pytest-xdist has a range of its own."""

import itertools
import os
import socket

FIRST, EACH = 20_000, 3_000
"""Four ranges below 32,768, where Linux begins to hand out ports by itself, to Ray among others."""
_WORKER = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % 4
_NUMBERS = itertools.count(os.getpid() * 7)  # another run of the tests may be under way


def free_port() -> int:
    """A port that nobody listens on, another one with every call."""
    for number in itertools.islice(_NUMBERS, EACH):
        port = FIRST + _WORKER * EACH + number % EACH
        try:
            with socket.create_server(("127.0.0.1", port)):
                return port
        except OSError:
            continue
    raise OSError(f"no port is free from {FIRST + _WORKER * EACH} on")
