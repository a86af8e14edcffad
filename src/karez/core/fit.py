"""What a model needs on a device, part by part, and whether there is room for it."""

from dataclasses import dataclass

from karez.core.units import show_bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class FitPart:
    """One part of the memory that an engine needs."""

    what: str
    bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Fit:
    """The memory of one replica on one kind of device, and the room that there is."""

    engine: str
    device: str
    """As it is asked for, such as `1 npu`."""
    parts: tuple[FitPart, ...]
    room_bytes: int | None = None
    """None: nobody knows."""
    context_tokens: int
    parallel: int
    nearest: str = ""
    """What would fit, if this does not, as options of a service; empty: nothing of this model."""

    @property
    def need_bytes(self) -> int:
        """All parts together."""
        return sum(part.bytes for part in self.parts)

    @property
    def is_enough(self) -> bool:
        """Whether there is room."""
        return self.room_bytes is None or self.need_bytes <= self.room_bytes

    def show(self) -> str:
        """For people, in a line."""
        parts = ", ".join(f"{part.what} {show_bytes(part.bytes)}" for part in self.parts)
        return f"{show_bytes(self.need_bytes)} ({parts})"


@dataclass(frozen=True, slots=True, kw_only=True)
class FitReport:
    """What becomes of a service before it is deployed."""

    engine: str
    """The engine that serves it."""
    why: str
    """Why this one."""
    fits: tuple[Fit, ...] = ()
    """For each alternative of what a replica asks for; empty: the model tells too little."""
    unknown: str = ""
    """Why nothing can be said of its memory."""
