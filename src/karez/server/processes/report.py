"""What a program tells the command that started it."""

from collections.abc import Callable

Report = Callable[[dict[str, object]], None]
"""Takes a message, which becomes one line of JSON."""
