"""The inputs of workloads on a node: one copy for all processes of a workload."""

import hashlib
import shutil
import threading
from collections.abc import Sequence
from pathlib import Path

from karez.core.codec import to_text
from karez.core.names import check_folder_name
from karez.core.processes import Staged
from karez.core.workloads import WorkloadId
from karez.drivers.steward.staging import BlobSource, lay_out


class InputFolders:
    """Lays the inputs of each workload out once; a rank that starts again finds them there."""

    def __init__(self, work: Path, blobs: BlobSource) -> None:
        """Keep the inputs below the workloads' own folders in `work`."""
        self._work, self._blobs = work, blobs
        self._lock = threading.Lock()
        self._locks: dict[Path, threading.Lock] = {}
        self._done: set[Path] = set()

    def lay_out(self, workload: WorkloadId, inputs: Sequence[Staged]) -> Path:
        """Return the folder of these inputs, filled. Raises what BlobSource.fetch raises.

        The files are copies: a process that writes into them changes them for its workload on this
        node, and for nobody else.
        """
        name = hashlib.sha256(to_text(list(inputs)).encode()).hexdigest()[:16]
        folder = self._work / workload / "inputs" / name
        with self._lock:
            lock = self._locks.setdefault(folder, threading.Lock())
        with lock:
            if folder not in self._done:
                shutil.rmtree(folder, ignore_errors=True)
                folder.mkdir(mode=0o700, parents=True)
                for staged in inputs:
                    check_folder_name(staged.folder)
                    lay_out(self._blobs, staged.files, folder / staged.folder)
                self._done.add(folder)
        return folder

    def drop(self, workload: WorkloadId) -> None:
        """Forget a workload; the caller removes its folders."""
        gone = [path for path in list(self._done) if path.is_relative_to(self._work / workload)]
        for path in gone:
            self._done.discard(path)
            self._locks.pop(path, None)
