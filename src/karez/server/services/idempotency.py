"""Ids of workloads: the same Idempotency-Key of the same user gives the same id."""

import hashlib
import secrets

from karez.core.identity import Principal
from karez.core.workloads import WorkloadId


def workload_id(prefix: str, who: Principal, idempotency_key: str) -> WorkloadId:
    """`PREFIX-` and ten hex digits: derived from the idempotency key, else random."""
    if not idempotency_key:
        return WorkloadId(f"{prefix}-{secrets.token_hex(5)}")
    text = f"{who.key_id}/{idempotency_key}"
    return WorkloadId(f"{prefix}-{hashlib.sha256(text.encode()).hexdigest()[:10]}")
