"""Rows of chat data: JSON lines with `messages`. What cannot be trained on is named. Pure."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import IO

from karez.core.errors import BadRow
from karez.core.units import show_bytes

ROLES = ("system", "user", "assistant")
MAX_LINE = 64 << 20
"""Bytes of the longest line that is read: a file without line ends is not taken into memory."""
_ENCODINGS = ((b"\xff\xfe", "UTF-16"), (b"\xfe\xff", "UTF-16"))
_BOM = b"\xef\xbb\xbf"
Row = Sequence[Mapping[str, str]]
"""The messages of a row, each with `role` and `content`; the last is the assistant's."""


def bounded_lines(file: str, source: IO[bytes]) -> Iterator[bytes]:
    """Yield the lines of an open file. Raises BadRow for one of more than MAX_LINE bytes."""
    number = 0
    while line := source.readline(MAX_LINE + 1):
        number += 1
        if len(line) > MAX_LINE:
            problem = f"the line is longer than {show_bytes(MAX_LINE)}"
            raise _wrong(file, number, "", problem, "Write one row per line.")
        yield line


def read_chat_rows(file: str, lines: Iterable[bytes]) -> Iterator[Row]:
    """Yield the rows of a file; blank lines are none.

    Lines end with a line feed, as JSON Lines says: U+2028 and the like belong to a text.

    Args:
        file: Its name, for errors.
        lines: Its lines, as `bounded_lines` yields them.

    Raises:
        BadRow: A line is no row; the error names it, its field, and what mends it.
    """
    count = 0
    for number, line in enumerate(lines, 1):
        for mark, encoding in _ENCODINGS if number == 1 else ():
            if line.startswith(mark):
                raise _wrong(file, 1, "", f"the file is {encoding}", _recode(file, encoding))
        text = _decode(file, number, line.removeprefix(_BOM) if number == 1 else line)
        if text.strip(" \t\r\n"):
            count += 1
            yield chat_row(f"{file} line {number}", _parsed(file, number, text))
    if not count:
        raise _wrong(file, 0, "", "there are no rows", "Write one JSON object per line.")


def _decode(file: str, number: int, line: bytes) -> str:
    try:
        return line.decode()
    except UnicodeDecodeError as error:
        problem = (
            f"byte {error.start + 1} of the line is {line[error.start]:#04x}, which is no UTF-8"
        )
        fix = _recode(file, "LATIN1") + " (or from the encoding that it has)"
        raise _wrong(file, number, "", problem, fix) from error


def _recode(file: str, encoding: str) -> str:
    return f"Convert it: iconv -f {encoding} -t UTF-8 {file} > new.jsonl"


def _parsed(file: str, number: int, text: str) -> object:
    try:
        row: object = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise _wrong(file, number, "", f"the line is no JSON ({error})", "Correct it.") from error
    return row


def chat_row(place: str, row: object) -> Row:
    """The messages of a row that was read.

    Args:
        place: File and line, for errors.
        row: What is there.

    Raises:
        BadRow: It cannot be trained on.
    """
    shape = '{"messages": [{"role": "user", "content": ...}, {"role": "assistant", ...}]}'
    if not isinstance(row, dict) or "messages" not in row:
        has = ", ".join(row) if isinstance(row, dict) else type(row).__name__
        raise _bad(place, "messages", f"it is missing; there is: {has}", f"Write {shape}.")
    messages = row["messages"]
    if not isinstance(messages, list) or not messages:
        raise _bad(place, "messages", "it is empty or no list", f"Write {shape}.")
    read = [_message(place, n, message) for n, message in enumerate(messages)]
    if read[-1]["role"] != "assistant":
        field = f"messages[{len(read) - 1}].role"
        problem = f"the last message is the {read[-1]['role']}'s: there is no answer to learn"
        raise _bad(place, field, problem, "End each row with the assistant's answer.")
    if not read[-1]["content"].strip():
        field = f"messages[{len(read) - 1}].content"
        raise _bad(place, field, "the answer is empty", "Write it, or drop the row.")
    return read


def _message(row: str, number: int, message: object) -> dict[str, str]:
    field = f"messages[{number}]"
    if not isinstance(message, dict):
        raise _bad(row, field, "it is no object", "Write role and content.")
    role = message.get("role")
    for name in ("tool_calls", "function_call"):
        if message.get(name):
            fix = "Write what was called and answered as text, or drop the row."
            raise _bad(row, f"{field}.{name}", "calls of tools are not trained on", fix)
    if role not in ROLES:
        fix = f"Roles are {', '.join(ROLES)}."
        raise _bad(row, f"{field}.role", f"it is {role!r}", fix)
    return {"role": str(role), "content": _content(row, f"{field}.content", message)}


def _content(row: str, field: str, message: Mapping[str, object]) -> str:
    content = message.get("content")
    if isinstance(content, str):
        return whole_text(content, f"{row}, {field}")
    if not isinstance(content, list):
        shown = "missing" if "content" not in message else json.dumps(content)
        raise _bad(row, field, f"it is {shown}", "Write a text, or drop the row.")
    texts = []
    for place, part in enumerate(content):
        kind = part.get("type") if isinstance(part, dict) else type(part).__name__
        text = part.get("text") if isinstance(part, dict) and kind == "text" else None
        if not isinstance(text, str):
            problem = f"a part of type {kind!r} is no text"
            fix = "Only parts of type text are trained on: drop the others, or the row."
            raise _bad(row, f"{field}[{place}]", problem, fix)
        texts.append(text)
    return whole_text("".join(texts), f"{row}, {field}")


def whole_text(text: str, place: str) -> str:
    """The text, if it can be written. Raises BadRow for half a surrogate pair."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        problem = f"character {error.start + 1} is half a pair, {text[error.start]!a}"
        fix = "Write the character as a whole pair, or as itself."
        raise BadRow(place=place, problem=problem, fix=fix) from error
    return text


def _wrong(file: str, number: int, field: str, problem: str, fix: str) -> BadRow:
    return _bad(f"{file} line {number}" if number else file, field, problem, fix)


def _bad(row: str, field: str, problem: str, fix: str) -> BadRow:
    return BadRow(place=f"{row}, {field}" if field else row, problem=problem, fix=fix)
