"""What a rank's process is given: its command, environment, inputs. Pure."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from karez.core.artifacts import FileEntry
from karez.core.ports import ProcessSpec, Staged
from karez.core.resources import Grant
from karez.core.workloads import Job, WorkloadKind

RECIPES = "karez.studio.recipes"
_SCRIPT = "karez.training.worker.script:main"
_STORE = "karez.training.worker.rendezvous:main"


@dataclass(frozen=True, slots=True, kw_only=True)
class Kit:
    """All that the ranks of one job share."""

    job: Job
    epoch: int
    inputs: tuple[Staged, ...] = ()
    code: tuple[FileEntry, ...] = ()
    secrets: Mapping[str, str] = field(default_factory=dict)
    keepers: Sequence[str] = ()
    world: int = 1
    master: str = ""
    """host:port for scripts that build their own process group."""


def rank_key(job: str, seat: int, life: int) -> str:
    """The name of a rank's process."""
    return f"{job}.{seat}.{life}"


def parse_key(key: str) -> tuple[int, int] | None:
    """(seat, life) of a rank's process; None for others, such as the store."""
    parts = key.split(".")
    if len(parts) != 3 or not parts[1].isdigit() or not parts[2].isdigit():
        return None
    return int(parts[1]), int(parts[2])


def rank_spec(
    kit: Kit, seat: int, life: int, grant: Grant, *, restore: Mapping[str, str]
) -> ProcessSpec:
    """The process of one rank."""
    spec = kit.job.spec
    command, warm = _command(kit.job)
    host, _, port = kit.master.rpartition(":")
    env = {
        "RANK": str(seat),
        "LOCAL_RANK": str(seat),
        "WORLD_SIZE": str(kit.world),
        "MASTER_ADDR": host,
        "MASTER_PORT": port,
        "KAREZ_KEEPERS": ",".join(kit.keepers),
        "KAREZ_SETTINGS": json.dumps(dict(spec.settings)),
        "KAREZ_INPUT_IDS": json.dumps({s.folder: s.artifact for s in kit.inputs}),
        "HF_HUB_OFFLINE": "1",
        "TOKENIZERS_PARALLELISM": "false",
    }
    return ProcessSpec(
        key=rank_key(kit.job.id, seat, life),
        workload=kit.job.id,
        rank=seat,
        epoch=kit.epoch,
        command=command,
        warm=warm,
        grant=grant,
        env={**env, **spec.env, **kit.secrets},
        inputs=kit.inputs,
        code=kit.code,
        restore=restore,
    )


def store_spec(kit: Kit, generation: int) -> ProcessSpec:
    """The rendezvous store of one generation."""
    return ProcessSpec(
        key=f"{kit.job.id}.store.{generation}",
        workload=kit.job.id,
        rank=-1,
        epoch=kit.epoch,
        command=(_STORE,),
        warm=True,
        env={"KAREZ_GENERATION": str(generation)},
    )


def _command(job: Job) -> tuple[tuple[str, ...], bool]:
    """The command, and whether a warm fork can run it."""
    spec = job.spec
    if spec.recipe:
        return (f"{RECIPES}.{spec.recipe.replace('-', '_')}:main",), True
    program, *rest = spec.command
    is_script = bool(rest) and rest[0].endswith(".py")
    if spec.kind == WorkloadKind.TRAIN and program in ("python", "python3") and is_script:
        return (_SCRIPT, *rest), True
    return spec.command, False
