"""Files and batches as OpenAI's API shows them. Pure."""

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from karez.core.artifacts import Artifact
from karez.core.errors import NotFound
from karez.core.jobs import Job
from karez.core.workloads import State

PURPOSE, FILENAME = "purpose", "filename"
OUTPUT, ERRORS, UNFINISHED = "output", "errors", "unfinished-"
_STATUS: Mapping[State, str] = {
    State.STOPPING: "cancelling",
    State.CANCELLED: "cancelled",
    State.FAILED: "failed",
    State.SUCCEEDED: "completed",
}


def result_files(job: Job) -> Mapping[str, str | None]:
    """The artifacts of a batch's answers and errors; of one that was cut short too."""
    outputs = job.status.outputs
    return {name: outputs.get(name) or outputs.get(UNFINISHED + name) for name in (OUTPUT, ERRORS)}


def show_batch(job: Job, facts: Mapping[str, Any]) -> dict[str, Any]:
    """A batch; `facts` are what its results say of it once it has ended."""
    settings, ids = job.spec.settings, result_files(job)
    status = _STATUS.get(job.state, "in_progress")
    is_late = job.ended_at is not None and job.ended_at >= float(settings["deadline"])
    if (status == "completed" and facts.get("expired")) or (status == "cancelled" and is_late):
        status = "expired"
    ended = {
        f"{end}_at": _whole(job.ended_at) if end == status else None
        for end in ("completed", "failed", "expired", "cancelled")
    }
    return {
        "id": job.id,
        "object": "batch",
        "endpoint": settings["endpoint"],
        "errors": _errors(job) if status == "failed" else None,
        "input_file_id": job.spec.inputs["requests"],
        "completion_window": settings["completion_window"],
        "status": status,
        "output_file_id": ids[OUTPUT],
        "error_file_id": ids[ERRORS],
        "created_at": int(job.created_at),
        "in_progress_at": _whole(job.started_at),
        "expires_at": int(float(settings["deadline"])),
        "finalizing_at": None,
        "cancelling_at": None,
        **ended,
        "request_counts": _counts(job, facts),
        "metadata": json.loads(str(settings["metadata"])),
    }


def _errors(job: Job) -> dict[str, Any]:
    told = {"code": str(job.status.end or "failed"), "message": job.status.reason}
    return {"object": "list", "data": [{**told, "line": None, "param": None}]}


def _counts(job: Job, facts: Mapping[str, Any]) -> dict[str, int]:
    progress, total = job.status.progress, int(job.spec.settings["requests"])
    if facts:
        return {"total": total, **{name: int(facts[name]) for name in ("completed", "failed")}}
    done, failed = (progress.done, progress.failed) if progress else (0, 0)
    return {"total": total, "completed": done - failed, "failed": failed}


def _whole(at: float | None) -> int | None:
    return None if at is None else int(at)


def show_file(file: Artifact) -> dict[str, Any]:
    """A file as OpenAI's API shows it."""
    facts = file.spec.facts
    (entry,) = file.spec.files
    return {
        "id": file.id,
        "object": "file",
        "bytes": file.size_bytes,
        "created_at": int(file.created_at),
        "filename": facts.get(FILENAME) or entry.path,
        "purpose": facts.get(PURPOSE) or "user_data",
        "status": "processed",
    }


def page(
    rows: Sequence[Any],
    show: Callable[[Any], dict[str, Any]],
    *,
    after: str,
    limit: int,
) -> dict[str, Any]:
    """A page of rows with ids, those behind one, as OpenAI's API shows it. Raises NotFound."""
    ids = [row.id for row in rows]
    if after and after not in ids:
        raise NotFound(noun="page after", name=after)
    rest = rows[ids.index(after) + 1 :] if after else rows
    data = [show(row) for row in rest[:limit]]
    return {
        "object": "list",
        "data": data,
        "first_id": data[0]["id"] if data else None,
        "last_id": data[-1]["id"] if data else None,
        "has_more": len(rest) > limit,
    }
