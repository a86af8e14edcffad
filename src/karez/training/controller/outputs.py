"""Registers the outputs of a job as artifacts with their lineage."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from karez.core.artifacts import (
    KEPT_UNTIL,
    Artifact,
    ArtifactKind,
    ArtifactSpec,
    FileEntry,
    Lineage,
    artifact_id,
)
from karez.core.codec import from_text, to_text
from karez.core.errors import BadRequest
from karez.core.jobs import Job
from karez.core.names import LABEL_LIMIT, as_label, check_label
from karez.training.controller.controller_deps import ControllerDeps

UNFINISHED = "unfinished"
CARD = "karez.json"
"""Name of the manifest file in an output folder."""
MAX_CARD_BYTES = 1 << 20
INDEX_CHARACTERS = 12
"""Room for the index of a job of an array behind a name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputManifest:
    """Manifest of an output; every field may be left out."""

    kind: ArtifactKind = ArtifactKind.REPORT
    name: str = ""
    format: str = ""
    source: str = ""
    licence: str = ""
    facts: Mapping[str, str | int | float | bool | None] = field(default_factory=dict)


def register_outputs(
    stores: ControllerDeps,
    job: Job,
    files: Sequence[tuple[str, FileEntry]],
    *,
    kept_until: float | None = None,
) -> Mapping[str, str]:
    """Register output files; returns output name -> artifact id. Repeating it changes nothing.

    Args:
        stores: Where to.
        job: Whose outputs they are.
        files: (output name, file) pairs.
        kept_until: Until when outputs of a job that did not succeed are kept, in UTC epoch
            seconds; they are reports, whatever they say they are: nothing takes them for results.

    Raises:
        BadRequest: An output of a job that succeeded has a manifest that cannot be read.
    """
    outputs: dict[str, list[FileEntry]] = {}
    for name, entry in files:
        outputs.setdefault(name, []).append(entry)
    receipts = tuple(receipt.id for receipt in stores.store.history.receipts(job.id))
    ids: dict[str, str] = {}
    for name, entries in outputs.items():
        try:
            manifest = _manifest(stores, name, entries)
        except BadRequest:
            if kept_until is None:
                raise
            manifest = OutputManifest()
        spec = _artifact_spec(job, name, entries, manifest, receipts)
        if kept_until is not None:
            name = f"{UNFINISHED}-{name}"
            facts = {**spec.facts, KEPT_UNTIL: kept_until}
            own = as_label(f"{_numbered(job.spec.name, job)}-{name}")
            spec = replace(spec, name=own, kind=ArtifactKind.REPORT, format="", facts=facts)
        artifact = Artifact(
            id=artifact_id(spec), spec=spec, owner=job.owner, created_at=stores.clock.now()
        )
        ids[name] = stores.store.artifacts.add(artifact).id
    return ids


def _artifact_spec(
    job: Job,
    output: str,
    entries: Sequence[FileEntry],
    manifest: OutputManifest,
    receipts: tuple[str, ...],
) -> ArtifactSpec:
    inputs: dict[str, Any] = dict(job.spec.inputs)
    if job.spec.code:
        inputs["code"] = job.spec.code
    if job.spec.environment:
        inputs["environment"] = job.spec.environment
    lineage = Lineage(
        job=job.id,
        inputs=inputs,
        receipts=receipts,
        source=manifest.source,
        licence=manifest.licence,
    )
    return ArtifactSpec(
        name=_numbered(manifest.name, job) or as_label(f"{_numbered(job.spec.name, job)}-{output}"),
        kind=manifest.kind,
        project=job.spec.project,
        format=manifest.format,
        files=tuple(entry for entry in entries if entry.path != CARD),
        lineage=lineage,
        facts=manifest.facts,
    )


def _numbered(name: str, job: Job) -> str:
    """The name, with the job's index where others of an array give the same one."""
    return name if job.array is None or not name else f"{name}-{job.array.index}"


def _manifest(stores: ControllerDeps, output: str, entries: Sequence[FileEntry]) -> OutputManifest:
    for entry in entries:
        if entry.path == CARD:
            with stores.blobs.open(entry.sha256) as file:
                text = file.read(MAX_CARD_BYTES + 1)
            return _read_manifest(output, text)
    return OutputManifest()


def _read_manifest(output: str, text: bytes) -> OutputManifest:
    problem = f"it has more than {MAX_CARD_BYTES:,} bytes"
    if len(text) <= MAX_CARD_BYTES:
        try:
            manifest = from_text(OutputManifest, text)
            if manifest.name:
                check_label(manifest.name, limit=LABEL_LIMIT - INDEX_CHARACTERS)
        except ValueError as error:
            problem = str(error)
        else:
            if "\\u0000" not in to_text(manifest):
                return manifest
            problem = "a text in it has a NUL character"
    raise BadRequest(
        problem=f"{CARD} of the output {output!r} cannot be read: {problem}",
        fix="docs/environment.md says what it may hold.",
    )
