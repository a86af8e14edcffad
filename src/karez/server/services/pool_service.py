"""The pool: explains waits, answers what-if questions, and changes nodes."""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from karez.core.containers import LABEL
from karez.core.errors import BadRequest, NotFound
from karez.core.explanations import DefragResult, Explanation, SuggestedChange, WhatIf, WhatIfResult
from karez.core.gangs import GangSpec
from karez.core.identity import EVERYWHERE, Principal
from karez.core.jobs import Job
from karez.core.nodes import Isolation, MaintenanceWindow, NodeId, NodeOverride, NodeState
from karez.core.ports import Clock
from karez.core.services import Replica, Service
from karez.core.stores.store import Store
from karez.core.workloads import ACTIVE, Allocation, State, WorkloadId
from karez.scheduling.explain.feasibility import empty_pool, infeasible_reason
from karez.scheduling.placement.capacity import Pool
from karez.server.controllers.scheduler import Scheduler
from karez.server.services.lookup import find_workload
from karez.server.services.permissions import visible_projects
from karez.serving.service_loads import ServiceLoads

IDENT = re.compile(r"\b(?:job|svc)-[0-9a-f]{10}(?:_\d+)?\b")
EMPTY_POOL_S = 5.0
"""Seconds for which the capacity of the empty pool is cached."""


