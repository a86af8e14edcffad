"""How often and for how long a request is tried at replicas. Pure."""

from dataclasses import dataclass

TRIES = 3
"""Replicas that may be lost with a request in a row without bringing anything."""
HOLD_S = 60.0
"""How long a request waits for a replica that takes it, such as while one starts again."""
FALLBACK_S = 5.0
"""The same where another model may answer instead."""
TAKEOVER_S = 120.0
"""How long a broken stream waits for a replica."""
PAUSE_S = 0.25
"""Longest pause between two attempts."""


@dataclass(slots=True)
class Attempts:
    """The attempts of one request."""

    number: int = 0
    _taken: int = 0
    """Those in which a replica took the request."""
    _fruitless: int = 0
    """Replicas in a row that were lost without another token."""
    _tokens: int = 0
    """That had been sent when the last replica was lost."""
    _until: float = 0.0

    def pause_s(self, *, was_taken: bool, now: float, has_fallback: bool) -> float | None:
        """Seconds until the next attempt of a request that has brought nothing; None: no more."""
        self.number += 1
        self._taken += was_taken
        self._until = self._until or now + (FALLBACK_S if has_fallback else HOLD_S)
        if self._taken >= TRIES or now >= self._until:
            return None
        return min(PAUSE_S, 0.05 * self.number)

    def may_take_over(self, tokens: int, now: float) -> bool:
        """Note that a stream has lost its replica; returns whether it may go on at another."""
        is_further, self._tokens = tokens > self._tokens, tokens
        self._fruitless = 0 if is_further else self._fruitless + 1
        self.number = self._fruitless
        if is_further or not self._until:
            self._until = now + TAKEOVER_S
        return self._fruitless < TRIES

    def takeover_pause_s(self, now: float) -> float | None:
        """Seconds until the next attempt to go on with a stream; None: no more."""
        self.number += 1
        if now > self._until:
            return None
        return 0.0 if self.number == 1 else PAUSE_S
