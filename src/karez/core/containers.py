"""Container images of jobs: the commands of the programs that run them. Pure.

Sources: podman-run(1), docker-run(1), apptainer exec's manual; devices of Ascend in containers:
the installation guide of vllm-ascend, https://docs.vllm.ai/projects/ascend.
"""

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from karez.core.devices import DeviceKind
from karez.core.grants import Grant

LABEL: Final = "containers"
"""Label of nodes that can run images; its value is the program."""
PULL_S: Final = 1800.0
"""Seconds that a node may take to fetch an image."""
_IMAGE: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9./:@_-]*")
_ASCEND: Final = ("/dev/davinci_manager", "/dev/devmm_svm", "/dev/hisi_hdc")
_ASCEND_DRIVER: Final = ("/usr/local/Ascend/driver", "/usr/local/dcmi", "/usr/local/bin/npu-smi")
_SIF: Final = ".sif"


class ContainerProgram(StrEnum):
    """A program that runs images, in the order in which one is chosen."""

    PODMAN = "podman"
    APPTAINER = "apptainer"
    DOCKER = "docker"


@dataclass(frozen=True, slots=True, kw_only=True)
class ContainerRun:
    """A process that runs in an image."""

    program: ContainerProgram
    image: str
    name: str
    folders: Sequence[str]
    """Folders of this host that it finds at the same place."""
    cwd: str
    variables: Collection[str]
    """Names of the variables that it gets; their values are in the environment of the program."""
    variables_file: str = ""
    """File of variables that it gets besides, as `NAME=VALUE`."""
    command: Sequence[str]
    grant: Grant | None = None
    cores: Sequence[int] = ()
    user: str = ""
    """UID:GID of whoever is to own what it writes; empty: root."""
    is_isolated: bool = False
    """Whether that is the user of its project, and not the node agent's own."""


def check_image(image: str) -> None:
    """Refuse what is no reference to an image. Raises ValueError."""
    if not _IMAGE.fullmatch(image) or len(image) > 500:
        raise ValueError(f"{image!r} is no image such as docker.io/library/python:3.12")


def run_command(run: ContainerRun) -> tuple[str, ...]:
    """The command that runs a process in an image. It sees this host's network and shared memory.

    Values of variables are not on the command line, where every user of the host would see them.
    """
    if run.program == ContainerProgram.APPTAINER:
        binds = [word for folder in run.folders for word in ("--bind", folder)]
        gpu = ["--nv"] if _kind(run) == DeviceKind.GPU else []
        npu = [w for path in _ascend_folders(run) for w in ("--bind", path)]
        options = ("exec", "--no-home", *gpu, *binds, *npu, "--pwd", run.cwd)
        return (run.program, *options, _apptainer_image(run.image), *run.command)
    ipc = () if run.is_isolated else ("--ipc", "host")
    file = ("--env-file", run.variables_file) if run.variables_file else ()
    options = ("--rm", "--name", run.name, "--network", "host", *ipc, *file)
    volumes = (f"{folder}:{folder}" for folder in (*run.folders, *_ascend_folders(run)))
    words = [
        *(word for volume in volumes for word in ("--volume", volume)),
        *("--workdir", run.cwd),
        *(word for name in sorted(run.variables) for word in ("--env", name)),
        *_devices(run),
        *_user(run),
    ]
    if run.program == ContainerProgram.DOCKER and run.cores:  # its daemon starts it elsewhere
        words += ["--cpuset-cpus", ",".join(map(str, run.cores))]
    entry = ("--entrypoint", run.command[0])  # the image's own would get the command as arguments
    return (run.program, "run", *options, *entry, *words, run.image, *run.command[1:])


def exec_command(
    program: ContainerProgram, name: str, command: Sequence[str], *, terminal: bool
) -> tuple[str, ...]:
    """The command that runs another process in a running container."""
    how = ("--interactive", "--tty") if terminal else ("--interactive",)
    return (program, "exec", *how, name, *command)


def pull_command(program: ContainerProgram, image: str) -> tuple[str, ...]:
    """The command that fetches an image."""
    return (program, "pull", image)


def has_command(program: ContainerProgram, image: str) -> tuple[str, ...]:
    """The command that ends with 0 if an image is on this host."""
    return (program, "image", "inspect", image)


def remove_command(program: ContainerProgram, name: str) -> tuple[str, ...]:
    """The command that ends and removes a container, if it is there."""
    return (program, "rm", "--force", name)


def _user(run: ContainerRun) -> Sequence[str]:
    if not run.user:
        return ()
    if run.is_isolated:
        return ("--user", run.user, "--security-opt", "no-new-privileges")
    if run.program == ContainerProgram.PODMAN:  # without root: its root is the agent's user
        return ("--userns", "keep-id")
    return ("--user", run.user)


def _kind(run: ContainerRun) -> DeviceKind | None:
    return None if run.grant is None or run.grant.is_emulated else run.grant.kind


def _devices(run: ContainerRun) -> list[str]:
    """Options by which a container finds its devices; which of them it may use, variables say."""
    if run.grant is None or _kind(run) is None:
        return []
    if run.grant.kind == DeviceKind.GPU:
        is_docker = run.program == ContainerProgram.DOCKER
        return ["--gpus", "all"] if is_docker else ["--device", "nvidia.com/gpu=all"]
    if run.grant.kind == DeviceKind.NPU:
        own = [f"/dev/davinci{index}" for index in run.grant.indices]
        return [word for path in (*own, *_ASCEND) for word in ("--device", path)]
    return []


def _ascend_folders(run: ContainerRun) -> Sequence[str]:
    return _ASCEND_DRIVER if _kind(run) == DeviceKind.NPU else ()


def _apptainer_image(image: str) -> str:
    return image if image.endswith(_SIF) else f"docker://{image}"
