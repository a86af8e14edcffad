"""Rows on the disk while a matrix is made: what ends early goes on where it stopped."""

import json
from pathlib import Path
from types import TracebackType
from typing import TextIO

from karez.core.errors import BadRequest
from karez.studio.architectures.parallel import Installed
from karez.studio.architectures.rows import Row, as_tree, rows_of_lines


class KeptRows:
    """Rows beside the file that is to have the matrix; in memory alone if there is none."""

    def __init__(self, output: Path | None, installed: Installed) -> None:
        """Read the rows that an earlier run with the same libraries has kept.

        Raises:
            BadRequest: The file cannot be written.
        """
        self.rows: dict[str, Row] = {}
        self._output = output
        self._part = output and output.with_name(f"{output.name}.part")
        self._file: TextIO | None = None
        if self._part is None:
            return
        head = json.dumps(dict(installed.versions))
        try:
            lines = self._part.read_text("utf-8").splitlines() if self._part.exists() else []
            is_same = lines[:1] == [head]
            if is_same:
                self.rows = {row.model_type: row for row in rows_of_lines(lines[1:])}
            self._file = self._part.open("a" if is_same else "w", encoding="utf-8")
            if is_same:
                self._file.write("\n")  # the last line may be half a one
            else:
                self._file.write(f"{head}\n")
        except OSError as error:
            raise BadRequest(problem=f"cannot write {self._part}: {error.strerror}") from error

    def __enter__(self) -> "KeptRows":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._file is not None:
            self._file.close()

    def add(self, row: Row) -> None:
        """Keep a row."""
        self.rows[row.model_type] = row
        if self._file is not None:
            self._file.write(json.dumps(as_tree(row)) + "\n")
            self._file.flush()

    def finish(self, text: str) -> None:
        """Write the whole matrix; the kept rows are needed no more. Raises BadRequest."""
        if self._output is None or self._part is None:
            return
        try:
            fresh = self._output.with_name(f".{self._output.name}.new")
            fresh.write_text(text, "utf-8")
            fresh.replace(self._output)
            self._part.unlink()
        except OSError as error:
            raise BadRequest(problem=f"cannot write {self._output}: {error.strerror}") from error
