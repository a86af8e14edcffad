"""What is written of requests that have ended: calls into the spool, lines into the access log."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson
import structlog

from karez.core.rate_limit import RateLimit
from karez.serving.access_log import AccessLog
from karez.serving.answers import Refusal
from karez.serving.call_record import MAX_LOGGED, CallRecord
from karez.serving.http_request import Request
from karez.serving.usage_spool import UsageSpool

log = structlog.get_logger()
STRANGERS_PER_S = 10.0


@dataclass(slots=True, kw_only=True)
class CallBook:
    """The files of one gateway process."""

    spool: UsageSpool
    access_log: AccessLog | None = None
    strangers: RateLimit = field(default_factory=lambda: RateLimit(rate=STRANGERS_PER_S))
    """Lines of requests without a valid key: they do not rotate the others away."""

    def add(self, told: Sequence[CallRecord], now: float) -> None:
        """Write requests that have just ended."""
        fields = [one.fields(now) for one in told]
        try:
            self.spool.add([orjson.dumps(one, option=orjson.OPT_APPEND_NEWLINE) for one in fields])
        except OSError as error:  # such as a full disk: what is not recorded is not charged
            log.error("gateway.calls-lost", calls=len(told), why=str(error))
        if self.access_log is not None:
            has_text = self.access_log.has_text
            pairs = zip(told, fields, strict=True)
            self._log([one.log_line(known, has_text=has_text) for one, known in pairs])

    def refused(self, request: Request, refusal: Refusal, *, now: float) -> None:
        """Write a request that was refused before it went anywhere."""
        if self.access_log is not None:
            line = {
                "at": now,
                "status": refusal.status,
                "path": request.path[:MAX_LOGGED],
                "address": request.address,
                "key_id": "" if request.key is None else request.key.id,
                "error": refusal.kind,
                "message": refusal.message[:MAX_LOGGED],
            }
            if request.key is not None or not self.strangers.take("", now):
                self._log([line])

    def _log(self, lines: Sequence[dict[str, Any]]) -> None:
        assert self.access_log is not None
        try:
            self.access_log.add(lines)
        except OSError as error:
            log.error("gateway.access-log", lines=len(lines), why=str(error))
