"""Reports of a rank: messages to the job controller, and its status in shared memory."""

import faulthandler
import signal
import sys
from collections.abc import Callable
from pathlib import Path

from karez.core.messages.orders import Order
from karez.core.messages.reports import BadLossReport, CollectiveFailedReport, ProcessReport
from karez.core.processes import Activity
from karez.runtime.agent_client import AgentClient
from karez.runtime.host_clock import monotonic_s
from karez.runtime.rank_environment import RankEnvironment
from karez.runtime.rank_state import RankState
from karez.transport.rank_status import RankStatus, RankStatusFile, status_path


class RankReporter:
    """Reports what a rank does. Outside a cloud there is no agent, and nothing is reported."""

    def __init__(self, state: RankState) -> None:
        """Start without a connection."""
        self.agent: AgentClient | None = None
        self._state = state
        self._status_file: RankStatusFile | None = None

    def connect(self, environment: RankEnvironment, on_order: Callable[[Order], None]) -> None:
        """Connect to the node agent. Raises OSError if it has gone."""
        faulthandler.register(signal.SIGUSR2, file=sys.stderr, all_threads=True)
        path = status_path(Path(environment.snapshot_file))
        self._status_file = RankStatusFile(path)
        self.agent = AgentClient(environment, on_order)

    def next_order(self) -> Order:
        """Wait for the next order of the job controller. Needs a connection."""
        assert self.agent is not None
        return self.agent.inbox.get()

    def send(self, report: ProcessReport) -> None:
        """Send a report to the job controller."""
        if self.agent is not None:
            self.agent.send(report)

    def post(self, activity: Activity) -> None:
        """Write the rank's activity to the status file, which the node agent reads."""
        if self._status_file is not None:
            status = RankStatus(
                generation=self._state.generation,
                step=self._state.step,
                activity=activity,
                since=monotonic_s(),
            )
            self._status_file.post(status)

    def report_failure(self, error: Exception) -> None:
        """Spoil the step and report that a collective of this generation failed."""
        self._state.is_spoiled = True
        text = (str(error).splitlines() or [""])[0][:200]
        self.send(CollectiveFailedReport(generation=self._state.generation, error=text))

    def report_collective_failure(self, error: Exception) -> None:
        """Spoil the step, and report its failure unless the generation has ended already."""
        self._state.is_spoiled = True
        if not self._state.is_generation_over:
            self.report_failure(error)

    def report_bad_loss(self, why: str, replays: int) -> None:
        """Spoil the step, and report that its loss or gradients are bad.

        After `replays` more attempts with a bad loss, its batch is left out.
        """
        state = self._state
        state.is_spoiled = True
        self.send(
            BadLossReport(
                generation=state.generation,
                step=state.step + 1,
                batch=state.batch,
                error=why,
                replays=replays,
            )
        )
