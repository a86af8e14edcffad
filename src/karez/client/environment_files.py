"""Files of an environment: requirements, and the wheels for nodes without an index."""

import hashlib
from pathlib import Path

from karez.client.upload import LocalFile, UploadPlan
from karez.core.artifacts import FileEntry
from karez.core.errors import BadRequest
from karez.core.python_environments import REQUIREMENTS, WHEELS, parse_requirements

PIP_FORMAT = "pip"


def plan_environment(requirements: Path, wheels: Path | None = None) -> UploadPlan:
    """Plan the upload of an environment.

    Args:
        requirements: File in pip's format.
        wheels: Folder whose wheels are all that nodes install from.

    Raises:
        BadRequest: A file cannot be read, or nodes could not install what it lists.
    """
    try:
        parse_requirements(requirements.name, requirements.read_text("utf-8"))
        files = {REQUIREMENTS: requirements}
        if wheels is not None:
            found = sorted(wheels.glob("*.whl"))
            if not found:
                fix = f"Make them: pip wheel -r {requirements} -w {wheels}"
                raise BadRequest(problem=f"there are no wheels in {wheels}", fix=fix)
            files |= {f"{WHEELS}/{path.name}": path for path in found}
        return UploadPlan(
            root=requirements, files=tuple(_local(name, path) for name, path in files.items())
        )
    except (ValueError, OSError) as error:
        raise BadRequest(problem=str(error)) from error


def _local(name: str, path: Path) -> LocalFile:
    with path.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    entry = FileEntry(path=name, sha256=digest, size_bytes=path.stat().st_size)
    return LocalFile(entry=entry, content=path)
