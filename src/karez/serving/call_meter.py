"""Requests and tokens of a key in any minute, against its limits. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from karez.core.call_limits import CallLimits, MinuteLimits
from karez.core.routing import Route
from karez.serving.minute_window import WINDOW_CELLS, MinuteWindow
from karez.serving.rows import HELD, Name, Rows, own_rows

BYTES_PER_TOKEN = 4
"""Of prompts, about; what a request really took is counted once it has ended."""
DEFAULT_ANSWER = 256
"""Tokens that a request is taken to ask for where it does not say."""


METER_CELLS = HELD + 2 * WINDOW_CELLS


@dataclass(slots=True)
class CallMeter:
    """What one key has asked for, of all processes of the gateway."""

    limits: CallLimits | MinuteLimits
    rows: Rows = field(default_factory=lambda: own_rows((), METER_CELLS))
    """The first cell has the tokens that requests on their way may take."""
    requests: MinuteWindow = field(init=False)
    tokens: MinuteWindow = field(init=False)

    def __post_init__(self) -> None:
        self.requests = MinuteWindow(self.rows, HELD)
        self.tokens = MinuteWindow(self.rows, HELD + WINDOW_CELLS)

    @property
    def reserved(self) -> int:
        """Tokens that requests on their way may take."""
        return self.rows.mine[0] + sum(cells[0] for cells in self.rows.others)

    def wait_s(self, tokens: int, now: float) -> float:
        """Seconds until a request of about so many tokens fits; 0: now.

        A request of more tokens than the limit fits once nothing was used for a minute.
        """
        return self._wait_s(1, self.reserved, tokens, now)

    def _wait_s(self, requests: int, reserved: int, tokens: int, now: float) -> float:
        wait_s = 0.0
        if most := self.limits.requests_per_minute:
            over = self.requests.used(now) + requests - most
            wait_s = self.requests.wait_s(over, now) if over > 0 else 0.0
        if most := self.limits.tokens_per_minute:
            over = self.tokens.used(now) + reserved + min(tokens, most) - most
            wait_s = max(wait_s, self.tokens.wait_s(over, now) if over > 0 else 0.0)
        return wait_s

    def take(self, tokens: int, now: float) -> float:
        """Take a request of about so many tokens. Returns 0, or the seconds until it fits."""
        wait_s = self.wait_s(tokens, now)
        if wait_s > 0:
            return wait_s
        self.requests.add(1, now)
        self.rows.mine[0] += tokens
        if self.rows.others:  # one of them may have taken the last place meanwhile
            wait_s = self._wait_s(0, self.reserved - tokens, tokens, now)
            if wait_s > 0:
                self.give_back(tokens, now)
        return wait_s

    def give_back(self, tokens: int, now: float) -> None:
        """Count a request no more that was taken just now."""
        self.requests.add(-1, now)
        self.rows.mine[0] -= tokens

    def settle(self, reserved: int, used: int, now: float) -> None:
        """Count what a request has taken in place of what it was taken to."""
        self.rows.mine[0] -= reserved
        self.tokens.add(used, now)

    def headers(self, now: float) -> bytes:
        """What is left, as OpenAI's API tells it."""
        lines = b""
        for name, most, window, held in (
            (b"requests", self.limits.requests_per_minute, self.requests, 0),
            (b"tokens", self.limits.tokens_per_minute, self.tokens, self.reserved),
        ):
            if most:
                left = max(0, most - window.used(now) - held)
                lines += b"x-ratelimit-limit-%s: %d\r\n" % (name, most)
                lines += b"x-ratelimit-remaining-%s: %d\r\n" % (name, left)
        return lines


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

    def headers(self, now: float) -> bytes:
        """What is left to its key, or else of what it is one of many callers of."""
        return next((meter.headers(now) for meter in self.meters.values()), b"")


NOTHING = Taken()


def tokens_asked(prompt_bytes: int, answer: object) -> int:
    """About how many tokens a request takes, of its size and the length that it asks for."""
    is_said = isinstance(answer, int) and not isinstance(answer, bool) and answer > 0
    return prompt_bytes // BYTES_PER_TOKEN + (int(str(answer)) if is_said else DEFAULT_ANSWER)
