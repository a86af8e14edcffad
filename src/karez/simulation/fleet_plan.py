"""Parameters of a simulated training on a large fleet."""

from dataclasses import dataclass

DAY_S = 86_400.0
PER_NODE = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class PhaseDurations:
    """Duration of each phase of a recovery in seconds, with its source."""

    step_s: float = 6.0
    """One training step. Llama-3 405B: 16 M tokens x 6 x 405e9 at 400 TFLOP/s on 16,384 devices."""
    exit_s: float = 0.02
    """Until the end of a process is noticed. Measured: 0.02 s (`karez chaos run`, four ranks)."""
    silence_s: tuple[float, float] = (1.0, 1.3)
    """Until a silent node is noticed. The limit of the heartbeat; measured: one check more."""
    hang_steps: float = 5.5
    """Steps until a hang is noticed: five times the 99th percentile, taken as 1.1."""
    fork_s: tuple[float, float] = (0.03, 0.06)
    """Until a forked rank is ready. Measured, as `exit_s`."""
    device_s: tuple[float, float] = (5.0, 15.0)
    """Until a rank has set up its device: context, memory, kernels. Assumed."""
    spare_s: tuple[float, float] = (0.5, 1.5)
    """Until a warm spare, whose device is set up, has joined. Assumed."""
    rebuild_s: tuple[float, float] = (5.0, 15.0)
    """Until the process group of 10,000 ranks has formed; grows with the square root of their
    number. The design notes' budget. Assumed."""
    shm_s: float = 0.2
    """Restore of a rank's 0.8 GB from the memory of its node: measured 5.5 GB/s."""
    peer_s: float = 1.0
    """Restore of a node's 6.6 GB over 200 Gb/s with overheads. Assumed."""
    restart_s: tuple[float, float] = (300.0, 600.0)
    """Start of all processes, and load of the checkpoint from storage. Assumed."""
    checkpoint_s: float = 5.0
    """Cost of one stored checkpoint; with the failure rate it gives the interval."""
    steady: float = 0.003
    """Share of the time that snapshots of every step cost. Assumed for hosts with spare cores;
    `benchmarks/bench_steady.py` measures the share on the machine at hand."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetPlan:
    """Parameters of a simulated training."""

    devices: int = 10_000
    days: float = 40.0
    per_node_day: float = 3.79e-3
    spare_share: float = 0.02
    """Warm spare nodes as a share of the nodes at work; at least one node."""
    elastic: float = 0.0
    """Share of the nodes that the gang can do without while there are no spares."""
    peers: int = 1
    phases: PhaseDurations = PhaseDurations()

    def __post_init__(self) -> None:
        if not PER_NODE <= self.devices <= 10_000_000:
            raise ValueError(f"devices are {PER_NODE} to 10 million, not {self.devices}")
        if not 0 < self.days <= 3650:
            raise ValueError(f"days are more than 0 and up to 3,650, not {self.days:g}")
        if not 0 <= self.per_node_day <= 10:
            raise ValueError(f"a rate is 0 to 10 per node and day, not {self.per_node_day:g}")
        if not (0 <= self.spare_share <= 1 and 0 <= self.elastic < 1):
            raise ValueError("shares of spares and of elastic nodes are between 0 and 1")

    @property
    def nodes(self) -> int:
        """Nodes at work."""
        return -(-self.devices // PER_NODE)
