"""What is recorded of a request that has ended: its call, and its line in the access log. Pure."""

from collections.abc import Collection
from typing import Any

from karez.core.routing import Route
from karez.serving.model_call import ModelCall
from karez.serving.token_usage import TokenUsage

MAX_LOGGED = 256
"""Characters of a path, a model and a reason that the access log has."""
_TEXT = ("messages", "prompt", "input", "query", "documents", "system", "instructions")
"""Fields that say what was asked."""


class CallRecord:
    """One request, as it goes on. No dataclass: one is made for each."""

    sent_at = 0.0
    """When it was sent to the replica that it is at, by the clock; 0: it is at none."""
    first_at = 0.0
    """When its answer began."""
    queued_until = 0.0
    """When it was its turn, of a request that had to wait for that."""
    held_until = 0.0
    """When the first replica was there, of a request that had to wait for one."""
    status = 0
    """What the caller has seen."""
    replica = ""
    tries = takeovers = 0
    second = ""
    """URL of the replica that was asked besides."""
    guardrails: Collection[str] = ()
    """Names of those that found something."""

    def __init__(self, *, ident: str, call: ModelCall, usage: TokenUsage, route: Route) -> None:
        """A request whose tokens are counted in `usage`, and which `route` answers."""
        self.ident, self.call, self.usage, self.route = ident, call, usage, route

    def headers(self, limits: bytes) -> bytes:
        """The headers of its answer: who answers, and how long it was on its way there."""
        at = self.call.at
        overhead_ms = max(0.0, self.sent_at - at) * 1000
        more = limits
        if self.queued_until:
            more += b"x-karez-queued-ms: %.0f\r\n" % ((self.queued_until - at) * 1000)
        if self.held_until:
            more += b"x-karez-held-ms: %.0f\r\n" % ((self.held_until - at) * 1000)
        if self.call.asked not in (self.route.service, self.route.full_name):
            more += b"x-karez-model: %s\r\n" % self.route.service.encode()
        told = (self.ident.encode(), overhead_ms, more)
        return b"x-request-id: %s\r\nx-karez-overhead-ms: %.3f\r\n%s" % told

    def fields(self, now: float) -> dict[str, Any]:
        """The fields of a core.usage.Call, which ends now."""
        return {
            "id": self.ident,
            "at": self.call.at,
            "project": self.route.project,
            "key_id": self.call.key.counts_as,
            "service": self.route.service,
            "prompt_tokens": self.usage.prompt,
            "completion_tokens": self.usage.completion,
            "cached_tokens": self.usage.cached,
            "status": self.status,
            "duration_s": now - self.call.at,
        }

    def log_line(self, fields: dict[str, Any], *, has_text: bool) -> dict[str, Any]:
        """Its line in the access log, of those fields and more; what was asked if that has text."""
        at, terms, body = self.call.at, self.call.terms, self.call.body
        text = {name: body[name] for name in _TEXT if name in body} if has_text else {}
        return {
            **fields,
            "path": self.call.path,
            "asked": self.call.asked[:MAX_LOGGED],
            "stream": bool(body.get("stream")),
            "address": self.call.address,
            "priority": terms.priority,
            "request_bytes": self.call.size,
            "queued_s": max(0.0, self.queued_until - at),
            "held_s": max(0.0, self.held_until - at),
            "first_s": max(0.0, self.first_at - at),
            "replica": self.replica,
            "second_replica": self.second,
            "tries": self.tries,
            "takeovers": self.takeovers,
            "guardrails": sorted(self.guardrails),
            **text,
        }
