"""What the gateway must know, as control tells it."""

from dataclasses import dataclass

from karez.core.identity import EVERYWHERE, Role


@dataclass(frozen=True, slots=True, kw_only=True)
class GatewayKey:
    """A key that may call models."""

    id: str
    project: str
    role: Role
    digest: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """A service and where its ready replicas listen."""

    service: str
    project: str
    urls: tuple[str, ...]
    since: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """Everything the gateway routes by; it works on with the last one while control is away."""

    keys: tuple[GatewayKey, ...] = ()
    routes: tuple[Route, ...] = ()

    def visible(self, key: GatewayKey) -> tuple[Route, ...]:
        """The services a key may call."""
        return tuple(r for r in self.routes if key.project in (EVERYWHERE, r.project))
