"""Records of a file: CSV, JSON and Parquet. Each knows its place, so that errors can name it."""

import codecs
import csv
import gzip
import io
import json
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import pyarrow as arrow
from pyarrow import parquet

from karez.core.chat_rows import MAX_LINE, bounded_lines
from karez.core.errors import BadRow, BrokenArtifact
from karez.core.table_formats import PACKED, TableFormat, table_format
from karez.core.units import show_bytes
from karez.studio.data.records import Record

MAX_CELL = 1 << 20
"""Characters of the longest cell of a CSV file; a quote that is not closed makes longer ones."""
MAX_ARRAY = 256 << 20
"""Bytes of the longest JSON array, which is read as a whole."""
_MARKS = ((b"\xef\xbb\xbf", "utf-8-sig"), (b"\xff\xfe", "utf-16"), (b"\xfe\xff", "utf-16"))
_DELIMITERS = ",;\t|"
_AT_ONCE = 1000


def read_records(path: Path, name: str, encoding: str = "") -> Iterator[Record]:
    """Yield the records of a file; blank lines are none.

    Args:
        path: The file.
        name: Its name within the data set: its ending says its format.
        encoding: Of a text file, as Python names it; empty is UTF-8, or what a byte order mark
            says.

    Raises:
        BadRow: A line is no record.
        BrokenArtifact: The file cannot be read as what its name says.
    """
    found = table_format(name)
    try:
        if found == TableFormat.PARQUET:
            yield from _parquet(path, name)
            return
        with _opened(path, name) as file:
            if found in (TableFormat.CSV, TableFormat.TSV):
                yield from _csv(_lines(file, name, encoding), name, found)
            elif found == TableFormat.JSON:
                yield from _json_array(file, name, encoding)
            else:
                yield from _json_lines(_lines(file, name, encoding), name)
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise BrokenArtifact(name=name, problem=f"it cannot be unpacked: {error}") from error


def _opened(path: Path, name: str) -> IO[bytes]:
    opened: Any = gzip.open if name.lower().endswith(PACKED) else open
    file: IO[bytes] = opened(path, "rb")
    return file


def _lines(file: IO[bytes], name: str, encoding: str) -> Iterator[str]:
    """The lines of a text file, decoded one by one, so that an error names its line."""
    start = file.read(3)
    file.seek(0)
    encoding = encoding or next((e for mark, e in _MARKS if start.startswith(mark)), "utf-8")
    if codecs.lookup(encoding).name.startswith(("utf-16", "utf-32")):
        yield from _wide_lines(file, name, encoding)
        return
    for number, line in enumerate(bounded_lines(name, file), 1):
        try:
            text = line.decode(encoding.removesuffix("-sig"))
            yield text.removeprefix("\ufeff") if number == 1 else text
        except UnicodeDecodeError as error:
            raise _not_decoded(name, number, encoding, error) from error


def _wide_lines(file: IO[bytes], name: str, encoding: str) -> Iterator[str]:
    """The lines of a file whose line ends are wider than a byte."""
    number, text = 1, io.TextIOWrapper(file, encoding, newline="")
    try:
        while line := text.readline(MAX_LINE):
            yield line
            number += 1
    except UnicodeError as error:
        raise _not_decoded(name, number, encoding, error) from error
    finally:
        text.detach()  # the file is its opener's to close


def _not_decoded(name: str, number: int, encoding: str, error: UnicodeError) -> BadRow:
    problem = f"it is no {encoding.upper()}"
    if isinstance(error, UnicodeDecodeError):
        byte = error.object[error.start]
        problem = f"byte {error.start + 1} of it is {byte:#04x}, which is no {encoding.upper()}"
    fix = (
        "Name the encoding that the file has, such as --encoding gb18030; a file in which several "
        "are mixed has to be mended first."
    )
    return BadRow(place=f"{name} line {number}", problem=problem, fix=fix)


