"""The processes of a gang's roles beside its ranks: loaders and the like.

They start with the gang and end with it. One that fails is started again a few times; one that
ends by itself is done.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from karez.core.devices import IN_BYTES
from karez.core.gangs import GangRole
from karez.core.grants import Grant
from karez.core.nodes import NodeId
from karez.core.processes import Event, ProcessInfo, ProcessSpec
from karez.training.controller.process_specs import LaunchContext, sidecar_spec

MAX_STARTS = 5
"""How often an aide is started again before its gang is failed; as often as a Kubernetes Job's
pods by default (backoffLimit 6), less the first."""


@dataclass(slots=True, kw_only=True)
class Sidecars:
    """All aides of one gang."""

    context: LaunchContext
    start: Callable[[NodeId, ProcessSpec], None]
    """Starts a process on a node."""
    attempts: dict[tuple[str, int], int] = field(default_factory=dict)

    def adopt(
        self,
        known: Iterable[ProcessInfo],
        roles: Sequence[GangRole],
        grants: Callable[[str], list[Grant]],
    ) -> None:
        """Go on with the roles' processes that are there, and start those that are not."""
        for info in known:
            if (named := parse_sidecar_key(info.key)) is not None:
                name, number, attempt = named
                self.attempts[name, number] = max(attempt, self.attempts.get((name, number), 0))
        for role in roles:
            if not any(name == role.name for name, _ in self.attempts):
                self.start_all(role, grants(role.name))

    def start_all(self, role: GangRole, grants: list[Grant]) -> None:
        """Start a role's processes; what is memory or storage alone runs nothing."""
        for number, grant in enumerate(grants):
            if grant.kind not in IN_BYTES:
                self._start(role, number, grant, len(grants))

    def on_event(self, event: Event, grants: Callable[[str], list[Grant]]) -> str:
        """What an aide's event means for the gang: why it must end, or nothing."""
        named = parse_sidecar_key(event.key)
        if event.type != "exit" or named is None:
            return ""
        name, number, attempt = named
        if self.attempts.get((name, number)) != attempt or int(event.data["code"]) == 0:
            return ""
        held = grants(name)
        role = next((r for r in self.context.job.spec.gang.roles if r.name == name), None)
        if attempt >= MAX_STARTS or role is None or number >= len(held):
            why = str(event.data["error"]) or f"ended with code {event.data['code']}"
            return f"{name} {number} failed {attempt} times; the last: {why}"
        self._start(role, number, held[number], len(held))
        return ""

    def _start(self, role: GangRole, number: int, grant: Grant, count: int) -> None:
        attempt = self.attempts.get((role.name, number), 0) + 1
        self.attempts[role.name, number] = attempt
        self.start(grant.node, sidecar_spec(self.context, role, number, attempt, grant, count))


def parse_sidecar_key(key: str) -> tuple[str, int, int] | None:
    """(role, number, life) of an aide's process; None for others."""
    head, _, rest = key.partition(".role.")
    parts = rest.rsplit(".", 2)
    if not head or len(parts) != 3 or not parts[1].isdigit() or not parts[2].isdigit():
        return None
    return parts[0], int(parts[1]), int(parts[2])
