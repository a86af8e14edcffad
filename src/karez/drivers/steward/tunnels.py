"""The open tunnels of a node; what they lead to is in tunnel_ends."""

import threading
from dataclasses import dataclass
from pathlib import Path

from karez.core.errors import BadRequest, NotFound
from karez.core.tunnels import (
    IDLE_S,
    MAX_TUNNELS,
    Terminal,
    TunnelKind,
    TunnelPiece,
    TunnelSpec,
)
from karez.core.workloads import WorkloadId
from karez.drivers.steward.process_launcher import ProcessLauncher
from karez.drivers.steward.process_orders import run_of
from karez.drivers.steward.process_table import ProcessTable, TrackedProcess
from karez.drivers.steward.tunnel_ends import (
    SHELL,
    FarEnd,
    open_copy_in,
    open_copy_out,
    open_port,
    open_shell,
)
from karez.drivers.steward.tunnel_streams import TunnelStreams

_LOOK_S = 1.0
_END_S = 10.0
"""Seconds to wait for the shells of a workload that is purged."""


@dataclass(frozen=True, slots=True)
class _Tunnel:
    workload: WorkloadId
    streams: TunnelStreams
    far: FarEnd


class NodeTunnels:
    """Opens, reads, writes and closes tunnels; see core.tunnels.Tunnels."""

    def __init__(self, table: ProcessTable, launcher: ProcessLauncher, memory: Path) -> None:
        """Open none yet; `memory` is a folder for sockets."""
        self._table, self._launcher, self._memory = table, launcher, memory
        self._lock = threading.Lock()
        self._opening: dict[str, threading.Event] = {}
        """Ids of tunnels that are being opened; set once they are, or cannot be."""
        self._dropped: set[WorkloadId] = set()
        """Workloads that were purged while tunnels were being opened."""
        self._tunnels: dict[str, _Tunnel] = {}
        threading.Thread(target=self._close_idle, daemon=True).start()

    def open(self, workload: WorkloadId, ident: str, spec: TunnelSpec, replica_server: str) -> None:
        """Open a tunnel; one that is open already stays. Raises NotFound, BadRequest."""
        with self._lock:
            if ident in self._tunnels:
                return
            other = self._opening.get(ident)
            if other is None:
                if len(self._tunnels) + len(self._opening) >= MAX_TUNNELS:
                    raise BadRequest(
                        problem=f"{MAX_TUNNELS} tunnels are open on this node",
                        fix="Close one of them, or try again in a minute.",
                    )
                self._opening[ident] = threading.Event()
        if other is not None:
            other.wait(_END_S)  # the same request, sent again
            return
        try:
            self._open(workload, ident, spec, replica_server)
        finally:
            with self._lock:
                self._opening.pop(ident).set()
                if not self._opening:
                    self._dropped.clear()

    def _open(
        self, workload: WorkloadId, ident: str, spec: TunnelSpec, replica_server: str
    ) -> None:
        process = self._process(workload, spec.rank)
        far = self._far_end(ident, process, spec, replica_server)
        streams = TunnelStreams(far.output, far.give, far.finish)
        far.wake = streams.wake
        tunnel = _Tunnel(workload, streams, far)
        with self._lock:
            is_late = workload in self._dropped or not process.info.alive
            if not is_late:
                self._tunnels[ident] = tunnel
        if is_late:
            self._end(ident, tunnel)
            raise NotFound(noun="process", name=f"{workload} rank {spec.rank}")

    def read(self, workload: WorkloadId, ident: str, offset: int) -> TunnelPiece:
        """Return output. Raises NotFound."""
        tunnel = self._find(workload, ident)
        data, after, is_end = tunnel.streams.read(offset, tunnel.far.is_over)
        far = tunnel.far
        return TunnelPiece(
            data=data,
            next=after,
            has_ended=is_end,
            exit_code=far.exit_code if is_end else None,
            problem=far.problem if is_end else "",
        )

    def write(
        self, workload: WorkloadId, ident: str, offset: int, data: bytes, *, end: bool
    ) -> int:
        """Take input. Raises NotFound."""
        return self._find(workload, ident).streams.write(offset, data, end=end)

    def resize(self, workload: WorkloadId, ident: str, terminal: Terminal) -> None:
        """Change the size of a shell's terminal. Raises NotFound."""
        self._find(workload, ident).far.resize(terminal)

    def close(self, workload: WorkloadId, ident: str) -> None:
        """Close a tunnel. Repeatable."""
        with self._lock:
            tunnel = self._tunnels.get(ident)
            if tunnel is None or tunnel.workload != workload:
                return
            del self._tunnels[ident]
        self._end(ident, tunnel)

    def _end(self, ident: str, tunnel: _Tunnel) -> None:
        tunnel.streams.close()
        self._launcher.kill_guest(_key(tunnel.workload, ident))
        tunnel.far.end()
        tunnel.streams.join()  # a descriptor that is closed before may be another's by then
        tunnel.far.close()

    def drop(self, workload: WorkloadId) -> None:
        """Close all tunnels of a workload, and wait until its shells have ended."""
        with self._lock:
            if self._opening:
                self._dropped.add(workload)
            gone = {key: one for key, one in self._tunnels.items() if one.workload == workload}
        for ident, tunnel in gone.items():
            self.close(workload, ident)
            tunnel.far.is_over.wait(_END_S)

    def stop(self) -> None:
        """Close all."""
        for ident, tunnel in list(self._tunnels.items()):
            self.close(tunnel.workload, ident)

    def _close_idle(self) -> None:
        """Close what nobody reads: whoever opened it is gone."""
        pause = threading.Event()
        while not pause.wait(_LOOK_S):
            for ident, tunnel in list(self._tunnels.items()):
                if tunnel.streams.count_idle(_LOOK_S) > IDLE_S:
                    self.close(tunnel.workload, ident)

    def _far_end(
        self, ident: str, process: TrackedProcess, spec: TunnelSpec, replica_server: str
    ) -> FarEnd:
        if spec.kind == TunnelKind.PORT:
            return open_port(process, spec.port)
        request = self._launcher.orders.again(run_of(process), replica_server)
        if spec.kind == TunnelKind.SHELL:
            key, path = _key(process.spec.workload, ident), self._memory / f"{ident}.sock"
            run = self._launcher.guest_of(process)
            beside = self._launcher.orders.beside(
                run_of(process), request, spec.command or SHELL, terminal=spec.terminal is not None
            )
            return open_shell(key, beside, spec, run, path)
        roots = self._launcher.orders.folders_of(process.spec.workload)
        act = open_copy_out if spec.kind == TunnelKind.COPY_OUT else open_copy_in
        return act(Path(request["cwd"]), roots, spec.path, request["user"])

    def _find(self, workload: WorkloadId, ident: str) -> _Tunnel:
        with self._lock:
            tunnel = self._tunnels.get(ident)
        if tunnel is None or tunnel.workload != workload:
            raise NotFound(noun="tunnel", name=ident)
        return tunnel

    def _process(self, workload: WorkloadId, rank: int) -> TrackedProcess:
        for process in self._table.alive():
            info = process.info
            if (info.workload, info.rank) == (workload, rank) and info.pid:
                return process
        raise NotFound(noun="process", name=f"{workload} rank {rank}")


def _key(workload: WorkloadId, ident: str) -> str:
    return f"{workload}.tunnel.{ident}"