def _csv(lines: Iterator[str], name: str, kind: TableFormat) -> Iterator[Record]:
    first = next(lines, "")
    delimiter = "\t" if kind == TableFormat.TSV else max(_DELIMITERS, key=first.count)
    csv.field_size_limit(MAX_CELL)
    reader = csv.reader(_chain(first, lines), delimiter=delimiter, strict=True)
    header: list[str] = []
    begins = 1
    try:
        for cells in reader:
            place, begins = f"{name} line {begins}", reader.line_num + 1
            if not any(cell.strip() for cell in cells):
                continue
            if not header:
                header = _header(cells, place)
                continue
            if len(cells) != len(header):
                problem = f"it has {len(cells)} cells, and the header has {len(header)}"
                fix = f"Quote cells that hold {delimiter!r}, or correct the line."
                raise BadRow(place=place, problem=problem, fix=fix)
            yield Record(place=place, fields=dict(zip(header, cells, strict=True)))
    except csv.Error as error:
        fix = "Is a quote not closed, or not doubled inside a quoted cell?"
        raise BadRow(place=f"{name} line {begins}", problem=str(error), fix=fix) from error


def _chain(first: str, lines: Iterator[str]) -> Iterator[str]:
    yield first
    yield from lines


def _header(cells: Sequence[str], place: str) -> list[str]:
    names = [cell.strip() for cell in cells]
    twice = next((name for name, count in Counter(names).items() if count > 1), None)
    if "" in names:
        number = names.index("") + 1
        problem = f"column {number} of the header has no name"
        raise BadRow(place=place, problem=problem, fix="Name each column in the first line.")
    if twice is not None:
        problem = f"two columns of the header are named {twice!r}"
        raise BadRow(place=place, problem=problem, fix="Rename one of them.")
    return names


def _json_lines(lines: Iterator[str], name: str) -> Iterator[Record]:
    for number, line in enumerate(lines, 1):
        if line.strip(" \t\r\n"):
            place = f"{name} line {number}"
            yield _as_record(_parsed(line, place), place)


def _json_array(file: IO[bytes], name: str, encoding: str) -> Iterator[Record]:
    data = file.read(MAX_ARRAY + 1)
    if len(data) > MAX_ARRAY:
        problem = f"an array of more than {show_bytes(MAX_ARRAY)} is not read"
        raise BadRow(place=name, problem=problem, fix="Write JSON lines (.jsonl).")
    text = "".join(_lines(io.BytesIO(data), name, encoding))
    rows = _parsed(text, name)
    if not isinstance(rows, list):
        problem = f"it is one {type(rows).__name__}, no array of rows"
        raise BadRow(place=name, problem=problem, fix="Write an array of objects, or JSON lines.")
    for number, row in enumerate(rows, 1):
        place = f"{name} row {number}"
        yield _as_record(row, place)


def _parsed(text: str, place: str) -> object:
    def once(pairs: Sequence[tuple[str, object]]) -> dict[str, object]:
        row = dict(pairs)
        if len(row) != len(pairs):
            count = Counter(key for key, _ in pairs)
            twice = next(key for key, number in count.items() if number > 1)
            problem = f"the key {twice!r} is there twice"
            raise BadRow(place=place, problem=problem, fix="Keep one of them.")
        return row

    try:
        parsed: object = json.loads(text, object_pairs_hook=once)
    except (ValueError, RecursionError) as error:
        problem = f"it is no JSON ({error})"
        raise BadRow(place=place, problem=problem, fix="Correct it.") from error
    return parsed


def _as_record(row: object, place: str) -> Record:
    if not isinstance(row, dict):
        problem = f"it is a {type(row).__name__}, no object"
        raise BadRow(place=place, problem=problem, fix="Write one JSON object per row.")
    return Record(place=place, fields=row)


def _parquet(path: Path, name: str) -> Iterator[Record]:
    try:
        with parquet.ParquetFile(path) as file:
            _header(file.schema_arrow.names, name)
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
