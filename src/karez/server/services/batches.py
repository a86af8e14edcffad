"""Files and batches as OpenAI's API has them: a file is an artifact, a batch is a job."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Final

from karez.core.artifacts import Artifact, ArtifactKind, ArtifactSpec, FileEntry, Lineage
from karez.core.batches import (
    BATCH_CALLS,
    ENDPOINTS,
    MAX_BATCH_BYTES,
    check_lines,
    check_metadata,
    window_s,
)
from karez.core.devices import DeviceKind
from karez.core.errors import AlreadyExists, BadRequest, NotFound
from karez.core.gangs import GangSpec
from karez.core.identity import Principal
from karez.core.jobs import Job, JobSpec, Retry
from karez.core.names import as_label
from karez.core.ports import BlobStore, Clock
from karez.core.resource_requests import ResourceRequest
from karez.core.validation import FORBID
from karez.core.workloads import EndReason
from karez.server.services.artifacts import ArtifactService
from karez.server.services.jobs import JobService
from karez.server.services.openai_objects import FILENAME, PURPOSE, result_files, show_batch
from karez.server.services.permissions import visible_projects

BATCH: Final = "batch"
PURPOSES: Final = (BATCH, "fine-tune", "user_data", "evals", "assistants", "vision")
PRIORITY: Final = -10
"""Of a batch: behind all that names no priority."""
CORE_MILLI: Final = 100
"""A tenth of a core waits for answers."""
MOST_JOBS: Final = 5000
"""Newest jobs among which batches are listed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchRequest:
    """A batch to be made."""

    __pydantic_config__: ClassVar[Any] = FORBID

    input_file_id: str
    endpoint: str
    completion_window: str = "24h"
    metadata: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchService:
    """Files and batches of the projects that a key may see."""

    artifacts: ArtifactService
    jobs: JobService
    blobs: BlobStore
    clock: Clock

    def register(self, who: Principal, entry: FileEntry, filename: str, purpose: str) -> Artifact:
        """Register the bytes of a file that a project has sent. Raises BadRequest."""
        if purpose not in PURPOSES:
            raise BadRequest(problem=f"purpose is one of {', '.join(PURPOSES)}, not {purpose!r}")
        name = as_label(filename)
        spec = ArtifactSpec(
            name=name,
            kind=ArtifactKind.DATASET,
            files=(replace(entry, path=name),),
            format="jsonl" if name.endswith(".jsonl") else "",
            lineage=Lineage(source="sent to /v1/files"),
            facts={PURPOSE: purpose, FILENAME: name},
        )
        return self.artifacts.register(who, spec)

    def files(self, who: Principal, purpose: str) -> Sequence[Artifact]:
        """Files that a key may see, newest first; of one purpose, or of all."""
        found = self.artifacts.list(who, [ArtifactKind.DATASET])
        return [
            one
            for one in found
            if PURPOSE in one.spec.facts and purpose in ("", one.spec.facts[PURPOSE])
        ]

    def file(self, who: Principal, ident: str) -> Artifact:
        """One file. Raises NotFound."""
        found = self.artifacts.store.find(ident, projects=visible_projects(who))
        if found is None or found.id != ident or len(found.spec.files) != 1:
            raise NotFound(noun="file", name=ident)
        return found

    def remove(self, who: Principal, ident: str) -> None:
        """Remove a file. Raises NotFound; BadRequest while a batch uses it."""
        self.artifacts.remove(who, self.file(who, ident).id)

    def create(self, who: Principal, asked: BatchRequest, *, idempotency_key: str = "") -> Job:
        """Queue a batch. Raises BadRequest, which says which lines of its file are none."""
        known = self.jobs.known(who, idempotency_key)
        if known is not None and known.spec.recipe == BATCH_CALLS:
            return _same(known, asked, idempotency_key)
        if asked.endpoint not in ENDPOINTS:
            problem = f"endpoint is one of {', '.join(ENDPOINTS)}, not {asked.endpoint!r}"
            raise BadRequest(problem=problem)
        file = self.file(who, asked.input_file_id)
        now = self.clock.now()
        try:
            seconds = window_s(asked.completion_window)
            metadata = check_metadata(asked.metadata)
            count = self._count(file, asked.endpoint)
        except ValueError as error:
            raise BadRequest(
                problem=str(error), fix="Correct the file, and send it again."
            ) from error
        spec = JobSpec(
            name=BATCH,
            project=file.spec.project,
            recipe=BATCH_CALLS,
            settings={
                "requests": count,
                "endpoint": asked.endpoint,
                "completion_window": asked.completion_window,
                "deadline": now + seconds,
                "metadata": metadata,
            },
            inputs={"requests": file.id},
            gang=GangSpec(
                min=1, want=1, each=(ResourceRequest(kind=DeviceKind.CPU, milli=CORE_MILLI),)
            ),
            priority=PRIORITY,
            preemptible=True,
            retry=Retry(limit=100, causes=(EndReason.NODE_LOST, EndReason.CRASHED)),
            calls_models=True,
        )
        return self.jobs.submit(who, spec, idempotency_key=idempotency_key)

    def _count(self, file: Artifact, endpoint: str) -> int:
        (entry,) = file.spec.files
        if entry.size_bytes > MAX_BATCH_BYTES:
            raise ValueError(f"the file of a batch has up to {MAX_BATCH_BYTES >> 20} MiB")
        with self.blobs.open(entry.sha256) as lines:
            return check_lines(lines, endpoint)

    def batch(self, who: Principal, ident: str) -> Job:
        """One batch. Raises NotFound."""
        try:
            job = self.jobs.get(who, ident)
        except NotFound as error:
            raise NotFound(noun="batch", name=ident) from error
        if job.id != ident or job.spec.recipe != BATCH_CALLS:
            raise NotFound(noun="batch", name=ident)
        return job

    def batches(self, who: Principal) -> Sequence[Job]:
        """The batches among the newest jobs that a key may see, newest first."""
        found = self.jobs.list(who, (), MOST_JOBS)
        return [job for job in found if job.spec.recipe == BATCH_CALLS]

    def cancel(self, who: Principal, ident: str) -> Job:
        """Request the end of a batch; what has been answered stays. Raises NotFound."""
        return self.jobs.cancel(who, self.batch(who, ident).id)

    def show(self, job: Job) -> dict[str, Any]:
        """A batch as OpenAI's API shows it."""
        return show_batch(job, self._facts(job))

    def _facts(self, job: Job) -> Mapping[str, Any]:
        """What the results of a batch say of it; nothing before it has ended."""
        for ident in result_files(job).values():
            found = self.artifacts.store.find(ident, projects=None) if ident else None
            if found is not None and "completed" in found.spec.facts:
                return found.spec.facts
        return {}


def _same(known: Job, asked: BatchRequest, key: str) -> Job:
    """The batch that a key gave before. Raises AlreadyExists if it was of another request."""
    settings = known.spec.settings
    before = (known.spec.inputs["requests"], settings["endpoint"], settings["completion_window"])
    now = (asked.input_file_id, asked.endpoint, asked.completion_window)
    if before != now or settings["metadata"] != check_metadata(asked.metadata):
        raise AlreadyExists(noun="request with the Idempotency-Key", name=key)
    return known
