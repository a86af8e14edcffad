"""`karez.training`: the session that user code joins."""

from collections.abc import Iterator
from pathlib import Path
from typing import assert_type

from karez import training


def session() -> None:
    with training.session(seed=3) as run:
        assert_type(run, training.Run)
        assert_type(run.rank, int)
        assert_type(run.input("model"), Path)
    training.sesion()  # type: ignore[attr-defined]  # unknown names are refused
    training.session(sed=1)  # type: ignore[call-arg]  # so are unknown options


def annotated(run: training.Run, batches: list[int]) -> Iterator[int]:
    yield from run.steps(batches, total=3)
