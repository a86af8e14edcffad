"""Reads and judges records of both forms: the recorder's and msprobe's."""

from dataclasses import replace
from pathlib import Path
from zipfile import BadZipFile

from karez.core.errors import BadRequest
from karez.equivalence import msprobe
from karez.equivalence.compare import compare
from karez.equivalence.record import Record
from karez.equivalence.verdict import Verdict


def read(folder: Path, rank: int = 0) -> Record:
    """Read a record of either form. Raises BadRequest."""
    for at in (folder, folder / f"rank-{rank}"):
        if (at / "record.json").is_file():
            try:
                return Record.read(at)
            except (OSError, EOFError, KeyError, ValueError, BadZipFile) as error:
                raise BadRequest(problem=f"{at} holds no whole record: {error}") from error
    if folder.is_dir() and msprobe.is_dump(folder):
        return msprobe.read(folder, rank)
    raise BadRequest(
        problem=f"{folder} holds neither a record nor a dump of msprobe",
        fix="Records come from `karez migrate verify --keep FOLDER`, dumps from its dump_path.",
    )


def judge(reference: Record, target: Record, again: Record | None = None) -> Verdict:
    """Compare two records; of records of two forms, only the rows that both have.

    Raises:
        BadRequest: The records have no rows in common.
    """
    forms = {record.about.get("form", "karez") for record in (reference, target)}
    if len(forms) > 1:
        reference, target = _shared(reference, target), _shared(target, reference)
    all_of = [one for one in (reference, target, again) if one is not None]
    tasks = {record.about["task"] for record in all_of if "task" in record.about}
    if len(tasks) > 1 or (len(forms) > 1 and not reference.rows):
        raise BadRequest(
            problem="the two have nothing in common that could be compared",
            fix="Dump both with the same task and level, tensors for a record of karez's.",
        )
    verdict = compare(reference, target, again)
    verdict.needs_losses = forms == {"karez"}
    if len(forms) > 1:
        verdict.unmatched = [one for one in verdict.unmatched if " losses against " not in one]
    return verdict


def _shared(record: Record, other: Record) -> Record:
    """The rows that the other record also has: dumps lack optimizers, records lack functions."""
    known = {(row["step"], row["kind"], row["name"]): row for row in other.rows}
    made = replace(record, rows=[], samples={})
    rows: list[dict[str, object]] = []
    samples = {}
    for number, row in enumerate(record.rows):
        there = known.get((row["step"], row["kind"], row["name"]))
        if there is None:
            continue
        kept = dict(row)
        for side in ("in", "out"):
            kept[side] = {key: about for key, about in row[side].items() if key in there[side]}
            for key in kept[side]:
                samples[f"{len(rows)}/{side}/{key}"] = record.samples[f"{number}/{side}/{key}"]
        if kept["out"]:
            rows.append(kept)
    made.rows, made.samples = rows, samples
    return made
