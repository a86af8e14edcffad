"""What a process needs on its node, and the order by which a fork server starts it."""

import os
import threading
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from karez.core import environment
from karez.core.devices import Device
from karez.core.processes import ProcessSpec
from karez.core.workloads import WorkloadId
from karez.drivers.steward.checkpoint_folders import CheckpointFolders
from karez.drivers.steward.child_processes import inherited
from karez.drivers.steward.config import StewardConfig
from karez.drivers.steward.containers import Containers
from karez.drivers.steward.control_groups import ControlGroups
from karez.drivers.steward.environment import cores_of, process_env
from karez.drivers.steward.environments import bin_of
from karez.drivers.steward.input_folders import InputFolders
from karez.drivers.steward.jobs_own_files import remove_tree
from karez.drivers.steward.process_table import TrackedProcess
from karez.drivers.steward.replica_server import token_of
from karez.drivers.steward.sandbox import Sandbox
from karez.drivers.steward.sandboxes import Sandboxes
from karez.drivers.steward.staging import lay_out
from karez.transport.snapshot_file import snapshot_path

STORED = "stored"
"""Folder of a process for its checkpoint files."""
_OWN = ("out", "code", "restore", STORED)
"""Folders of a process that it may write into."""


@dataclass(frozen=True, slots=True)
class ProcessRun:
    """A process that starts, or runs."""

    spec: ProcessSpec
    folder: Path
    token: str
    """What it shows to be taken for itself."""
    environment: Path | None
    """Folder of its Python environment, if it has one."""


def run_of(process: TrackedProcess) -> ProcessRun:
    """What is known of a tracked process."""
    return ProcessRun(process.spec, process.folder, process.token, process.environment)


class ProcessOrders:
    """Fills the folders of processes, and writes their orders."""

    def __init__(
        self,
        config: StewardConfig,
        memory: Path,
        socket_path: str,
        devices: Sequence[Device],
        sandboxes: Sandboxes,
    ) -> None:
        """Fill nothing yet.

        Args:
            config: The node agent's.
            memory: Its folder in shared memory.
            socket_path: Where processes connect to it.
            devices: The GPUs and NPUs of this node.
            sandboxes: The sandboxes of this node.
        """
        self._config, self._memory, self._socket_path = config, memory, socket_path
        self._devices, self._sandboxes = devices, sandboxes
        self.work = Path(config.home) / "work"
        self.inputs = InputFolders(self.work, config.blobs)
        self.checkpoints = CheckpointFolders(self.work, config.blobs)
        self.groups = ControlGroups(f"karez-{config.tag}")
        self.containers = Containers(memory / "orders")
        self._lock = threading.Lock()
        self._locks: dict[WorkloadId, threading.Lock] = {}

    def first(self, run: ProcessRun, replica_server: str) -> dict[str, Any]:
        """Fill the folders of a process that is to start, make its sandbox, and return its order.

        Raises:
            OSError: Its sandbox cannot be made.
            NotFound, BrokenArtifact, StorageFull, Unreachable: Its files cannot be fetched.
        """
        with self._lock:
            lock = self._locks.setdefault(run.spec.workload, threading.Lock())
        with lock:  # what is given to the job's user must be whole: others of the job run already
            inputs, sandbox = self._stage(run)
        order = self._order(run, inputs, sandbox, replica_server)
        shared = (self._memory / run.spec.workload, Path(self._socket_path))
        folders = (*self.folders_of(run.spec.workload), *(shared if sandbox is not None else ()))
        return self.containers.wrap(order, run.spec, folders)

    def _stage(self, run: ProcessRun) -> tuple[Path, Sandbox | None]:
        """Fill folders, and give them to the user of the sandbox: (folder of inputs, sandbox)."""
        spec, folder, blobs = run.spec, run.folder, self._config.blobs
        for name in _OWN:
            (folder / name).mkdir(mode=0o700, parents=True, exist_ok=True)
        lay_out(blobs, spec.code, folder / "code")
        for name, digest in spec.restore.items():
            blobs.fetch(digest, folder / "restore" / name)
        if spec.start_id:
            self.checkpoints.lay_out(spec.workload, spec.start_id, spec.checkpoints)
        inputs = self.inputs.lay_out(spec.workload, spec.inputs)
        sandbox = self._sandboxes.of(spec)
        own = [*(folder / name for name in _OWN), inputs, self.checkpoints.folder(spec.workload)]
        self._sandboxes.give(sandbox, (one for one in own if one.exists()))
        return inputs, sandbox

    def again(self, run: ProcessRun, replica_server: str) -> dict[str, Any]:
        """The order of a process that runs, for another one beside it."""
        inputs = self.inputs.lay_out(run.spec.workload, run.spec.inputs)
        return self._order(run, inputs, self._sandboxes.of(run.spec), replica_server)

    def beside(
        self, run: ProcessRun, order: Mapping[str, Any], command: Sequence[str], *, terminal: bool
    ) -> dict[str, Any]:
        """The order for a shell beside a process: of one in an image, in its container."""
        if not run.spec.image:
            return {**order, "command": command}
        return self.containers.beside(order, run.spec.key, command, terminal=terminal)

    def drop(self, workload: WorkloadId) -> None:
        """Remove the folders of a workload of which nothing runs any more."""
        for folder in (self._memory / workload, self.work / workload):
            remove_tree(folder)
        self.checkpoints.drop(workload)
        self.inputs.drop(workload)
        with self._lock:
            self._locks.pop(workload, None)

    def folders_of(self, workload: WorkloadId) -> tuple[Path, ...]:
        """The folders of a workload on this node."""
        return self.work / workload, self.checkpoints.folder(workload)

    def _order(
        self, run: ProcessRun, inputs: Path, sandbox: Sandbox | None, replica_server: str
    ) -> dict[str, Any]:
        spec, folder = run.spec, run.folder
        return {
            "op": "start",
            "key": spec.key,
            "command": spec.command,
            "warm": spec.warm,
            "runs_image": bool(spec.image),
            "sandbox": None if sandbox is None else asdict(sandbox),
            "user": 0 if sandbox is None else sandbox.user,
            "environment": str(run.environment or "") if sandbox is not None else "",
            "control_group": self.groups.make(spec.key, spec.grant, self._config.most_processes),
            "env": {
                **self._agent_variables(run, replica_server),
                **self._sandboxes.environment(sandbox, spec),
                **process_env(spec, folder, inputs, self._devices),
            },
            "cwd": str(folder / "code"),
            "log": str(folder / "log"),
            "cpus": cores_of(spec.grant),
        }

    def _agent_variables(self, run: ProcessRun, replica_server: str) -> dict[str, str]:
        spec, own = run.spec, inherited()
        if run.environment is not None:
            path = os.pathsep.join((str(bin_of(run.environment)), own["PATH"]))
            own |= {"PATH": path, "VIRTUAL_ENV": str(run.environment)}
        return {
            **own,
            **self._config.environment(),
            environment.STEWARD: self._socket_path,
            environment.PROCESS_TOKEN: run.token,
            environment.CHECKPOINT_DIR: str(self.checkpoints.folder(spec.workload)),
            environment.REPLICA_SERVER: replica_server,
            environment.REPLICA_TOKEN: token_of(self._config.token, spec.workload),
            environment.SNAPSHOT_FILE: str(snapshot_path(self._memory, spec.workload, spec.rank)),
        }
