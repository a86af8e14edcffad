"""Sidecars: the processes of a gang's roles beside its ranks, such as data loaders.

Sidecars start and end with the gang. A sidecar that fails is started again a few times; a sidecar
that exits with code 0 is done.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from karez.core.devices import IN_BYTES
from karez.core.gangs import GangRole
from karez.core.grants import Grant
from karez.core.messages.reports import ExitReport
from karez.core.nodes import NodeId
from karez.core.processes import ProcessInfo, ProcessSpec
from karez.training.controller.process_specs import LaunchContext, sidecar_spec

MAX_STARTS = 5
"""How often a sidecar is started before its gang fails; as often as a Kubernetes Job's pods by
default (backoffLimit 6), less the first."""


@dataclass(slots=True, kw_only=True)
class Sidecars:
    """All sidecars of one gang."""

    context: LaunchContext
    start: Callable[[NodeId, ProcessSpec], None]
    """Starts a process on a node."""
    attempts: dict[tuple[str, int], int] = field(default_factory=dict)
    """(role, number) -> its newest attempt."""

    def adopt(
        self,
        processes: Iterable[ProcessInfo],
        roles: Sequence[GangRole],
        grants: Callable[[str], list[Grant]],
    ) -> None:
        """Continue with the sidecars that run already, and start the other roles' sidecars."""
        for info in processes:
            if (key := parse_sidecar_key(info.key)) is not None:
                name, number, attempt = key
                self.attempts[name, number] = max(attempt, self.attempts.get((name, number), 0))
        for role in roles:
            if not any(name == role.name for name, _ in self.attempts):
                self.start_all(role, grants(role.name))

    def start_all(self, role: GangRole, grants: list[Grant]) -> None:
        """Start a role's processes; a grant of memory or storage alone runs none."""
        for number, grant in enumerate(grants):
            if grant.kind not in IN_BYTES:
                self._start(role, number, grant, len(grants))

    def on_exit(self, key: str, ended: ExitReport, grants: Callable[[str], list[Grant]]) -> str:
        """Restart a sidecar that has failed. Returns why the gang must end, or an empty text."""
        sidecar = parse_sidecar_key(key)
        if sidecar is None:
            return ""
        name, number, attempt = sidecar
        if self.attempts.get((name, number)) != attempt or ended.code == 0:
            return ""
        role_grants = grants(name)
        role = next((r for r in self.context.job.spec.gang.roles if r.name == name), None)
        if attempt >= MAX_STARTS or role is None or number >= len(role_grants):
            why = ended.error or f"ended with code {ended.code}"
            return f"{name} {number} failed {attempt} times; the last: {why}"
        self._start(role, number, role_grants[number], len(role_grants))
        return ""

    def _start(self, role: GangRole, number: int, grant: Grant, count: int) -> None:
        attempt = self.attempts.get((role.name, number), 0) + 1
        self.attempts[role.name, number] = attempt
        self.start(grant.node, sidecar_spec(self.context, role, number, attempt, grant, count))


def parse_sidecar_key(key: str) -> tuple[str, int, int] | None:
    """(role, number, attempt) of a sidecar; None for other processes."""
    head, _, rest = key.partition(".role.")
    parts = rest.rsplit(".", 2)
    if not head or len(parts) != 3 or not parts[1].isdigit() or not parts[2].isdigit():
        return None
    return parts[0], int(parts[1]), int(parts[2])
