"""Token buckets: how many requests each key may send. Pure."""

from dataclasses import dataclass, field

BURST_S = 10.0
"""A bucket holds what its rate gives in so many seconds."""
MAX_BUCKETS = 10_000
"""Buckets beyond which full ones are forgotten."""


@dataclass(slots=True)
class _Bucket:
    tokens: float
    at: float


@dataclass(slots=True, kw_only=True)
class RateLimit:
    """One bucket per key; each request takes a token, and `rate` tokens come back each second."""

    rate: float
    """0: no limit."""
    _buckets: dict[str, _Bucket] = field(default_factory=dict)

    def take(self, key: str, now: float) -> float:
        """Take a token. Returns 0, or the seconds until there is one."""
        if self.rate <= 0:
            return 0.0
        most = max(1.0, self.rate * BURST_S)
        bucket = self._buckets.get(key)
        if bucket is None:
            self._forget_full(now, most)
            bucket = self._buckets[key] = _Bucket(tokens=most, at=now)
        bucket.tokens = min(most, bucket.tokens + max(0.0, now - bucket.at) * self.rate)
        bucket.at = now
        if bucket.tokens < 1.0:
            return (1.0 - bucket.tokens) / self.rate
        bucket.tokens -= 1.0
        return 0.0

    def _forget_full(self, now: float, most: float) -> None:
        if len(self._buckets) >= MAX_BUCKETS:
            self._buckets = {
                key: one
                for key, one in self._buckets.items()
                if one.tokens + (now - one.at) * self.rate < most
            }
