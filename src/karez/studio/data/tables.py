"""Records of a file: CSV, JSON and Parquet. Each knows its place, so that errors can name it."""

import codecs
import csv
import gzip
import io
import json
import re
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any

from karez.core.chat_rows import MAX_LINE, bounded_lines
from karez.core.errors import BadRow, BrokenArtifact
from karez.core.table_formats import PACKED, TableFormat, table_format
from karez.core.units import show_bytes
from karez.studio.data.parquet_tables import parquet_records
from karez.studio.data.records import Record, check_header

MAX_CELL = 1 << 20
"""Characters of the longest cell of a CSV file; a quote that is not closed makes longer ones."""
MAX_ARRAY = 256 << 20
"""Bytes of the longest JSON array, which is read as a whole."""
_MARKS = ((b"\xef\xbb\xbf", "utf-8-sig"), (b"\xff\xfe", "utf-16"), (b"\xfe\xff", "utf-16"))
_DELIMITERS = ",;\t|"
_SEPARATOR = re.compile(r'\s*"?sep=([^\r\n"])"?[,;\s]*', re.IGNORECASE)


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
            yield from parquet_records(path, name)
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
    named = _SEPARATOR.fullmatch(first)
    if named:  # a line of Excel's own; a blank one in its place keeps the numbers of the others
        first = "\n"
    _refuse_returns(first, name)
    delimiter = "\t" if kind == TableFormat.TSV else max(_DELIMITERS, key=first.count)
    delimiter = named[1] if named else delimiter
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
                header = check_header(cells, place)
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


def _json_lines(lines: Iterator[str], name: str) -> Iterator[Record]:
    for number, line in enumerate(lines, 1):
        if line.strip(" \t\r\n"):
            place = f"{name} line {number}"
            yield _as_record(_parsed(line, place), place)


def _json_array(file: IO[bytes], name: str, encoding: str) -> Iterator[Record]:
    data = file.read(MAX_ARRAY + 1)
    if len(data) > MAX_ARRAY:
        problem = f"a .json of more than {show_bytes(MAX_ARRAY)} is not read"
        fix = "Write JSON lines, in a file whose name ends in .jsonl."
        raise BadRow(place=name, problem=problem, fix=fix)
    lines = list(_lines(io.BytesIO(data), name, encoding))
    if len(lines) == 1 and lines[0].count("\r") > 1 and lines[0].lstrip().startswith("{"):
        _refuse_returns(lines[0], name)
    if _are_json_lines(lines):
        yield from _json_lines(iter(lines), name)
        return
    rows = _parsed("".join(lines), name)
    if not isinstance(rows, list):
        problem = f"it is one {type(rows).__name__}, no array of rows"
        raise BadRow(place=name, problem=problem, fix="Write an array of objects, or JSON lines.")
    for number, row in enumerate(rows, 1):
        place = f"{name} row {number}"
        yield _as_record(row, place)


def _refuse_returns(line: str, name: str) -> None:
    if "\r" in line.rstrip("\r\n"):
        problem = "its lines end in carriage returns alone"
        fix = "Save it with line feeds, as `tr '\\r' '\\n' < FILE > NEW` does."
        raise BadRow(place=f"{name} line 1", problem=problem, fix=fix)


def _are_json_lines(lines: Sequence[str]) -> bool:
    """Whether the first line is an object of its own, and more follow: many name such files so."""
    written = [line for line in lines if line.strip(" \t\r\n")]
    if len(written) < 2 or not written[0].lstrip().startswith("{"):
        return False
    try:
        json.loads(written[0])
    except (ValueError, RecursionError):
        return False
    return True


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
