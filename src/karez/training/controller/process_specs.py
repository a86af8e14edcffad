"""Specifications of a gang's processes: command, environment, inputs. Pure."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from karez.core import environment
from karez.core.arrays import parse_array
from karez.core.artifacts import FileEntry
from karez.core.gangs import GangRole
from karez.core.grants import Grant
from karez.core.jobs import Job
from karez.core.processes import ProcessSpec, Staged
from karez.core.python_environments import PythonEnvironment
from karez.core.workloads import WorkloadKind

_SCRIPT = "karez.runtime.script:main"
_STORE = "karez.runtime.rendezvous:main"


@dataclass(frozen=True, slots=True, kw_only=True)
class LaunchContext:
    """Inputs, secrets and addresses that all processes of one job share."""

    job: Job
    epoch: int
    inputs: tuple[Staged, ...] = ()
    code: tuple[FileEntry, ...] = ()
    environment: PythonEnvironment | None = None
    recipe: str = ""
    """`module:function` of the job's recipe; empty where the job has a command."""
    checkpoints: tuple[FileEntry, ...] = ()
    """The files of KAREZ_CHECKPOINT_DIR as an earlier attempt left them."""
    secrets: Mapping[str, str] = field(default_factory=dict)
    replica_servers: Sequence[str] = ()
    world: int = 1
    master_address: str = ""
    """host:port of rank 0 for scripts that build their own process group."""
    roles: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """Role -> addresses of the nodes of its workers."""
    memory: Sequence[tuple[str, int]] = ()
    """(replica server's host:port, bytes) of the memory on other nodes that the gang holds."""

    @property
    def start_id(self) -> str:
        """Id of this start of the job: it changes when the job is queued again, and only then.

        The epoch changes while it runs too, when ranks get other devices.
        """
        return f"{self.job.status.retries}-{self.job.status.ran_s!r}"


def rank_key(job: str, index: int, attempt: int) -> str:
    """The key of a rank's process."""
    return f"{job}.{index}.{attempt}"


def parse_key(key: str) -> tuple[int, int] | None:
    """(rank, attempt) of a rank's process; None for other processes, such as the store."""
    parts = key.split(".")
    if len(parts) != 3 or not parts[1].isdigit() or not parts[2].isdigit():
        return None
    return int(parts[1]), int(parts[2])


def rank_spec(
    context: LaunchContext, index: int, attempt: int, grant: Grant, *, restore: Mapping[str, str]
) -> ProcessSpec:
    """The specification of one rank's process."""
    spec = context.job.spec
    command, warm = _command(context)
    host, _, port = context.master_address.rpartition(":")
    env = {
        "RANK": str(index),
        "LOCAL_RANK": str(index),
        "WORLD_SIZE": str(context.world),
        "MASTER_ADDR": host,
        "MASTER_PORT": port,
        environment.REPLICA_SERVERS: ",".join(context.replica_servers),
        **_shared(context),
        environment.INPUT_IDS: json.dumps({s.folder: s.artifact for s in context.inputs}),
        "HF_HUB_OFFLINE": "1",
        "TOKENIZERS_PARALLELISM": "false",
    }
    return ProcessSpec(
        key=rank_key(context.job.id, index, attempt),
        workload=context.job.id,
        rank=index,
        epoch=context.epoch,
        project=context.job.spec.project,
        command=command,
        warm=warm,
        grant=grant,
        env={**env, **spec.env, **context.secrets},
        inputs=context.inputs,
        code=context.code,
        restore=restore,
        image=spec.image,
        environment=context.environment,
        checkpoints=context.checkpoints,
        start_id=context.start_id,
    )


def sidecar_spec(
    context: LaunchContext, role: GangRole, number: int, attempt: int, grant: Grant, count: int
) -> ProcessSpec:
    """The specification of a role's process beside the ranks."""
    spec = context.job.spec
    command = role.command or spec.command
    return ProcessSpec(
        key=f"{context.job.id}.role.{role.name}.{number}.{attempt}",
        workload=context.job.id,
        rank=-1,
        epoch=context.epoch,
        project=context.job.spec.project,
        command=command,
        grant=grant,
        env={
            environment.ROLE: role.name,
            environment.ROLE_RANK: str(number),
            environment.ROLE_SIZE: str(count),
            **_shared(context),
            **spec.env,
            **context.secrets,
        },
        inputs=context.inputs,
        code=context.code,
        image=spec.image,
        environment=context.environment,
        checkpoints=context.checkpoints,
        start_id=context.start_id,
    )


def _shared(context: LaunchContext) -> dict[str, str]:
    """Environment that every process of a gang has in common."""
    return {
        **_array(context.job),
        environment.SETTINGS: json.dumps(dict(context.job.spec.settings)),
        environment.ROLES: json.dumps({name: list(at) for name, at in context.roles.items()}),
        environment.POOLED_MEMORY: json.dumps(
            [{"keeper": address, "bytes": size} for address, size in context.memory]
        ),
    }


def _array(job: Job) -> dict[str, str]:
    """Environment of a job of an array: our names, and those that Slurm's scripts read."""
    if job.array is None:
        return {}
    indices = parse_array(job.spec.array).indices
    index = str(job.array.index)
    return {
        environment.ARRAY: job.array.id,
        environment.ARRAY_INDEX: index,
        "SLURM_ARRAY_JOB_ID": job.array.id,
        "SLURM_ARRAY_TASK_ID": index,
        "SLURM_ARRAY_TASK_COUNT": str(len(indices)),
        "SLURM_ARRAY_TASK_STEP": str(indices[1] - indices[0] if len(indices) > 1 else 1),
        "SLURM_ARRAY_TASK_MIN": str(indices[0]),
        "SLURM_ARRAY_TASK_MAX": str(indices[-1]),
    }


def store_spec(context: LaunchContext, generation: int, mark: str) -> ProcessSpec:
    """The specification of a rendezvous store; `mark` distinguishes its key from earlier stores."""
    return ProcessSpec(
        key=f"{context.job.id}.store.{generation}.{mark}",
        workload=context.job.id,
        rank=-1,
        epoch=context.epoch,
        project=context.job.spec.project,
        command=(_STORE,),
        warm=True,
        env={environment.GENERATION: str(generation)},
    )


def _command(context: LaunchContext) -> tuple[tuple[str, ...], bool]:
    """The command, and whether the fork server can run it."""
    spec = context.job.spec
    if spec.recipe:
        return (context.recipe,), True
    program, *rest = spec.command
    if spec.image:
        return spec.command, False
    is_script = bool(rest) and rest[0].endswith(".py")
    if spec.kind == WorkloadKind.TRAIN and program in ("python", "python3") and is_script:
        return (_SCRIPT, *rest), True
    return spec.command, False
