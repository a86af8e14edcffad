"""Removes artifacts that were kept for some time only: what failed jobs had written."""

import structlog

from karez.core.artifacts import KEPT_UNTIL, ArtifactKind
from karez.core.stores.artifact_users import user_of
from karez.core.stores.store import Store

log = structlog.get_logger()


def remove_expired(store: Store, now: float) -> None:
    """Remove what is due and unused. `now` is in UTC epoch seconds."""
    for artifact in store.artifacts.list(projects=None, kinds=[ArtifactKind.REPORT]):
        kept_until = artifact.spec.facts.get(KEPT_UNTIL)
        is_due = isinstance(kept_until, int | float) and kept_until < now
        if is_due and not user_of(artifact, store.workloads):
            store.artifacts.remove(artifact.id)
            log.info("artifact.expired", artifact=artifact.id, name=artifact.spec.name)
