"""Requests and tokens of a key in any minute, against its limits. Pure.

The minute slides in steps of a tenth of a second: none has more than the limit, and a caller is
refused only where its last minute comes within a step of the limit.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from karez.core.call_limits import CallLimits, MinuteLimits
from karez.core.routing import Route

MINUTE_S, STEPS_A_SECOND = 60.0, 10
_STEPS = round(MINUTE_S * STEPS_A_SECOND) + 1
BYTES_PER_TOKEN = 4
"""Of prompts, about; what a request really took is counted once it has ended."""
DEFAULT_ANSWER = 256
"""Tokens that a request is taken to ask for where it does not say."""


@dataclass(slots=True)
class MinuteWindow:
    """Amounts of the last minute."""

    used: int = 0
    _amounts: list[int] = field(default_factory=lambda: [0] * _STEPS)
    _step: int = 0
    """The newest step, counted since the beginning of time."""

    def advance(self, now: float) -> None:
        """Forget what is older than a minute."""
        step = int(now * STEPS_A_SECOND)
        for old in range(self._step + 1, min(step, self._step + _STEPS) + 1):
            self.used -= self._amounts[old % _STEPS]
            self._amounts[old % _STEPS] = 0
        self._step = max(step, self._step)

    def add(self, amount: int, now: float) -> None:
        """Add an amount now."""
        self.advance(now)
        self.used += amount
        self._amounts[self._step % _STEPS] += amount

    def wait_s(self, over: int, now: float) -> float:
        """Seconds until so much of what was used is older than a minute."""
        self.advance(now)
        for age in range(_STEPS - 1, -1, -1):
            over -= self._amounts[(self._step - age) % _STEPS]
            if over <= 0:
                return max(0.0, (self._step - age + _STEPS) / STEPS_A_SECOND - now)
        return MINUTE_S


@dataclass(slots=True)
class CallMeter:
    """What one key has asked for."""

    limits: CallLimits | MinuteLimits
    requests: MinuteWindow = field(default_factory=MinuteWindow)
    tokens: MinuteWindow = field(default_factory=MinuteWindow)
    reserved: int = 0
    """Tokens that requests on their way may take."""

    def wait_s(self, tokens: int, now: float) -> float:
        """Seconds until a request of about so many tokens fits; 0: now.

        A request of more tokens than the limit fits once nothing was used for a minute.
        """
        wait_s = 0.0
        if most := self.limits.requests_per_minute:
            self.requests.advance(now)
            over = self.requests.used + 1 - most
            wait_s = self.requests.wait_s(over, now) if over > 0 else 0.0
        if most := self.limits.tokens_per_minute:
            self.tokens.advance(now)
            over = self.tokens.used + self.reserved + min(tokens, most) - most
            wait_s = max(wait_s, self.tokens.wait_s(over, now) if over > 0 else 0.0)
        return wait_s

    def take(self, tokens: int, now: float) -> float:
        """Take a request of about so many tokens. Returns 0, or the seconds until it fits."""
        wait_s = self.wait_s(tokens, now)
        if wait_s <= 0:
            self.requests.add(1, now)
            self.reserved += tokens
        return wait_s

    def settle(self, reserved: int, used: int, now: float) -> None:
        """Count what a request has taken in place of what it was taken to."""
        self.reserved -= reserved
        self.tokens.add(used, now)

    def headers(self) -> bytes:
        """What is left, as OpenAI's API tells it."""
        lines = b""
        for name, most, used in (
            (b"requests", self.limits.requests_per_minute, self.requests.used),
            (b"tokens", self.limits.tokens_per_minute, self.tokens.used + self.reserved),
        ):
            if most:
                left = max(0, most - used)
                lines += b"x-ratelimit-limit-%s: %d\r\n" % (name, most)
                lines += b"x-ratelimit-remaining-%s: %d\r\n" % (name, left)
        return lines


Name = tuple[str, ...]
"""Of a meter: what it is of."""
MODEL = "model"


def model_of(route: Route) -> Name:
    """Name of the meter of a model, which its adapters share."""
    return MODEL, *route.queue


@dataclass(frozen=True, slots=True)
class Taken:
    """What a call takes of its limits until it has ended."""

    meters: Mapping[Name, CallMeter] = field(default_factory=dict)
    tokens: int = 0

    def settle(self, used: int, now: float, route: Route) -> None:
        """Count what the call took; of the models that it was sent to only the last one has any."""
        for name, meter in self.meters.items():
            is_its = name[0] != MODEL or name == model_of(route)
            meter.settle(self.tokens, used if is_its else 0, now)

    def headers(self) -> bytes:
        """What is left to its key, or else of what it is one of many callers of."""
        return next((meter.headers() for meter in self.meters.values()), b"")


NOTHING = Taken()


def tokens_asked(prompt_bytes: int, answer: object) -> int:
    """About how many tokens a request takes, of its size and the length that it asks for."""
    is_said = isinstance(answer, int) and not isinstance(answer, bool) and answer > 0
    return prompt_bytes // BYTES_PER_TOKEN + (int(str(answer)) if is_said else DEFAULT_ANSWER)
