"""Records of Parquet files, with the names of labels that Hugging Face's `datasets` numbers."""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pyarrow as arrow
from pyarrow import parquet

from karez.core.errors import BadRow, BrokenArtifact
from karez.studio.data.records import Record, check_header

_AT_ONCE = 1000


def parquet_records(path: Path, name: str) -> Iterator[Record]:
    """Yield the rows of a file. Raises BadRow or BrokenArtifact."""
    try:
        with parquet.ParquetFile(path) as file:
            check_header(file.schema_arrow.names, name)
            labels = _label_names(file.schema_arrow.metadata or {})
            number = 0
            for batch in file.iter_batches(batch_size=_AT_ONCE):
                for row in batch.to_pylist():
                    number += 1
                    place = f"{name} row {number}"
                    yield Record(place=place, fields=_with_names(row, labels, place))
    except (arrow.ArrowException, OSError, ValueError, OverflowError) as error:
        problem = f"it cannot be read as Parquet: {error}"
        raise BrokenArtifact(name=name, problem=problem) from error


def _label_names(metadata: Mapping[bytes, bytes]) -> dict[str, list[str]]:
    """The names of numbered labels, as Hugging Face's `datasets` writes them (ClassLabel)."""
    try:
        features = json.loads(metadata.get(b"huggingface", b"{}"))["info"]["features"]
        return {
            column: [str(name) for name in feature["names"]]
            for column, feature in features.items()
            if isinstance(feature, dict) and feature.get("_type") == "ClassLabel"
        }
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return {}


def _with_names(
    row: dict[str, object], labels: Mapping[str, Sequence[str]], place: str
) -> dict[str, object]:
    for column, names in labels.items():
        number = row.get(column)
        if number is None or number == -1:  # -1: not labelled
            row[column] = None
        elif isinstance(number, int):
            if not 0 <= number < len(names):
                problem = f"label {number} has no name: there are {len(names)}"
                fix = "Correct the label, or the names in the file's metadata."
                raise BadRow(place=f"{place}, {column}", problem=problem, fix=fix)
            row[column] = names[number]
    return row
