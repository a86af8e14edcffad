"""Tunnels into running jobs: who may open one, and on which node it is."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from karez.core.errors import BadRequest, NotFound, Unreachable
from karez.core.identity import Principal, Role
from karez.core.nodes import NodeId
from karez.core.ports import Clock, Fabric, NodeLost
from karez.core.tunnels import Terminal, Tunnel, TunnelPiece, TunnelSpec
from karez.core.workloads import ACTIVE, WorkloadId
from karez.server.services.idempotency import workload_id
from karez.server.services.jobs import JobService

T = TypeVar("T")
PATIENCE_S = 10.0
"""Seconds to wait for a node that does not answer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TunnelService:
    """Opens tunnels, and passes bytes between their ends.

    Nothing is remembered here: the id of a tunnel says its rank, the job on which node that is, so
    a tunnel outlives the control process.
    """

    jobs: JobService
    clock: Clock
    fabric: Callable[[], Fabric | None]
    """The nodes, once they are connected."""

    def open(
        self, who: Principal, ident: str, spec: TunnelSpec, *, idempotency_key: str = ""
    ) -> Tunnel:
        """Open a tunnel; the same idempotency key of the same user gives the same one.

        Raises NotAllowed, NotFound, BadRequest, Unreachable.
        """
        job = self.jobs.one(who, ident)
        self.jobs.permissions.require(who, job.spec.project, Role.MEMBER)
        if job.state not in ACTIVE:
            fix = f"It must be running; `karez why {job.id}` says what it waits for."
            raise BadRequest(problem=f"{job.id} is {job.state}", fix=fix)
        nodes = {view.rank: view.node for view in job.status.ranks}
        if spec.rank not in nodes:
            known = ", ".join(map(str, sorted(nodes))) or "none yet"
            fix = f"Its ranks are: {known}."
            raise BadRequest(problem=f"{job.id} has no rank {spec.rank}", fix=fix)
        node = nodes[spec.rank]
        tunnel = workload_id(str(spec.rank), who, idempotency_key)
        self._ask(node, lambda nodes: nodes.open_tunnel(node, job.id, tunnel, spec))
        return Tunnel(id=tunnel, job=job.id, rank=spec.rank, node=node)

    def write(
        self, who: Principal, ident: str, tunnel: str, offset: int, data: bytes, *, end: bool
    ) -> int:
        """Take input; returns the offset of what was not taken. Raises as `read`."""
        node, job = self._place(who, ident, tunnel)
        return self._ask(
            node, lambda nodes: nodes.write_tunnel(node, job, tunnel, offset, data, end)
        )

    def read(self, who: Principal, ident: str, tunnel: str, offset: int) -> TunnelPiece:
        """Return output. Raises NotAllowed, NotFound, Unreachable."""
        node, job = self._place(who, ident, tunnel)
        return self._ask(node, lambda nodes: nodes.read_tunnel(node, job, tunnel, offset))

    def resize(self, who: Principal, ident: str, tunnel: str, terminal: Terminal) -> None:
        """Change the size of a terminal. Raises as `read`."""
        node, job = self._place(who, ident, tunnel)
        self._ask(node, lambda nodes: nodes.resize_tunnel(node, job, tunnel, terminal))

    def close(self, who: Principal, ident: str, tunnel: str) -> None:
        """Close a tunnel. Raises as `read`."""
        node, job = self._place(who, ident, tunnel)
        self._ask(node, lambda nodes: nodes.close_tunnel(node, job, tunnel))

    def _place(self, who: Principal, ident: str, tunnel: str) -> tuple[NodeId, WorkloadId]:
        """The node of a tunnel, and its job."""
        job = self.jobs.one(who, ident)
        self.jobs.permissions.require(who, job.spec.project, Role.MEMBER)
        rank = tunnel.partition("-")[0]
        for view in job.status.ranks:
            if str(view.rank) == rank and job.state in ACTIVE:
                return view.node, job.id
        raise NotFound(noun="tunnel", name=tunnel)

    def _ask(self, node: NodeId, act: Callable[[Fabric], T]) -> T:
        """Ask the nodes; waits while control has just started and knows none yet."""
        deadline = self.clock.now() + PATIENCE_S
        while True:
            fabric = self.fabric()
            try:
                if fabric is None:
                    raise NodeLost(node)
                return act(fabric)
            except NodeLost as error:
                if self.clock.now() > deadline:
                    raise Unreachable(what_is_it="The node", address=node) from error
                self.clock.pause(0.2)
