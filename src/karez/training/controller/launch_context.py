"""Gathers what the ranks of a job share before the first of them starts."""

import zlib
from collections.abc import Iterable, Mapping, Sequence

from karez.core.devices import DeviceKind
from karez.core.grants import Grant
from karez.core.jobs import Job
from karez.core.nodes import NodeId
from karez.core.ports import NodeLost
from karez.core.processes import Staged
from karez.core.resource_requests import ResourceRequest
from karez.core.workloads import EndReason
from karez.training.controller.gang_allocation import GangAllocation
from karez.training.controller.process_specs import LaunchContext
from karez.training.controller.status_writer import ControllerDeps

MASTER_PORTS = range(20_000, 30_000)
"""Below Linux's default range of ephemeral ports (32768 and up, ip(7))."""


class StartRefused(Exception):
    """A job that cannot start at all."""

    def __init__(self, reason: EndReason, detail: str) -> None:
        """Why, as the job's end reason and in words."""
        super().__init__(detail)
        self.reason = reason


def gather_launch_context(
    job: Job, epoch: int, allocation: GangAllocation, deps: ControllerDeps
) -> LaunchContext:
    """Inputs, code, secrets and addresses of a job. Raises Refused."""
    spec, store = job.spec, deps.store
    staged = []
    for folder, ident in spec.inputs.items():
        artifact = store.artifacts.find(ident)
        if artifact is None:
            raise StartRefused(EndReason.INPUT_MISSING, f"input {folder}: no artifact {ident}")
        staged.append(Staged(artifact=artifact.id, folder=folder, files=artifact.spec.files))
    code = store.artifacts.find(spec.code) if spec.code else None
    if spec.code and code is None:
        raise StartRefused(EndReason.INPUT_MISSING, f"code artifact {spec.code} is gone")
    return LaunchContext(
        job=job,
        epoch=epoch,
        recipe=_recipe(spec.recipe, deps),
        inputs=tuple(staged),
        code=code.spec.files if code else (),
        secrets=deps.secrets(spec.project, spec.secrets),
        replica_servers=replica_servers_of(allocation.nodes, deps),
        world=len(allocation.workers),
        master_address=_master(job, epoch, allocation.workers, deps),
        roles=_addresses(allocation, deps),
        memory=_memory(allocation, deps),
    )


def _recipe(name: str, deps: ControllerDeps) -> str:
    if name and name not in deps.recipes:
        raise StartRefused(EndReason.START_FAILED, f"recipe {name} is not installed on control")
    return deps.recipes.get(name, "")


def replica_servers_of(nodes: Iterable[NodeId], deps: ControllerDeps) -> list[str]:
    """Addresses of the keepers of nodes that a gang stands on, or has just left."""
    found = (_replica_server(node, deps) for node in sorted(nodes))
    return [address for address in found if address]


def _replica_server(node: NodeId, deps: ControllerDeps) -> str:
    try:
        return deps.fabric.replica_server(node)
    except NodeLost:
        return ""  # its poller says so to the foreman


def _addresses(allocation: GangAllocation, deps: ControllerDeps) -> dict[str, list[str]]:
    """Role -> where its workers stand."""
    known = {node.id: node.address for node in deps.store.pool.nodes()}
    found: dict[str, list[str]] = {}
    for grant in allocation.others:
        found.setdefault(grant.role, []).append(known.get(grant.node, ""))
    return found


def _memory(allocation: GangAllocation, deps: ControllerDeps) -> list[tuple[str, int]]:
    """The keepers that hold memory for this gang, and how much."""
    held = [grant for grant in allocation.others if grant.kind == DeviceKind.MEMORY]
    found = [(_replica_server(grant.node, deps), grant.memory_bytes) for grant in held]
    return [(address, size) for address, size in found if address]


def need_of(grant: Grant, each: Sequence[ResourceRequest]) -> ResourceRequest:
    """The alternative that a grant was made for."""
    return next((need for need in each if grant.meets(need)), each[0])


def devices_of(grant: Grant) -> str:
    """`cpu:0,1`: the devices of a grant, for people."""
    return f"{grant.kind}:{','.join(str(index) for index in grant.indices)}"


def _master(job: Job, epoch: int, grants: Mapping[int, Grant], deps: ControllerDeps) -> str:
    """Where scripts that build their own group meet: a port that follows from the epoch."""
    first = grants[min(grants)].node
    address = next((node.address for node in deps.store.pool.nodes() if node.id == first), "")
    spot = zlib.crc32(f"{job.id}/{epoch}".encode())
    return f"{address}:{MASTER_PORTS[spot % len(MASTER_PORTS)]}"
