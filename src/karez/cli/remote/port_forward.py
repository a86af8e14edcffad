"""`karez port-forward`: a port of a running job on this machine."""

import contextlib
import socket
import threading
from typing import Annotated

import typer

from karez.cli.client_options import JobName, client
from karez.cli.remote.attach import RankOption
from karez.cli.terminal import say
from karez.core.errors import BadRequest, KarezError
from karez.core.tunnels import MAX_PIECE, Tunnel, TunnelKind, TunnelPiece, TunnelSpec

app = typer.Typer()


@app.command()
def port_forward(
    job: JobName,
    ports: Annotated[str, typer.Argument(help="LOCAL:REMOTE, or one port for both.")],
    rank: RankOption = 0,
) -> None:
    """Reach a port on which a running job listens, at the same or another port of this machine.

    Only this machine can connect. Ctrl-C ends it.

    Example: karez port-forward train 6006
    """
    local, remote = _ports(ports)
    _try(job, rank, remote)
    try:
        listener = socket.create_server(("127.0.0.1", local))
    except OSError as error:
        fix = f"Choose another one here: karez port-forward {job} {local + 10_000}:{remote}"
        raise BadRequest(problem=f"port {local} of this machine is taken", fix=fix) from error
    with listener:
        number = listener.getsockname()[1]
        say(f"http://127.0.0.1:{number} is port {remote} of {job}; Ctrl-C ends this")
        with contextlib.suppress(KeyboardInterrupt):
            while True:
                connection, _ = listener.accept()
                serve = threading.Thread(
                    target=_serve, args=(connection, job, rank, remote), daemon=True
                )
                serve.start()


def _try(job: str, rank: int, remote: int) -> None:
    """Raise what keeps the port from being reached."""
    tunnel = client().open_tunnel(job, TunnelSpec(kind=TunnelKind.PORT, rank=rank, port=remote))
    client().close_tunnel(tunnel)


def _serve(connection: socket.socket, job: str, rank: int, remote: int) -> None:
    """Carry one connection's bytes both ways."""
    spec = TunnelSpec(kind=TunnelKind.PORT, rank=rank, port=remote)
    with connection:
        try:
            tunnel = client().open_tunnel(job, spec)
        except KarezError as error:
            say(f"{error}", err=True)
            return
        threading.Thread(target=_send, args=(connection, tunnel), daemon=True).start()
        try:
            piece = TunnelPiece()
            while not piece.has_ended:
                piece = client().tunnel_output(tunnel, piece.next)
                connection.sendall(piece.data)
        except (KarezError, OSError) as error:
            say(f"a connection has ended: {error}", err=True)
        with contextlib.suppress(OSError):
            connection.shutdown(socket.SHUT_RDWR)  # closing alone waits for who reads it
        with contextlib.suppress(KarezError):
            client().close_tunnel(tunnel)


def _send(connection: socket.socket, tunnel: Tunnel) -> None:
    at = 0
    with contextlib.suppress(KarezError, OSError):  # the other direction says why
        while data := connection.recv(MAX_PIECE):
            at = client().tunnel_input(tunnel, at, data)
        client().tunnel_input(tunnel, at, b"", end=True)


def _ports(text: str) -> tuple[int, int]:
    local, colon, remote = text.partition(":")
    numbers = (local, remote if colon else local)
    if not all(number.isdecimal() and int(number) < 1 << 16 for number in numbers) or not int(
        numbers[1]
    ):
        raise BadRequest(problem=f"{text!r} should be a port, or LOCAL:REMOTE")
    return int(numbers[0]), int(numbers[1])


APPS = {"port-forward": app}
