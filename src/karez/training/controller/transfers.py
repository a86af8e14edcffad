"""Work that moves files, beside the control of jobs."""

from collections.abc import Callable
from concurrent.futures import Executor, Future
from dataclasses import dataclass
from typing import ParamSpec, TypeVar

import structlog

P = ParamSpec("P")
T = TypeVar("T")

log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class Transfers:
    """Runs work on an executor, and logs what it raises."""

    executor: Executor

    def submit(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> "Future[T]":
        """Run work beside the caller."""
        future = self.executor.submit(work, *args, **kwargs)
        future.add_done_callback(_log_failure)
        return future

    def stop(self) -> None:
        """Begin nothing more; what runs is not waited for."""
        self.executor.shutdown(wait=False, cancel_futures=True)


def _log_failure(future: "Future[T]") -> None:
    if not future.cancelled() and (error := future.exception()) is not None:
        log.error("transfer.failed", exc_info=error)
