"""The ledger: one line for each call, each sealed with the line before. Pure.

The lines of a project are a chain of SHA-256. Whoever has kept the last hash sees whether a line
before it was changed, left out or put in; and each line has its tokens and its rates, so that
anyone can compute the bill again.
"""

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from karez.core.codec import from_json
from karez.core.prices import Price, cost_nano
from karez.core.usage import Call


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerLine:
    """One line of a project's ledger."""

    project: str
    seq: int
    """Counts the lines of the project, from 1."""
    body: str
    """JSON of the call, its rates and its cost, as it was hashed."""
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


class BrokenLedger(ValueError):
    """A line does not follow from the one before, or its cost from its tokens."""


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
        counts = [facts[f"{name}_tokens"] for name in ("prompt", "cached", "completion")]
        price, cost = from_json(Price, facts["price"]), facts["cost_nano"]
        due = cost_nano(
            price,
            at=facts["at"],
            prompt_tokens=counts[0],
            cached_tokens=counts[1],
            completion_tokens=counts[2],
        )
        model = str(facts["model"])
    except (ValueError, LookupError, TypeError) as error:
        raise BrokenLedger(f"line {line.seq} cannot be read: {error}") from error
    if due != cost:
        raise BrokenLedger(f"line {line.seq} costs {due} by its tokens and rates, and says {cost}")
    bill.lines, bill.last_hash = line.seq, line.hash
    bill.prompt_tokens += counts[0]
    bill.cached_tokens += counts[1]
    bill.completion_tokens += counts[2]
    bill.cost_nano += cost
    bill.by_model[model] = bill.by_model.get(model, 0) + cost
