"""Seeds, report files and the progress bar of offline commands."""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from karez.cli.terminal import say
from karez.core.errors import BadRequest

MOST_SEEDS = 10_000


def parse_seeds(text: str) -> tuple[int, ...]:
    """Parse seeds such as `42-51` or `1,2,5-7`. Raises BadRequest."""
    seeds: list[int] = []
    for part in text.split(","):
        match = re.fullmatch(r"\s*([0-9]{1,9})(?:-([0-9]{1,9}))?\s*", part)
        if match is None:
            raise BadRequest(problem=f"--seeds {text!r} should read like 42-51 or 1,2,3")
        first = int(match[1])
        last = int(match[2] or first)
        if last < first or last - first + len(seeds) >= MOST_SEEDS:
            raise BadRequest(problem=f"--seeds {text!r} names none, or more than {MOST_SEEDS}")
        seeds.extend(range(first, last + 1))
    return tuple(seeds)


def write_page(path: Path | None, text: str, what: str = "report") -> None:
    """Write a report if there is a path. Raises BadRequest for an unwritable path."""
    if path is None:
        return
    try:
        path.write_text(text)
    except OSError as error:
        raise BadRequest(problem=f"cannot write {path}: {error.strerror}") from error
    say(f"{what}: {path}", err=True)


@contextmanager
def bar(what: str, total: int) -> Iterator[Callable[[int], None]]:
    """Show a progress bar on a terminal's standard error; call the result with the amount done."""
    from rich.console import Console  # noqa: PLC0415 - only where it is drawn
    from rich.progress import Progress  # noqa: PLC0415 - only where it is drawn

    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task(what, total=total)
        yield lambda done: progress.update(task, completed=done)
