"""Keys with which the processes of jobs call models: each is one job's, and ends with it."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from karez.core import environment
from karez.core.errors import NotSignedIn
from karez.core.identity import Key, Principal, Role
from karez.core.jobs import Job
from karez.core.names import NAME_LIMIT, as_label
from karez.core.ports import Clock
from karez.core.stores.access import AccessStore
from karez.vault.keys import Pepper, full_key, make_key


@dataclass(frozen=True, slots=True, kw_only=True)
class JobKeys:
    """Makes, opens and ends the keys of jobs."""

    store: AccessStore
    pepper: Pepper
    clock: Clock
    gateway: str
    """Address of the gateway as processes reach it, with `/v1`."""

    def make(self, who: Principal, job: Job) -> None:
        """Make the key of a job; the limits of the key that asked for the job hold for it.

        Raises:
            NotSignedIn: That key is not there any more.
        """
        parent = self.store.key(who.key_id)
        if parent is None:
            raise NotSignedIn
        ident, secret = make_key()
        key = Key(
            id=ident,
            name=as_label(f"of {job.id}", limit=NAME_LIMIT),
            project=job.spec.project,
            role=Role.VIEWER,
            digest=self.pepper.digest(secret),
            created_at=self.clock.now(),
            calls=replace(parent.calls, addresses=()),
            made_for=job.id,
            parent=parent.id,
        )
        self.store.add_key(key, sealed=self.pepper.seal(job.id, full_key(ident, secret)))
        if not self._is_valid(parent.id):  # it was rotated meanwhile
            raise NotSignedIn

    def variables(self, job: str) -> Mapping[str, str]:
        """What a process of a job finds the gateway by; empty: its key is good no longer."""
        found = self.store.job_key(job)
        if found is None or not self._is_valid(found[0].parent):
            return {}
        key = self.pepper.open(job, found[1])
        return {
            environment.GATEWAY: self.gateway,
            environment.KEY: key,
            "OPENAI_BASE_URL": self.gateway,
            "OPENAI_API_KEY": key,
        }

    def _is_valid(self, ident: str) -> bool:
        key = self.store.key(ident)
        return key is not None and key.is_valid(self.clock.now())
