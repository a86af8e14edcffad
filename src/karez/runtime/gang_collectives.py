"""Collectives of a rank with its whole gang."""

from collections.abc import Callable
from dataclasses import dataclass

import torch

from karez.core.messages.reports import ReplicaMismatchReport
from karez.core.processes import Activity
from karez.runtime.host_clock import monotonic_s, pause
from karez.runtime.process_group import ProcessGroup
from karez.runtime.rank_reporter import RankReporter
from karez.runtime.rank_state import RankState
from karez.runtime.replica_digest import DigestMismatch, digest_every, digest_of, find_mismatch
from karez.runtime.step_numbers import StepNumbers


@dataclass(slots=True, kw_only=True)
class GangCollectives:
    """Runs collectives under Rule R, and reports those that fail."""

    state: RankState
    reporter: RankReporter
    group: ProcessGroup
    replays: int
    """How often a step with bad gradients is repeated before its batch is left out."""

    def run(self, collective: Callable[[], None]) -> bool:
        """Run a collective with all ranks; False, and the step is spoiled, if it failed."""
        began_s = monotonic_s()
        self.reporter.post(Activity.COLLECTIVE)
        try:
            self.wait_for_peers()
            collective()
        except DigestMismatch as mismatch:
            self._report_mismatch(mismatch)
            return False
        except RuntimeError as error:
            self.reporter.report_collective_failure(error)
            return False
        finally:
            self.state.timer.waited_s += monotonic_s() - began_s
            self.reporter.post(Activity.COMPUTING)
        return True

    def meet_at_end(self, *, is_trained: bool) -> bool:
        """Meet the other ranks; replicas are compared. False: one was lost, or they differ.

        Args:
            is_trained: Whether the model is as its last step left it; the program may have changed
                it since, such as to the best one of all.
        """
        tracked = self.state.need_tracked()
        digest = digest_of(tracked.model) if is_trained and tracked.is_alike else 0
        halves = torch.tensor([digest >> 16, digest & 0xFFFF], dtype=torch.float32)

        def compare() -> None:
            rows = self.group.gather(halves).view(-1, 2).tolist()
            digests = [(int(high) << 16) + int(low) for high, low in rows]
            known = [one for one in digests if one]
            mismatch = find_mismatch([one or known[0] for one in digests]) if known else None
            if mismatch is not None and self.state.compares_replicas:
                raise mismatch

        return self.run(compare)

    def wait_for_peers(self) -> None:
        """Wait until the peers hold this rank's newest snapshot.

        Rule R: no rank enters a step before its peers hold its newest snapshot.

        Raises:
            RuntimeError: The generation has ended.
        """
        state, snapshots = self.state, self.state.snapshots
        if snapshots is not None:
            began_s = monotonic_s()
            self._wait_until(snapshots.writer.is_idle)
            state.timer.copied_s += monotonic_s() - began_s
            self._wait_until(snapshots.is_replicated)
        if state.is_generation_over:
            raise RuntimeError("the generation is over")

    def _wait_until(self, is_so: Callable[[], bool]) -> None:
        """Wait until something is so, or the generation has ended."""
        while not is_so() and not self.state.is_generation_over:
            pause(0.0005)

    def gather(self, piece: torch.Tensor) -> torch.Tensor | None:
        """Gather the ranks' pieces in one row; None if a peer was lost."""
        rows: list[torch.Tensor] = []
        self.run(lambda: rows.append(self.group.gather(piece)))
        return rows[0] if rows else None

    def report_bad_gradients(self) -> None:
        """Report gradients that are not finite, unless a GradScaler expects overflows."""
        others = self.state.need_tracked().others.values()
        scalers = [other for other in others if isinstance(other, torch.amp.GradScaler)]
        if not any(scaler.is_enabled() for scaler in scalers):
            self.reporter.report_bad_loss("a gradient was not finite", self.replays)

    def numbers(self) -> StepNumbers:
        """Return what this rank sends with its gradients."""
        state, tracked = self.state, self.state.need_tracked()
        cadence = state.cadence
        is_due = (
            state.compares_replicas
            and tracked.is_alike
            and state.step == cadence.newest
            and cadence.count % digest_every(tracked.model) == 0
        )
        digest = digest_of(tracked.model) if is_due else 0
        return StepNumbers(
            digest=digest,
            snapshot_every=cadence.wanted,
            wants_checkpoint=state.snapshots is not None and state.snapshots.is_store_wanted,
            stops_after=state.stop_wish,
        )

    def take_numbers(self, of_ranks: list[StepNumbers]) -> None:
        """Agree on the cadence of snapshots, on a step to store, and on the last step.

        Raises:
            DigestMismatch: Replicas differ.
        """
        mismatch = find_mismatch([numbers.digest for numbers in of_ranks])
        if mismatch is not None:
            raise mismatch
        self.state.agree_to_stop(numbers.stops_after for numbers in of_ranks)
        self.state.cadence.agree(numbers.snapshot_every for numbers in of_ranks)
        if any(numbers.wants_checkpoint for numbers in of_ranks):
            snapshots = self.state.snapshots
            assert snapshots is not None
            snapshots.store_at = self.state.step + 1

    def _report_mismatch(self, mismatch: DigestMismatch) -> None:
        """Give up the step, and the newest snapshot too if it cannot be trusted.

        So it is without a majority, and where a wrong rank took part in steps since the snapshot
        before, which were not compared.
        """
        state = self.state
        state.is_spoiled = True
        is_doubtful = not mismatch.ranks or (state.cadence.every > 1 and state.cadence.count > 0)
        if state.snapshots is not None and is_doubtful and not state.need_tracked().is_sharded:
            state.snapshots.file.drop_newer_than(state.step - 1)
        self.reporter.send(
            ReplicaMismatchReport(
                generation=state.generation, step=state.step, ranks=tuple(mismatch.ranks)
            )
        )
