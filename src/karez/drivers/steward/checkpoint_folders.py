"""The folders of jobs' own checkpoints on a node: laid out before a job starts, and stored."""

import json
import os
import threading
import time
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from karez.core.artifacts import FileEntry
from karez.core.checkpoint_folder import FolderListing
from karez.core.workloads import WorkloadId
from karez.drivers.steward.jobs_own_files import paths_below, remove_tree, stays_inside
from karez.drivers.steward.staging import BlobSource

SECOND_NS = 1_000_000_000
_Stat = tuple[int, int]  # size in bytes, time of the last change in nanoseconds


class CheckpointFolders:
    """One folder per job, which all of the job's processes on this node share."""

    def __init__(self, work: Path, blobs: BlobSource) -> None:
        """Keep the folders below the jobs' own in `work`."""
        self._work, self._blobs = work, blobs
        self._locks: dict[WorkloadId, threading.Lock] = {}
        self._known: dict[Path, tuple[_Stat, FileEntry]] = {}
        """File -> what it was when it was stored."""

    def folder(self, workload: WorkloadId) -> Path:
        """Path of a job's folder."""
        return self._work / workload / "checkpoints"

    def lay_out(self, workload: WorkloadId, start_id: str, files: Sequence[FileEntry]) -> None:
        """Fill a job's folder before the first process of a start; later calls change nothing.

        The files get times in the order in which they are given: scripts look for the newest.

        Raises:
            NotFound, BrokenArtifact, StorageFull, Unreachable.
        """
        folder, note = self.folder(workload), self._note(workload)
        with self._locks.setdefault(workload, threading.Lock()):  # one of all that come at once
            if note.exists() and json.loads(note.read_text())["start_id"] == start_id:
                return
            remove_tree(folder)
            folder.mkdir(mode=0o700, parents=True)
            oldest_ns = time.time_ns() - len(files) * SECOND_NS
            for number, entry in enumerate(files):
                self._blobs.fetch(entry.sha256, folder / entry.path)
                os.utime(folder / entry.path, ns=(oldest_ns + number * SECOND_NS,) * 2)
            began = {entry.path: entry.sha256 for entry in files}
            whole = note.with_suffix(".partial")
            whole.touch(mode=0o600)
            whole.write_text(json.dumps({"start_id": start_id, "files": began}))
            whole.replace(note)  # `store` may read it at any time

    def store(self, workload: WorkloadId, start_id: str, quiet_s: float) -> FolderListing | None:
        """Put a job's files into the blob store, unless one was written in the last `quiet_s`.

        A file that is written meanwhile, or gone, is left to the next call. Raises as `lay_out`.

        Returns:
            None where the folder of this start was not laid out: nothing is known of its files.
        """
        folder, note = self.folder(workload), self._note(workload)
        noted = json.loads(note.read_text()) if note.exists() else {}
        if noted.get("start_id") != start_id:
            return None
        began: dict[str, str] = noted["files"]
        stats = _stats(folder)
        newest_ns = max((changed_ns for _, changed_ns in stats.values()), default=0)
        if quiet_s and time.time_ns() - newest_ns < quiet_s * 1e9:
            return FolderListing(is_settled=False)
        files = list(self._stored(folder, stats))
        paths = {str(path.relative_to(folder)) for path in stats}
        return FolderListing(
            files=tuple(files),
            changed=frozenset(file.path for file in files if began.get(file.path) != file.sha256),
            removed=frozenset(began.keys() - paths),
        )

    def drop(self, workload: WorkloadId) -> None:
        """Forget a job; the caller removes its folders."""
        folder = self.folder(workload)
        self._known = {p: v for p, v in self._known.items() if not p.is_relative_to(folder)}
        self._locks.pop(workload, None)

    def _stored(self, folder: Path, stats: dict[Path, _Stat]) -> Iterable[FileEntry]:
        for path, stat in stats.items():
            known = self._known.get(path)
            if known is not None and known[0] == stat:
                yield known[1]
                continue
            try:
                stored = self._blobs.store_changing(path, folder, folder.parent)
                is_same = _stat(path) == stat
                entry = replace(stored, path=str(path.relative_to(folder)))
            except (FileNotFoundError, ValueError):  # gone, or a name that no artifact may have
                continue
            if is_same:
                self._known[path] = (stat, entry)
                yield entry
            elif known is not None:
                yield known[1]

    def _note(self, workload: WorkloadId) -> Path:
        return self._work / workload / "checkpoints.json"


def _stats(folder: Path) -> dict[Path, _Stat]:
    """The files of a folder, oldest first."""
    stats: dict[Path, _Stat] = {}
    for path in sorted(paths_below(folder)):
        try:
            if path.is_file() and stays_inside(path, folder):
                stats[path] = _stat(path)
        except FileNotFoundError:
            continue
    return dict(sorted(stats.items(), key=lambda item: item[1][1]))


def _stat(path: Path) -> _Stat:
    found = path.stat()
    return found.st_size, found.st_mtime_ns
