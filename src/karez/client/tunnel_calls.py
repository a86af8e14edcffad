"""API requests as values: tunnels into running jobs."""

import uuid

from karez.client.calls import Call
from karez.client.paths import in_path
from karez.core.codec import to_json
from karez.core.tunnels import Terminal, Tunnel, TunnelSpec


def open_tunnel(ident: str, spec: TunnelSpec) -> Call[Tunnel]:
    """Open a shell beside a rank of a job, a connection to one of its ports, or a copy of files."""
    path, once = f"/jobs/{in_path(ident)}/tunnels", uuid.uuid4().hex
    return Call(answer=Tunnel, method="POST", path=path, body=to_json(spec), once=once)


def tunnel_input(tunnel: Tunnel, offset: int, data: bytes, *, end: bool = False) -> Call[int]:
    """Send bytes that begin at an offset; returns the offset of what was not taken yet."""
    path = f"/jobs/{tunnel.job}/tunnels/{tunnel.id}/input"
    params = {"offset": offset, "end": end}
    return Call(answer=int, method="POST", path=path, params=params, content=data, once="same")


def tunnel_output(tunnel: Tunnel, offset: int) -> Call[bytes]:
    """Get bytes from an offset on, as `core.tunnels.unpack_piece` reads them."""
    path = f"/jobs/{tunnel.job}/tunnels/{tunnel.id}/output"
    return Call(answer=bytes, method="GET", path=path, params={"offset": offset})


def resize_tunnel(tunnel: Tunnel, terminal: Terminal) -> Call[None]:
    """Tell a shell of another size of its terminal."""
    path = f"/jobs/{tunnel.job}/tunnels/{tunnel.id}/terminal"
    return Call(answer=None, method="PUT", path=path, body=to_json(terminal), once="same")


def close_tunnel(tunnel: Tunnel) -> Call[None]:
    """Close a tunnel."""
    path = f"/jobs/{tunnel.job}/tunnels/{tunnel.id}"
    return Call(answer=None, method="DELETE", path=path, once="same")
