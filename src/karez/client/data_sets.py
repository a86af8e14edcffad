"""From tables to a data set: the job that makes it."""

import re
from pathlib import Path

from karez.client.upload import UploadPlan, plan_upload
from karez.core.artifacts import ArtifactKind
from karez.core.errors import BadRequest
from karez.core.jobs import JobSpec, Scalar
from karez.core.table_formats import KNOWN_ENDINGS, format_of_tables

TABLES_SUFFIX = "-tables"
"""Ends the name of an artifact with the tables of a data set."""
_LONGEST_STEM = 50


def is_chat_data(path: Path) -> bool:
    """Whether a folder is a data set of chat rows already: both parts have their file."""
    return all((path / f"{part}.jsonl").is_file() for part in ("train", "held_out"))


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
    return plain[:_LONGEST_STEM].strip("-") or "data"


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