@dataclass(slots=True, kw_only=True)
class PoolService:
    """Questions about the pool, and changes of its nodes."""

    store: Store
    clock: Clock
    scheduler: Scheduler
    wake: Callable[[], None]
    """Runs the scheduler at once."""
    loads: ServiceLoads = field(default_factory=ServiceLoads)
    _empty: tuple[float, Pool] | None = field(default=None)

    def why(self, who: Principal, ident: str) -> Explanation:
        """Explain the state of a job or service; of an array, that of its first queued job.

        Of a service, that of its first queued replica.

        Workloads of other projects are counted, but not named to users who may not see them.
        Raises NotFound, AmbiguousName.
        """
        item = self._first_queued(find_workload(self.store.workloads, who, ident))
        status = item.status
        why = self.scheduler.explain(item.id) if item.state == State.QUEUED else None
        if why is None:
            reason = status.reason or (status.end or "")
            if item.state == State.QUEUED:
                reason = "it starts with the next pass of the scheduler"
            if isinstance(item, Service):
                load = self.loads.describe(item.spec.project, item.spec.name, self.clock.now())
                reason = "; ".join(filter(None, (reason, load, *status.notices)))
            return Explanation(id=item.id, name=item.spec.name, state=item.state, reason=reason)
        shown = [holder for holder in why.holders if who.sees(holder.project)]
        return replace(
            why,
            name=item.spec.name,
            reason=self._redact(who, why.reason),
            holders=tuple(replace(holder, name=self._name(holder.id)) for holder in shown),
            changes=tuple(self._named(c) for c in why.changes if not self._is_hidden(who, c)),
        )

    def allocations(self, who: Principal) -> Mapping[WorkloadId, Allocation]:
        """Current allocations of the workloads that a key may see."""
        workloads = self.store.workloads
        found, projects = workloads.allocations(), visible_projects(who)
        if projects is None:
            return found
        active = tuple(ACTIVE)
        own: list[Job | Replica] = [
            *workloads.jobs(projects=projects, states=active, limit=len(found)),
            *self.store.replicas.live(projects=projects, ended_since=math.inf),
        ]
        seen = {one.id for one in own}
        return {ident: held for ident, held in found.items() if ident in seen}

    def _first_queued(self, item: Job | Service) -> Job | Service | Replica:
        """The first queued job of an array, or replica of a service; else what is given."""
        if isinstance(item, Service):
            live = self.store.replicas.live(service=item.id, ended_since=math.inf)
            return next((one for one in live if one.state == State.QUEUED), item)
        if item.array is None:
            return item
        return self.store.workloads.first_queued(item.id) or item

    def what_if(self, question: WhatIf) -> WhatIfResult:
        """Answer what a hypothetical change would do. Raises NotFound."""
        return self.scheduler.what_if(question)

    def defragment(self, *, carry_out: bool) -> DefragResult:
        """Plan moves that free whole nodes; with `carry_out`, request these moves."""
        answer = self.scheduler.defragment(carry_out=carry_out)
        if carry_out:
            self.wake()
        return answer

    def set_node(self, node: str, state: NodeState) -> None:
        """Cordon, uncordon or drain a node. Raises NotFound."""
        if not self.store.pool.set_node(NodeId(node), state):
            raise NotFound(noun="node", name=node)
        self.wake()

    def plan_maintenance(self, node: str, windows: Sequence[MaintenanceWindow]) -> None:
        """Plan maintenance of a node; no windows at all cancel what was planned.

        Raises:
            NotFound: No such node.
            BadRequest: A window ends in the past.
        """
        now = self.clock.now()
        if any(window.ends_at <= now for window in windows):
            raise BadRequest(
                problem="a maintenance window is over already", fix="Give one that is to come."
            )
        if len({window.starts_at for window in windows}) < len(windows):
            raise BadRequest(
                problem="two maintenance windows start at the same time",
                fix="Give one that lasts as long as the longer of them.",
            )
        if not self.store.pool.set_windows(NodeId(node), windows):
            raise NotFound(noun="node", name=node)
        self.wake()

    def set_override(self, node: str, mark: NodeOverride) -> None:
        """Store an operator's override of a node. Raises NotFound."""
        if not self.store.pool.set_override(NodeId(node), mark):
            raise NotFound(noun="node", name=node)
        self._empty = None
        self.wake()

    def check(self, gang: GangSpec) -> None:
        """Check that a gang fits into the empty pool. Raises BadRequest."""
        now = self.clock.now()
        if self._empty is None or not 0 <= now - self._empty[0] < EMPTY_POOL_S:
            self._empty = (now, empty_pool(self.store.pool.nodes()))
        problem = infeasible_reason(gang, self._empty[1])
        if problem:
            raise BadRequest(
                problem=f"this could never start here: {problem}",
                fix="Ask for less for each worker, or spread it over more workers.",
            )

    def require_isolation(self) -> None:
        """Check that all nodes keep jobs of several projects apart. Raises BadRequest."""
        for node in self.store.pool.nodes():
            if node.isolation == Isolation.NONE and node.state != NodeState.LOST:
                raise BadRequest(
                    problem=f"jobs of all projects run as one user on node {node.id}, who can read "
                    f"all of them there ({node.limits.get('isolation', 'of an earlier version')})",
                    fix="Run its node agent as root; or set `shared_user = true` in karez.toml if "
                    "the members of all projects trust each other.",
                )

    def with_containers(self, gang: GangSpec) -> GangSpec:
        """The gang, on nodes that run container images. Raises BadRequest if none does."""
        nodes = self.store.pool.nodes()
        if nodes and not any(LABEL in node.labels for node in nodes):
            raise BadRequest(
                problem="no node of this pool runs container images",
                fix="Install podman, apptainer or docker on a node; or use --requirements.",
            )
        having = tuple(dict.fromkeys((*gang.among.having, LABEL)))
        return replace(gang, among=replace(gang.among, having=having))

    def _name(self, ident: WorkloadId) -> str:
        item = self.store.workloads.find(ident)
        return item.spec.name if item else ident

    def _named(self, change: SuggestedChange) -> SuggestedChange:
        """The change, with names beside the ids of workloads that it would stop."""
        text = change.what
        for ident in change.stop:
            text = text.replace(ident, f"{self._name(ident)} ({ident})")
        return replace(change, what=text)

    def _redact(self, who: Principal, text: str) -> str:
        """Replace the ids of workloads that a key may not see."""

        def shown(match: re.Match[str]) -> str:
            item = self.store.workloads.find(match[0])
            seen = item is None or who.sees(item.spec.project)
            return match[0] if seen else "a workload of another project"

        return IDENT.sub(shown, text)

    def _is_hidden(self, who: Principal, change: SuggestedChange) -> bool:
        """Whether a change names a workload that a key may not see."""
        if who.project == EVERYWHERE:
            return False
        named = [self.store.workloads.find(ident) for ident in change.stop]
        return any(item is None or not who.sees(item.spec.project) for item in named)
