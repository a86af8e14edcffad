"""What jobs of before have made, and the code of those to come."""

from collections.abc import Callable
from pathlib import Path

from karez.client.sdk import Client
from karez.client.upload import plan_upload
from karez.core.artifacts import ID_PREFIX, Artifact, ArtifactKind
from karez.core.errors import BadRequest, NotFound
from karez.core.job_outputs import parse_output
from karez.core.jobs import Job
from karez.core.workloads import State

Send = Callable[..., Artifact]
"""Uploads as Client.upload does."""


def stands(client: Client, job: Job) -> bool:
    """Whether a job succeeded, and what it made was not removed since."""
    if job.state != State.SUCCEEDED:
        return False
    try:
        for made in job.status.outputs.values():
            client.artifact(made)
    except NotFound:
        return False
    return True


def input_of(client: Client, project: str, text: str) -> str:
    """The artifact that an input means, by id; a name alone is one of the project.

    What another job makes (`jobs/JOB/OUTPUT`) stays as it is.

    Raises:
        NotFound: There is no such artifact.
        ValueError: It is written as an output of a job, and is none.
    """
    if parse_output(text) is not None:
        return text
    is_plain = "/" not in text and ":" not in text and not text.startswith(ID_PREFIX)
    return str(client.artifact(f"{project}/{text}" if is_plain else text).id)


def sent_code(send: Send, folder: Path, code: str, *, name: str, project: str) -> str:
    """The artifact of a folder that a job runs in; the same files are the same artifact.

    Args:
        send: Uploads it.
        folder: Where the path begins.
        code: The path; empty: there is none.
        name: Of the artifact.
        project: That owns it.

    Raises:
        BadRequest: It is no folder.
    """
    if not code:
        return ""
    path = folder / code
    if not path.is_dir():
        fix = "Give the path from the file that names it."
        raise BadRequest(problem=f"{path} is to be run in, and is no folder", fix=fix)
    plan = plan_upload(path, ArtifactKind.CODE)
    return str(send(plan, name=name, kind=ArtifactKind.CODE, project=project).id)
