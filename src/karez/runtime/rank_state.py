"""The state of one rank's runtime: its step, its generation, and its place in the group."""

from collections.abc import Iterable
from dataclasses import dataclass, field

from karez.core.errors import BadRequest
from karez.runtime.checkpoint_files import SnapshotTag
from karez.runtime.host_clock import monotonic_s
from karez.runtime.snapshot_cadence import SnapshotCadence
from karez.runtime.snapshot_store import SnapshotStore
from karez.runtime.tracked import History, Tracked


@dataclass(slots=True, kw_only=True)
class StepTimer:
    """Measures how long a rank computes in a step, without what it waits for others."""

    began_s: float = 0.0
    """When the step began; 0: unknown."""
    waited_s: float = 0.0
    copied_s: float = 0.0
    """Seconds for which steps waited for copies of device tensors since the last snapshot."""
    step_s: float = 0.0
    """How long the newest step took, with all waiting; 0: unknown."""

    def reset(self) -> None:
        """Forget when the step began: a generation begins."""
        self.began_s = 0.0

    def lap_s(self) -> float:
        """End a step, begin the next, and return the seconds for which the rank computed."""
        now_s = monotonic_s()
        self.step_s = now_s - self.began_s if self.began_s else 0.0
        busy_s = max(0.0, self.step_s - self.waited_s)
        self.began_s, self.waited_s = now_s, 0.0
        return busy_s


@dataclass(slots=True, kw_only=True, eq=False)
class RankState:
    """The state that the parts of one rank's runtime share.

    The agent connection's thread writes `wanted_generation`; the training thread writes the rest.
    """

    rank: int
    """Number of this rank in the group of this generation."""
    world: int
    step: int = 0
    """Number of completed steps."""
    generation: int = 0
    wanted_generation: int = 0
    """The newest generation that the job controller has announced."""
    is_spoiled: bool = False
    """Whether the step under way must not count."""
    has_state: bool = False
    """Whether this process has restored: its node may hold the state of an earlier process."""
    compares_replicas: bool = False
    """Whether replicas are compared by digest in this generation."""
    skipped_batches: tuple[int, ...] = ()
    history: History = field(default_factory=History)
    """Kept with the state: the newest losses, and the last step that the ranks agreed on."""
    wants_stop_after: int = 0
    """The step under way when this rank's program wanted the training to end; 0: it does not."""
    tracked: Tracked | None = None
    snapshots: SnapshotStore | None = None
    """The snapshot store, once something is tracked in a cloud."""
    timer: StepTimer = field(default_factory=StepTimer)
    cadence: SnapshotCadence = field(default_factory=SnapshotCadence)

    @property
    def batch(self) -> int:
        """The batch of the next step: batches that were left out are counted, not used."""
        cursor = self.step
        for skipped in self.skipped_batches:
            cursor += skipped <= cursor
        return cursor

    @property
    def is_generation_over(self) -> bool:
        """Whether the job controller has ended this generation."""
        return self.wanted_generation > self.generation

    @property
    def tag(self) -> SnapshotTag:
        """The tag of a snapshot that is written now."""
        return SnapshotTag(generation=self.generation, rank=self.rank, world=self.world)

    @property
    def stops_after(self) -> int:
        """The last step, as the ranks agreed; 0: they have not."""
        return self.history.stops_after

    @property
    def stop_wish(self) -> int:
        """The step that this rank wants to be the last; 0: none. One that is over is not."""
        wanted = self.wants_stop_after and max(self.wants_stop_after, self.step + 1)
        return self.stops_after or wanted

    def agree_to_stop(self, wishes: Iterable[int]) -> None:
        """Take the earliest step that a rank wants to be the last; 0 is no wish.

        A step that was agreed on stays, also where it is repeated after a fault.
        """
        wanted = [step for step in wishes if step]
        if wanted:
            self.history.stops_after = min(wanted)

    def need_tracked(self) -> Tracked:
        """Return the tracked objects. Raises BadRequest if nothing is tracked yet."""
        if self.tracked is None:
            raise BadRequest(
                problem="steps() came before track()", fix="Call run.track(...) first."
            )
        return self.tracked
