"""`karez jobs attach`: a shell, or one command, beside a process of a running job."""

import contextlib
import importlib
import os
import shutil
import sys
import threading
from collections.abc import Iterator
from typing import Annotated

import typer

from karez.cli.client_options import JobName, client
from karez.cli.terminal import say
from karez.core.errors import KarezError, NotFound
from karez.core.tunnels import MAX_PIECE, Terminal, Tunnel, TunnelKind, TunnelPiece, TunnelSpec

RankOption = Annotated[int, typer.Option(help="Rank of the process.")]
_LEAVE = b"\x1d"
"""Ctrl-]: leaves a shell that does not answer, as in telnet."""


def attach(
    job: JobName,
    command: Annotated[list[str] | None, typer.Argument(help="Command to run, after --.")] = None,
    rank: RankOption = 0,
) -> None:
    """Open a shell beside a process of a running job, with its environment, folder and cores.

    The exit code is that of the shell. Ctrl-] leaves one that does not answer; the job goes on.

    Examples:
      karez jobs attach train

      karez jobs attach train --rank 1 -- nvidia-smi
    """
    is_terminal = sys.stdin.isatty() and sys.stdout.isatty()
    spec = TunnelSpec(
        kind=TunnelKind.SHELL,
        rank=rank,
        command=tuple(command or ()),
        terminal=_terminal() if is_terminal else None,
    )
    tunnel = client().open_tunnel(job, spec)
    with _closing(tunnel), _raw(is_terminal=is_terminal):
        left = threading.Event()
        threading.Thread(target=_send_input, args=(tunnel, left), daemon=True).start()
        code = _show_output(tunnel, left, spec.terminal)
    raise typer.Exit(code)


def _show_output(tunnel: Tunnel, left: threading.Event, size: Terminal | None) -> int:
    """Print what comes until the end; the exit code."""
    piece = TunnelPiece()
    while not piece.has_ended and not left.is_set():
        try:
            piece = client().tunnel_output(tunnel, piece.next)
        except NotFound:
            say(f"{tunnel.job} has ended, and this with it", err=True)
            return 1
        sys.stdout.buffer.write(piece.data)
        sys.stdout.buffer.flush()
        if size is not None and size != (now := _terminal()):
            size = now
            client().resize_tunnel(tunnel, size)
    return 0 if piece.exit_code is None else _as_shell(piece.exit_code)


def _as_shell(code: int) -> int:
    """An exit code as shells give it: 128 and the signal."""
    return 128 - code if code < 0 else code


def _send_input(tunnel: Tunnel, left: threading.Event) -> None:
    """Send what is typed or piped, until its end."""
    at = 0
    with contextlib.suppress(KarezError):  # the shell has ended: its output says so
        while not left.is_set():
            data = os.read(sys.stdin.fileno(), MAX_PIECE)
            if _LEAVE in data and sys.stdin.isatty():
                left.set()
            at = client().tunnel_input(tunnel, at, data, end=not data)
            if not data:
                return


def _terminal() -> Terminal:
    size = shutil.get_terminal_size()
    return Terminal(rows=size.lines, columns=size.columns)


@contextlib.contextmanager
def _closing(tunnel: Tunnel) -> Iterator[None]:
    try:
        yield
    finally:
        with contextlib.suppress(KarezError):  # it is closed with its job, or when nobody reads it
            client().close_tunnel(tunnel)


@contextlib.contextmanager
def _raw(*, is_terminal: bool) -> Iterator[None]:
    """Have the terminal pass every key on, as the shell's own terminal handles them."""
    if not is_terminal or sys.platform == "win32":
        yield
        return
    termios, tty = map(importlib.import_module, ("termios", "tty"))  # Windows has neither
    before = termios.tcgetattr(sys.stdin)
    try:
        tty.setraw(sys.stdin)
        yield
    finally:
        termios.tcsetattr(sys.stdin, termios.TCSADRAIN, before)
