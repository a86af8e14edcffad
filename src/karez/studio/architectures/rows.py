"""What works with each architecture: rows of the matrix. Pure."""

import difflib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from karez.core.errors import BadRequest

OK = "ok"
NONE = "none"
"""The architecture has no such thing: one without a language model's head generates nothing."""


class Check(StrEnum):
    """What is tried with an architecture, in this order."""

    WEIGHTS = "weights"
    """Only of a folder: the matrix has none."""
    CONFIG = "config"
    INIT = "init"
    FORWARD = "forward"
    NPU_FORWARD = "npu-forward"
    NPU_TRAIN = "npu-train"
    SAVE = "save"
    GENERATE = "generate"
    TRAIN = "train"
    RECOVERY = "recovery"
    LORA = "lora"
    MERGE = "merge"


MEANING: Mapping[Check, str] = {
    Check.WEIGHTS: "all weights of the folder are there, of the right shape, and finite",
    Check.CONFIG: "a configuration of tiny size can be made",
    Check.INIT: "a model can be made of it, with random weights",
    Check.FORWARD: "a forward gives finite outputs",
    Check.NPU_FORWARD: "the emulated NPU gives the same outputs, to 1e-3",
    Check.NPU_TRAIN: "a loss, its gradients and a step of AdamW on the emulated NPU",
    Check.SAVE: "saved as safetensors and read back, it gives the same outputs, to 1e-4",
    Check.GENERATE: "four tokens are generated, greedily",
    Check.TRAIN: "three steps of AdamW, each with a finite loss",
    Check.RECOVERY: "state packed and put into a fresh model: its next step is the same, bit for "
    "bit",
    Check.LORA: "a LoRA adapter on all linear modules gets gradients",
    Check.MERGE: "the merged model gives the adapter's outputs, to 1e-3",
}
COLUMNS = tuple(check for check in Check if check is not Check.WEIGHTS)
"""What the matrix has of each architecture."""
_GREEN = (Check.TRAIN, Check.NPU_TRAIN)


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """What was seen of one architecture."""

    model_type: str
    family: str
    """What its head is for, such as `causal-lm`."""
    architecture: str
    """The class of transformers that was tried."""
    parameters: int = 0
    """Of the tiny model."""
    outcomes: Mapping[Check, str] = field(default_factory=dict)
    """OK, NONE, or why it failed. What is missing was not reached."""

    @property
    def is_green(self) -> bool:
        """Whether it trains, on the host and on the emulated NPU."""
        return all(self.outcomes.get(check) == OK for check in _GREEN)

    @property
    def failures(self) -> dict[Check, str]:
        """Checks that failed, and why."""
        return {c: text for c, text in self.outcomes.items() if text not in (OK, NONE)}

    def mark(self, check: Check) -> str:
        """A short word for the outcome of a check."""
        outcome = self.outcomes.get(check, "")
        return {OK: "yes", NONE: "-", "": "?"}.get(outcome, "no")


@dataclass(frozen=True, slots=True, kw_only=True)
class Matrix:
    """Rows, and what they were seen with."""

    date: str
    versions: Mapping[str, str]
    known: int
    """Model types that the transformers of `versions` has a head or a base class for."""
    rows: tuple[Row, ...]

    @property
    def families(self) -> tuple[str, ...]:
        """Families that have rows, largest first."""
        counts: dict[str, int] = {}
        for row in self.rows:
            counts[row.family] = counts.get(row.family, 0) + 1
        return tuple(sorted(counts, key=lambda name: (-counts[name], name)))


def nearest_green(row: Row, rows: Iterable[Row]) -> str:
    """Return the model type that is most like one and works: of its family, else of its name."""
    others = [r for r in rows if r.is_green and r.model_type != row.model_type]
    first = _first_word(row.model_type)
    names = [r.model_type for r in others if r.family == row.family] or [
        r.model_type for r in others if _first_word(r.model_type) == first
    ]

    def likeness(name: str) -> float:
        return difflib.SequenceMatcher(None, name, row.model_type, autojunk=False).ratio()

    return max(names, key=likeness, default="")


def _first_word(model_type: str) -> str:
    return model_type.replace("-", "_").partition("_")[0]


def counts(rows: Sequence[Row]) -> dict[Check, int]:
    """Count the rows in which each check passed."""
    return {check: sum(row.outcomes.get(check) == OK for row in rows) for check in COLUMNS}


def as_tree(row: Row) -> dict[str, Any]:
    """Write a row for JSON."""
    passed = [check for check, text in row.outcomes.items() if text == OK]
    return {
        "type": row.model_type,
        "family": row.family,
        "class": row.architecture,
        "parameters": row.parameters,
        "passed": [str(check) for check in passed],
        "none": [str(c) for c, text in row.outcomes.items() if text == NONE],
        "failed": {str(check): text for check, text in row.failures.items()},
    }


def from_tree(tree: Mapping[str, Any]) -> Row:
    """Read a row from JSON. Raises KeyError, TypeError or ValueError."""
    outcomes = {Check(name): OK for name in tree["passed"]}
    outcomes |= {Check(name): NONE for name in tree["none"]}
    outcomes |= {Check(name): str(text) for name, text in tree["failed"].items()}
    return Row(
        model_type=tree["type"],
        family=tree["family"],
        architecture=tree["class"],
        parameters=tree["parameters"],
        outcomes={check: outcomes[check] for check in Check if check in outcomes},
    )


def dump(matrix: Matrix) -> str:
    """Write a matrix as JSON, a line for each row."""
    head = {"date": matrix.date, "versions": dict(matrix.versions), "known": matrix.known}
    lines = ",\n".join(json.dumps(as_tree(row)) for row in matrix.rows)
    return f'{json.dumps(head)[:-1]}, "rows": [\n{lines}\n]}}\n'


def load(text: str, name: str) -> Matrix:
    """Read a matrix that `dump` wrote. Raises BadRequest."""
    try:
        tree = json.loads(text)
        return Matrix(
            date=tree["date"],
            versions=tree["versions"],
            known=tree["known"],
            rows=tuple(from_tree(row) for row in tree["rows"]),
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise BadRequest(
            problem=f"{name} holds no matrix of architectures",
            fix="Make one with `karez models matrix --run --output FILE`.",
        ) from error


def rows_of_lines(lines: Iterable[str]) -> Iterator[Row]:
    """Read rows of JSON lines; a half-written last line, or any other, is left out."""
    for line in lines:
        try:
            yield from_tree(json.loads(line))
        except (ValueError, KeyError, TypeError):
            continue
