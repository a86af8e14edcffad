"""Tables that people bring as training data, told by their names. Pure."""

from collections.abc import Iterable
from enum import StrEnum


class TableFormat(StrEnum):
    """How the rows of a file are written."""

    CSV = "csv"
    TSV = "tsv"
    JSONL = "jsonl"
    JSON = "json"
    """One array of objects."""
    PARQUET = "parquet"


_ENDINGS = {
    "csv": TableFormat.CSV,
    "tsv": TableFormat.TSV,
    "jsonl": TableFormat.JSONL,
    "ndjson": TableFormat.JSONL,
    "json": TableFormat.JSON,
    "parquet": TableFormat.PARQUET,
}
PACKED = ".gz"
KNOWN_ENDINGS = ", ".join(f".{ending}" for ending in _ENDINGS)


def table_format(name: str) -> TableFormat | None:
    """The format of a file by its name, packed with gzip or not; None: it is no table."""
    stem = name.lower().removesuffix(PACKED)
    found = _ENDINGS.get(stem.rpartition(".")[2]) if "." in stem else None
    return None if found == TableFormat.PARQUET and name.lower().endswith(PACKED) else found


def format_of_tables(names: Iterable[str]) -> str:
    """One word for the format of some files: their common one, or `tables`; empty: none is one."""
    formats = {found for name in names if (found := table_format(name)) is not None}
    return formats.pop() if len(formats) == 1 else "tables" if formats else ""


class Part(StrEnum):
    """What rows of a data set are for."""

    TRAIN = "train"
    VALIDATION = "validation"
    """Settings and thresholds are chosen on them."""
    HELD_OUT = "held_out"
    """Figures are read on them, and nothing is chosen."""


_WORDS = {
    "train": Part.TRAIN,
    "training": Part.TRAIN,
    "validation": Part.VALIDATION,
    "valid": Part.VALIDATION,
    "val": Part.VALIDATION,
    "dev": Part.VALIDATION,
    "test": Part.HELD_OUT,
    "testing": Part.HELD_OUT,
    "eval": Part.HELD_OUT,
    "evaluation": Part.HELD_OUT,
}


def part_of(name: str) -> Part | None:
    """What a file's name says its rows are for: the words that Hugging Face's `datasets` knows.

    Source: https://huggingface.co/docs/hub/datasets-file-names-and-splits
    """
    lowered = name.lower()
    if "held_out" in lowered or "held-out" in lowered:
        return Part.HELD_OUT
    word = ""
    found = set()
    for letter in f"{lowered}.":
        if letter.isalpha():
            word += letter
            continue
        if word in _WORDS:
            found.add(_WORDS[word])
        word = ""
    return found.pop() if len(found) == 1 else None
