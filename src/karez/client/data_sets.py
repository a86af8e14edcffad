"""From tables to a data set: the job that makes it."""

import hashlib
import re
from pathlib import Path

from karez.client.upload import CHAT_FILES, UploadPlan, plan_upload
from karez.core.artifacts import ArtifactKind
from karez.core.errors import BadRequest
from karez.core.jobs import JobSpec, Scalar
from karez.core.table_formats import KNOWN_ENDINGS, format_of_tables, table_format

TABLES_SUFFIX = "-tables"
"""Ends the name of an artifact with the tables of a data set."""
REPORT = "report.json"
"""File of a data set that says how its tables were read."""
_LONGEST_STEM = 50


def is_chat_data(path: Path) -> bool:
    """Whether a folder is a data set of chat rows already: its tables are named as parts are."""
    files = path.iterdir() if path.is_dir() else ()
    tables = {file.name for file in files if table_format(file.name) is not None} - {REPORT}
    return bool(tables) and tables <= set(CHAT_FILES) and _has_messages(path / min(tables))


def _has_messages(file: Path) -> bool:
    """Whether the first row seems to be a chat row: its own reading says what is wrong with it."""
    with file.open("rb") as lines:
        return b'"messages"' in lines.readline(1 << 20)


def plan_tables(path: Path) -> UploadPlan:
    """Plan the upload of a file or folder of tables. Raises BadRequest if it holds none."""
    plan = plan_upload(path, ArtifactKind.DATASET)
    if not format_of_tables(file.entry.path for file in plan.files):
        fix = f"Names of tables end in {KNOWN_ENDINGS}; save a spreadsheet as CSV."
        raise BadRequest(problem=f"{path} holds no table", fix=fix)
    return plan


def job_stem(name: str) -> str:
    """A name that jobs may have, as near to another name as can be."""
    plain = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
    if plain == name and len(plain) <= _LONGEST_STEM:
        return plain
    mark = hashlib.sha256(name.encode()).hexdigest()[:6]  # two names stay two
    return f"{plain[: _LONGEST_STEM - 7].strip('-') or 'data'}-{mark}"


def preparation(tables: str, *, name: str, project: str = "default", **settings: Scalar) -> JobSpec:
    """The job that makes a data set of tables.

    Args:
        tables: Artifact with the tables.
        name: Name of the data set.
        project: Project that owns both.
        settings: Of the recipe `prepare-data`.
    """
    return JobSpec(
        name=f"{job_stem(name)}-data",
        project=project,
        recipe="prepare-data",
        settings={"name": name, **settings},
        inputs={"tables": tables},
    )
