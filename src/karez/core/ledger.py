"""The ledger: a line for each call and each time of devices, sealed with the line before. Pure.

The lines of a project are a chain of SHA-256. Whoever has kept the last hash sees whether a line
before it was changed, left out or put in; and each line has its tokens or its device time, and its
rates, so that anyone can compute the bill again.
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from karez.core.codec import from_json
from karez.core.device_prices import DevicePrice, DeviceTime, device_cost_nano
from karez.core.prices import Price, cost_nano
from karez.core.usage import Call


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerLine:
    """One line of a project's ledger."""

    project: str
    seq: int
    """Counts the lines of the project, from 1."""
    body: str
    """JSON of the call or the device time, its rates and its cost, as it was hashed."""
    hash: str
    """SHA-256, in hex, of the hash of the line before, a line break, and the body."""


@dataclass(slots=True, kw_only=True)
class Bill:
    """What lines of a ledger add up to."""

    project: str
    lines: int = 0
    last_hash: str = ""
    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    cost_nano: int = 0
    by_model: dict[str, int] = field(default_factory=dict)
    """Service -> its cost."""
    device_seconds: dict[str, float] = field(default_factory=dict)
    """Device, such as `npu:910b` -> seconds of whole devices."""
    by_device: dict[str, int] = field(default_factory=dict)
    """Device -> its cost."""


class BrokenLedger(ValueError):
    """A line does not follow from the one before, or its cost from what was used."""


def sealed(before: str, body: str) -> str:
    """The hash of a line, by the hash of the line before."""
    return hashlib.sha256(f"{before}\n{body}".encode()).hexdigest()


def line_body(call: Call, price: Price) -> str:
    """The body of a call's line."""
    facts = {
        "id": call.id,
        "at": call.at,
        "key": call.key_id,
        "model": call.service,
        "status": call.status,
        "prompt_tokens": call.prompt_tokens,
        "cached_tokens": call.cached_tokens,
        "completion_tokens": call.completion_tokens,
        "cost_nano": cost_of(call, price),
        "price": {
            "model": price.model,
            "prompt": price.prompt,
            "cached": price.cached,
            "completion": price.completion,
            "off_peak": price.off_peak,
            "off_peak_percent": price.off_peak_percent,
        },
    }
    return json.dumps(facts, separators=(",", ":"), sort_keys=True)


def cost_of(call: Call, price: Price) -> int:
    """What a call costs, in billionths of the currency."""
    return cost_nano(
        price,
        at=call.at,
        prompt_tokens=call.prompt_tokens,
        cached_tokens=call.cached_tokens,
        completion_tokens=call.completion_tokens,
    )


def device_line_body(time: DeviceTime, price: DevicePrice) -> str:
    """The body of the line of devices that were held for a time."""
    facts = {
        "id": time.id,
        "at": time.since_ms / 1000,
        "workload": time.workload,
        "name": time.name,
        "device": time.device,
        "milli": time.milli,
        "since_ms": time.since_ms,
        "until_ms": time.until_ms,
        "cost_nano": device_cost_nano(price, time.milli, time.since_ms, time.until_ms),
        "price": {
            "device": price.device,
            "hour": price.hour,
            "off_peak": price.off_peak,
            "off_peak_percent": price.off_peak_percent,
            "services": price.services,
        },
    }
    return json.dumps(facts, separators=(",", ":"), sort_keys=True)


def verify(bill: Bill, lines: Iterable[LedgerLine]) -> None:
    """Check the lines that follow those of a bill, and add them up.

    Raises:
        BrokenLedger: A line is missing, was changed, or costs something else than it says.
    """
    for line in lines:
        if line.seq != bill.lines + 1:
            raise BrokenLedger(f"line {line.seq} follows line {bill.lines}")
        if line.hash != sealed(bill.last_hash, line.body):
            raise BrokenLedger(f"line {line.seq} is not the one that was written")
        _add(bill, line)


def _add(bill: Bill, line: LedgerLine) -> None:
    try:
        facts: dict[str, Any] = json.loads(line.body)
        due, add = (_device_time if "device" in facts else _call)(facts)
        cost = facts["cost_nano"]
    except (ValueError, LookupError, TypeError) as error:
        raise BrokenLedger(f"line {line.seq} cannot be read: {error}") from error
    if due != cost:
        raise BrokenLedger(f"line {line.seq} costs {due} by its use and rates, and says {cost}")
    add(bill)
    bill.lines, bill.last_hash = line.seq, line.hash
    bill.cost_nano += cost


def _call(facts: Mapping[str, Any]) -> tuple[int, Callable[[Bill], None]]:
    """What a call costs by its line, and how it is added to a bill."""
    prompt, cached, completion = (
        int(facts[f"{name}_tokens"]) for name in ("prompt", "cached", "completion")
    )
    due = cost_nano(
        from_json(Price, facts["price"]),
        at=facts["at"],
        prompt_tokens=prompt,
        cached_tokens=cached,
        completion_tokens=completion,
    )
    model = str(facts["model"])

    def add(bill: Bill) -> None:
        bill.prompt_tokens += prompt
        bill.cached_tokens += cached
        bill.completion_tokens += completion
        bill.by_model[model] = bill.by_model.get(model, 0) + due

    return due, add


def _device_time(facts: Mapping[str, Any]) -> tuple[int, Callable[[Bill], None]]:
    """What a time of devices costs by its line, and how it is added to a bill."""
    device, milli = str(facts["device"]), int(facts["milli"])
    since_ms, until_ms = int(facts["since_ms"]), int(facts["until_ms"])
    due = device_cost_nano(from_json(DevicePrice, facts["price"]), milli, since_ms, until_ms)
    held_s = milli * (until_ms - since_ms) / 1e6

    def add(bill: Bill) -> None:
        bill.device_seconds[device] = bill.device_seconds.get(device, 0.0) + held_s
        bill.by_device[device] = bill.by_device.get(device, 0) + due

    return due, add
