"""Limits of calls of models: of a key, a project, a model; and the classes of calls."""

from dataclasses import dataclass
from enum import StrEnum
from ipaddress import ip_network
from typing import Any, ClassVar

from karez.core.names import check_name
from karez.core.validation import FORBID

MAX_PER_MINUTE = 10**12
MAX_MODELS = MAX_ADDRESSES = 100


class CallClass(StrEnum):
    """Which calls of models go first: an earlier one of these waits for none that are later."""

    ONLINE = "online"
    """Somebody waits for the answer."""
    NEAR_LINE = "near-line"
    """It may take minutes: it is sent while no online call waits and a slot is free."""
    OFFLINE = "offline"
    """It may take hours: it is sent while a quarter of the slots are free."""

    __hash__ = str.__hash__  # of Enum itself it takes ten times as long, for each request


CALL_CLASSES = tuple(CallClass)


def check_per_minute(*limits: int) -> None:
    """Check limits per minute. Raises ValueError."""
    for value in limits:
        if not 0 <= value <= MAX_PER_MINUTE:
            raise ValueError(f"a limit is 0 to {MAX_PER_MINUTE:,} per minute, not {value:,}")


def told_per_minute(requests: int, tokens: int) -> str:
    """Limits per minute in words; empty: there are none."""
    parts = (f"{requests:,} requests/min" * bool(requests), f"{tokens:,} tokens/min" * bool(tokens))
    return ", ".join(part for part in parts if part)


@dataclass(frozen=True, slots=True, kw_only=True)
class MinuteLimits:
    """Calls of models in any minute, of a project or of a model."""

    __pydantic_config__: ClassVar[Any] = FORBID

    requests_per_minute: int = 0
    tokens_per_minute: int = 0
    """Of prompts and answers. 0: no limit, as above."""

    def __post_init__(self) -> None:
        check_per_minute(self.requests_per_minute, self.tokens_per_minute)

    @property
    def told(self) -> str:
        """The limits in words; empty: there are none."""
        return told_per_minute(self.requests_per_minute, self.tokens_per_minute)


NO_MINUTE_LIMITS = MinuteLimits()


@dataclass(frozen=True, slots=True, kw_only=True)
class CallLimits:
    """What a key may ask of models through the gateway."""

    __pydantic_config__: ClassVar[Any] = FORBID

    requests_per_minute: int = 0
    """In any minute; 0: no limit."""
    tokens_per_minute: int = 0
    """Of prompts and answers, in any minute; 0: no limit."""
    models: tuple[str, ...] = ()
    """Names of services, or PROJECT/NAME; empty: all that the key sees."""
    addresses: tuple[str, ...] = ()
    """Ranges that its calls come from, such as 10.0.0.0/8; empty: any."""
    priority: CallClass = CallClass.ONLINE
    """The first class that its calls may be of."""

    def __post_init__(self) -> None:
        check_per_minute(self.requests_per_minute, self.tokens_per_minute)
        if len(self.models) > MAX_MODELS:
            raise ValueError(f"a key names at most {MAX_MODELS} models")
        for model in self.models:
            for part in model.split("/", 1):
                check_name(part)
        if len(self.addresses) > MAX_ADDRESSES:
            raise ValueError(f"a key names at most {MAX_ADDRESSES} ranges of addresses")
        for address in self.addresses:
            ip_network(address)

    @property
    def told(self) -> str:
        """The limits in words; empty: there are none."""
        parts = (
            told_per_minute(self.requests_per_minute, self.tokens_per_minute),
            f"of {', '.join(self.models)}" if self.models else "",
            f"from {', '.join(self.addresses)}" if self.addresses else "",
            "" if self.priority == CallClass.ONLINE else str(self.priority),
        )
        return ", ".join(part for part in parts if part)


NO_CALL_LIMITS = CallLimits()
