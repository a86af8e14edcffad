"""Gathers what all ranks of a job share, before the first rank starts."""

from collections.abc import Iterable, Mapping
from dataclasses import replace

from karez.core.devices import DeviceKind
from karez.core.grants import Grant
from karez.core.jobs import Job
from karez.core.nodes import NodeId
from karez.core.ports import NodeLost
from karez.core.processes import Staged
from karez.core.python_environments import PythonEnvironment
from karez.core.workloads import EndReason, State
from karez.training.controller.checkpoint_artifact import stored_checkpoints
from karez.training.controller.controller_deps import ControllerDeps
from karez.training.controller.gang_allocation import GangAllocation
from karez.training.controller.process_specs import LaunchContext


class StartRefused(Exception):
    """The job cannot start."""

    def __init__(self, reason: EndReason, detail: str) -> None:
        """Refuse to start, with the job's end reason and a text for users."""
        super().__init__(detail)
        self.reason = reason


def gather_launch_context(
    job: Job, epoch: int, allocation: GangAllocation, deps: ControllerDeps
) -> LaunchContext:
    """Gather inputs, code, secrets and addresses of a job. Raises StartRefused."""
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
    packages = store.artifacts.find(spec.environment) if spec.environment else None
    if spec.environment and packages is None:
        raise StartRefused(EndReason.INPUT_MISSING, f"environment {spec.environment} is gone")
    context = LaunchContext(
        job=job,
        epoch=epoch,
        environment=None
        if packages is None
        else PythonEnvironment(
            artifact=packages.id, name=packages.spec.name, files=packages.spec.files
        ),
        recipe=_recipe(spec.recipe, deps),
        inputs=tuple(staged),
        code=code.spec.files if code else (),
        checkpoints=stored_checkpoints(job, deps),
        secrets={**_model_access(job, deps), **deps.secrets(spec.project, spec.secrets)},
        replica_servers=replica_servers_of(allocation.nodes, deps),
        world=len(allocation.workers),
        roles=_addresses(allocation, deps),
        memory=_memory(allocation, deps),
    )
    return replace(context, master_address=_master(context, allocation.workers, deps))


def _model_access(job: Job, deps: ControllerDeps) -> Mapping[str, str]:
    if not job.spec.calls_models:
        return {}
    found = deps.model_access(job.id if job.array is None else job.array.id)
    if not found:
        raise StartRefused(EndReason.START_FAILED, "its key to call models was revoked")
    return found


def _recipe(name: str, deps: ControllerDeps) -> str:
    if name and name not in deps.recipes:
        raise StartRefused(EndReason.START_FAILED, f"recipe {name} is not installed on control")
    return deps.recipes.get(name, "")


def replica_servers_of(nodes: Iterable[NodeId], deps: ControllerDeps) -> list[str]:
    """Addresses of the replica servers of these nodes, as far as the nodes answer."""
    addresses = (_replica_server(node, deps) for node in sorted(nodes))
    return [address for address in addresses if address]


def _replica_server(node: NodeId, deps: ControllerDeps) -> str:
    try:
        return deps.fabric.replica_server(node)
    except NodeLost:
        return ""  # NodeEventStream reports the loss


def _addresses(allocation: GangAllocation, deps: ControllerDeps) -> dict[str, list[str]]:
    """Role -> addresses of the nodes of its workers."""
    wanted = {grant.node for grant in allocation.others}
    by_node = {node.id: node.address for node in deps.store.pool.nodes(wanted)} if wanted else {}
    by_role: dict[str, list[str]] = {}
    for grant in allocation.others:
        by_role.setdefault(grant.role, []).append(by_node.get(grant.node, ""))
    return by_role


def _memory(allocation: GangAllocation, deps: ControllerDeps) -> list[tuple[str, int]]:
    """(address of the replica server, bytes) of the memory that the gang holds."""
    grants = [grant for grant in allocation.others if grant.kind == DeviceKind.MEMORY]
    servers = [(_replica_server(grant.node, deps), grant.memory_bytes) for grant in grants]
    return [(address, size) for address, size in servers if address]


def devices_of(grant: Grant) -> str:
    """The devices of a grant as shown to users, such as `cpu:0,1`."""
    return f"{grant.kind}:{','.join(str(index) for index in grant.indices)}"


def _master(context: LaunchContext, grants: Mapping[int, Grant], deps: ControllerDeps) -> str:
    """Address of rank 0 for scripts that build their own process group, at a port of this start."""
    first, job = grants[min(grants)].node, context.job.id
    address = next((node.address for node in deps.store.pool.nodes([first])), "")
    try:
        return f"{address}:{deps.fabric.reserve_port(first, job, context.start_id)}"
    except NodeLost as error:
        if context.job.state == State.PLACED:  # nothing runs yet: the next start finds a node
            raise StartRefused(EndReason.NODE_LOST, f"node {first} does not answer") from error
        return ""  # NodeEventStream reports the loss
    except OSError as error:
        raise StartRefused(EndReason.START_FAILED, f"{first}: {error}") from error
