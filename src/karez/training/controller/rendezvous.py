"""The rendezvous store of one gang: the process in which ranks meet to form a group."""

import secrets
from contextlib import suppress
from dataclasses import dataclass

from karez.core.messages.reports import ExitReport, RendezvousReport, Report
from karez.core.nodes import NodeId
from karez.core.ports import NodeLost
from karez.core.workloads import WorkloadKind
from karez.training.controller.gang_executor import GangExecutor
from karez.training.controller.process_specs import store_spec
from karez.training.recovery.state import NOWHERE, Gang


@dataclass(slots=True, kw_only=True)
class Rendezvous:
    """Starts and follows one gang's rendezvous store; generations share it, each with a prefix."""

    executor: GangExecutor
    address: str = ""
    """Address at which the store listens; empty until the store reports it."""
    _node: NodeId = NOWHERE
    _key: str = ""

    def open(self, gang: Gang) -> None:
        """Start a store where the gang needs one and none runs on its nodes."""
        is_needed = len(gang.active) > 1 and self.executor.job.spec.kind == WorkloadKind.TRAIN
        nodes = [rank.node for _, rank in gang.active if rank.node]
        if not is_needed or not nodes or self._node in nodes:
            return
        spec = store_spec(self.executor.context, gang.generation, secrets.token_hex(3))
        self._node, self._key, self.address = nodes[0], spec.key, ""
        self.executor.start(nodes[0], spec)

    def adopt(self) -> None:
        """Continue with the store that the previous controller started."""
        executor = self.executor
        for node in executor.allocation.nodes:
            with suppress(NodeLost):
                for info in executor.deps.fabric.processes(node):
                    report = info.last(RendezvousReport)
                    if report and info.alive and info.workload == executor.job.id:
                        self._node, self._key = node, info.key
                        self.address = report.address

    def on_report(self, key: str, report: Report, gang: Gang) -> bool:
        """Note the store's address, or replace a store that has ended. True: the address is new."""
        if key != self._key:
            return False
        if isinstance(report, ExitReport):
            self._node, self._key, self.address = NOWHERE, "", ""
            self.open(gang)
        elif isinstance(report, RendezvousReport):
            self.address = report.address
            return True
        return False
