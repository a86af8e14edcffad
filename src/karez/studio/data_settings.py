"""The settings of the recipes that make data sets. Imports nothing that reads them."""

from dataclasses import dataclass

from karez.core.names import check_label
from karez.core.validation import FORBID


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportData:
    """Fetch a data set that the catalogue knows and write it as chat rows."""

    __pydantic_config__ = FORBID

    entry: str = "intent-router"
    """Name in the catalogue."""
    file: str = ""
    """A wheel on the node's disk, for hosts that reach no registry; empty downloads it."""
    held_out: float = 0.25
    """Share of rows kept for evaluation."""
    seed: int = 7

    def __post_init__(self) -> None:
        if not 0 < self.held_out < 1:
            raise ValueError(f"held_out is a share between 0 and 1, got {self.held_out}")


@dataclass(frozen=True, slots=True, kw_only=True)
class PrepareData:
    """Turn tables of a user's own (CSV, JSON, Parquet) into chat rows, split without leaks."""

    __pydantic_config__ = FORBID

    name: str
    """Name of the data set that is made."""
    prompt: str = ""
    """Column of the question, or of whole talks; empty: as it is called by custom."""
    answer: str = ""
    """Column of the answer or label; empty: as it is called by custom."""
    system: str = ""
    """Column of the system message; empty: `system`, if there is one."""
    instruction: str = ""
    """Text above each prompt, as the model will be asked later."""
    encoding: str = ""
    """Of text files, as Python names it; empty: UTF-8, or what a byte order mark says."""
    held_out: float = 0.1
    """Share of rows kept for evaluation, unless files are named for it."""
    validation: float = 0.0
    """Share of rows kept to choose settings and thresholds by."""
    similarity: float = 0.7
    """Rows whose prompts are at least this alike stay on one side; 1: only equal ones."""
    bad_rows: str = "refuse"
    """refuse fails at the first row that cannot be used; drop leaves such rows out and lists
    them."""
    source: str = ""
    """Where the rows come from."""
    licence: str = ""
    """As an SPDX name."""
    seed: int = 7

    def __post_init__(self) -> None:
        check_label(self.name)
        if self.bad_rows not in ("refuse", "drop"):
            raise ValueError(f"bad_rows is refuse or drop, got {self.bad_rows!r}")
        if not 0.6 <= self.similarity <= 1:
            raise ValueError(f"similarity is 0.6 to 1, got {self.similarity}")
        shares = (self.held_out, self.validation)
        if not all(0 <= share < 1 for share in shares) or sum(shares) >= 1:
            raise ValueError(f"held_out and validation are shares, below 1 together, got {shares}")
        if self.encoding:
            _check_encoding(self.encoding)


def _check_encoding(encoding: str) -> None:
    try:
        "".encode(encoding)
    except LookupError as error:
        problem = f"Python knows no encoding of texts that is called {encoding!r}"
        raise ValueError(problem) from error
