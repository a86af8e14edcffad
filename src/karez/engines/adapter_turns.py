"""Answers of several adapters from a model that computes with one at a time. Pure.

All answers that run together have one adapter. Those of another wait until these have ended, and
what comes meanwhile waits behind them: no adapter waits for longer than one round of answers.
"""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

from typing_extensions import override

from karez.engines.generation import REFUSED, Asked, Backend, BadField, Piece


@dataclass(slots=True, eq=False)
class _Waiting:
    asked: Asked
    tell: Callable[[Piece], None]
    give_up: Callable[[], None] | None = None
    """Of an answer that has begun."""
    is_over: bool = False


@dataclass(slots=True, kw_only=True)
class AdapterTurns(Backend):
    """Lets a backend answer with one adapter at a time."""

    inner: Backend
    use: Callable[[str], None]
    """Makes the backend, which is idle, compute with an adapter; empty: with none."""
    _current: str = ""
    _running: int = 0
    _queue: deque[_Waiting] = field(default_factory=deque)

    @property
    @override
    def has_schemas(self) -> bool:
        return self.inner.has_schemas

    @property
    @override
    def end_tokens(self) -> frozenset[int]:
        return self.inner.end_tokens

    @override
    def begin(self, asked: Asked, tell: Callable[[Piece], None]) -> Callable[[], None]:
        one = _Waiting(asked, tell)
        self._queue.append(one)
        self._next()
        return lambda: self._give_up(one)

    def _next(self) -> None:
        """Begin what may begin now, in the order in which it came."""
        while self._queue:
            one = self._queue[0]
            if one.is_over:
                self._queue.popleft()
                continue
            if one.asked.adapter != self._current:
                if self._running:
                    return
                self.use(one.asked.adapter)
                self._current = one.asked.adapter
            self._queue.popleft()
            self._running += 1
            try:
                one.give_up = self.inner.begin(one.asked, partial(self._told, one))
            except BadField as error:
                one.is_over = True
                self._running -= 1
                one.tell(Piece(end=REFUSED, problem=str(error)))

    def _told(self, one: _Waiting, piece: Piece) -> None:
        one.tell(piece)
        if piece.end:
            self._ended(one)

    def _give_up(self, one: _Waiting) -> None:
        if one.is_over:
            return
        if one.give_up is not None:
            one.give_up()
            self._ended(one)
        else:
            one.is_over = True

    def _ended(self, one: _Waiting) -> None:
        if not one.is_over:
            one.is_over = True
            self._running -= 1
            self._next()
