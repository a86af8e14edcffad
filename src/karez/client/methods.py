"""The methods of `karez.Client` and `karez.AsyncClient`, written once (client.steps)."""

import uuid
from collections.abc import Callable

from karez.client import access_calls, alert_calls, billing_calls, calls, pool_calls, tunnel_calls
from karez.client.binding import Method, Stream, endpoint
from karez.client.file_methods import FileMethods
from karez.client.steps import Emit, Flow, Items, pause
from karez.core.errors import Failed
from karez.core.jobs import Job, JobSpec
from karez.core.services import READY, Service, ServiceSpec
from karez.core.tunnels import (
    Tunnel,
    TunnelPiece,
    unpack_piece,
)
from karez.core.workloads import ENDED, State


class Methods(FileMethods):
    """Methods of both clients. Each method raises the errors of karez.errors."""

    summary = endpoint(calls.summary)
    whoami = endpoint(access_calls.whoami)

    # jobs

    jobs = endpoint(calls.jobs)
    job = endpoint(calls.job)
    cancel = endpoint(calls.cancel)
    metrics = endpoint(calls.metrics)
    receipts = endpoint(calls.receipts)
    signed_receipts = endpoint(calls.signed_receipts)
    trace = endpoint(calls.trace)
    goodput = endpoint(calls.goodput)
    transitions = endpoint(calls.transitions)
    inject_faults = endpoint(calls.inject_faults)
    log_names = endpoint(calls.log_names)
    log = endpoint(calls.log)

    # tunnels into running jobs

    open_tunnel = endpoint(tunnel_calls.open_tunnel)
    resize_tunnel = endpoint(tunnel_calls.resize_tunnel)
    close_tunnel = endpoint(tunnel_calls.close_tunnel)

    # services and artifacts

    services = endpoint(calls.services)
    fit_service = endpoint(calls.fit_service)
    update_service = endpoint(calls.update_service)
    service = endpoint(calls.service)
    stop_service = endpoint(calls.stop_service)
    artifacts = endpoint(calls.artifacts)
    artifact = endpoint(calls.artifact)
    artifact_file = endpoint(calls.artifact_file)
    register = endpoint(calls.register)
    remove_artifact = endpoint(calls.remove_artifact)

    # the pool

    pool = endpoint(pool_calls.pool)
    allocations = endpoint(pool_calls.allocations)
    why = endpoint(pool_calls.why)
    what_if = endpoint(pool_calls.what_if)
    cordon = endpoint(pool_calls.cordon)
    drain = endpoint(pool_calls.drain)
    maintenance = endpoint(pool_calls.maintenance)
    overrides = endpoint(pool_calls.overrides)
    override_node = endpoint(pool_calls.override_node)
    defragment = endpoint(pool_calls.defragment)
    faults = endpoint(pool_calls.faults)
    report_fault = endpoint(pool_calls.report_fault)
    receipts_key = endpoint(calls.receipts_key)

    # alerts

    alerts = endpoint(alert_calls.alerts)
    put_alert = endpoint(alert_calls.put_alert)
    remove_alert = endpoint(alert_calls.remove_alert)
    try_alert = endpoint(alert_calls.try_alert)
    sent_alerts = endpoint(alert_calls.sent_alerts)

    # projects, keys, usage

    projects = endpoint(access_calls.projects)
    add_project = endpoint(access_calls.add_project)
    set_quota = endpoint(access_calls.set_quota)
    keys = endpoint(access_calls.keys)
    create_key = endpoint(access_calls.create_key)
    rotate_key = endpoint(access_calls.rotate_key)
    revoke_key = endpoint(access_calls.revoke_key)
    secrets = endpoint(access_calls.secrets)
    put_secret = endpoint(access_calls.put_secret)
    usage = endpoint(access_calls.usage)
    audit = endpoint(access_calls.audit)
    usage_minutes = endpoint(billing_calls.usage_minutes)
    settlement = endpoint(billing_calls.settlement)
    ledger = endpoint(billing_calls.ledger)
    prices = endpoint(billing_calls.prices)
    put_price = endpoint(billing_calls.put_price)
    drop_price = endpoint(billing_calls.drop_price)
    device_prices = endpoint(billing_calls.device_prices)
    put_device_price = endpoint(billing_calls.put_device_price)
    drop_device_price = endpoint(billing_calls.drop_device_price)

    @Method
    def submit(self, spec: JobSpec) -> Flow[Job]:
        """Queue a job; a lost connection never queues the job twice."""
        return self.ask(calls.submit(spec, uuid.uuid4().hex))

    @Method
    def check(self, spec: JobSpec) -> Flow[Job]:
        """Check a job as `submit` does, without queueing it. Raises what `submit` raises."""
        return self.ask(calls.submit(spec, uuid.uuid4().hex, dry_run=True))

    @Method
    def deploy(self, spec: ServiceSpec) -> Flow[Service]:
        """Deploy a model; a lost connection never deploys the model twice."""
        return self.ask(calls.deploy(spec, uuid.uuid4().hex))

    @Method
    def wait(
        self, ident: str, *, watch: Callable[[Job], None] | None = None, limit_s: float = 3600.0
    ) -> Flow[Job]:
        """Wait until a job has ended. Raises Failed if the job did not succeed in time.

        Args:
            ident: Id or name of the workload.
            watch: Called with the job at each poll.
            limit_s: Seconds to wait at most.
        """
        deadline = (yield from pause()) + limit_s
        while True:
            job = yield from self.ask(calls.job(ident))
            if watch is not None:
                watch(job)
            if job.state in ENDED:
                return _succeeded(job)
            if (yield from pause()) > deadline:
                raise Failed(noun="job", name=ident, reason=f"not done after {limit_s:.0f} s.")
            yield from pause(0.25)

    @Method
    def wait_ready(self, ident: str, *, limit_s: float = 120.0) -> Flow[Service]:
        """Wait until all replicas of a service are ready. Raises Failed after `limit_s` seconds."""
        deadline = (yield from pause()) + limit_s
        while True:
            service = yield from self.ask(calls.service(ident))
            ready = [view for view in service.status.ranks if view.state == READY]
            if len(ready) >= service.spec.replicas or service.state == State.IDLE:
                return service
            if service.state in ENDED or (yield from pause()) > deadline:
                reason = service.status.reason or f"not ready after {limit_s:.0f} s."
                raise Failed(noun="service", name=ident, reason=reason)
            yield from pause(0.2)

    @Method
    def wait_updated(
        self,
        updated: Service,
        *,
        watch: Callable[[Service], None] | None = None,
        limit_s: float = 3600.0,
    ) -> Flow[Service]:
        """Wait until an update is over. Raises Failed if it was undone.

        The update of a service without a replica is over with its next requests.

        Args:
            updated: The answer to the update.
            watch: Called with the service at each poll.
            limit_s: Seconds to wait at most.
        """
        deadline = (yield from pause()) + limit_s
        while True:
            service = yield from self.ask(calls.service(updated.id))
            if watch is not None:
                watch(service)
            if service.spec != updated.spec or service.state in ENDED:
                undone = [one for one in service.status.notices if "undone" in one]
                reason = next(
                    filter(None, (*undone, service.status.reason, "it was updated again"))
                )
                raise Failed(noun="service", name=updated.spec.name, reason=reason)
            ready = sum(view.state == READY for view in service.status.ranks)
            if service.status.progress is None and ready >= service.spec.least:
                return service
            if service.state == State.IDLE:
                return service
            if (yield from pause()) > deadline:
                reason = f"not updated after {limit_s:.0f} s."
                raise Failed(noun="service", name=updated.spec.name, reason=reason)
            yield from pause(0.2)

    @Method
    def tunnel_input(
        self, tunnel: Tunnel, offset: int, data: bytes, *, end: bool = False
    ) -> Flow[int]:
        """Send bytes that begin at an offset, until the other end has taken all.

        Args:
            tunnel: An open tunnel.
            offset: Number of bytes that were sent before.
            data: The bytes.
            end: Whether these are the last.

        Returns:
            The offset of what comes next.
        """
        return (yield from self._send_all(tunnel, offset, data, end=end))

    @Method
    def tunnel_output(self, tunnel: Tunnel, offset: int) -> Flow[TunnelPiece]:
        """Get bytes from an offset on, waiting up to a second for some."""
        return unpack_piece((yield from self.ask(tunnel_calls.tunnel_output(tunnel, offset))))

    @Stream
    def follow_logs(self, noun: str, ident: str, *, follow: bool) -> Items[tuple[str, str]]:
        """Yield (file, text) pieces of a workload's output; with `follow`, until the workload ends.

        Args:
            noun: "jobs" or "services".
            ident: Id or name of the workload.
            follow: Continue until the workload has ended.
        """
        offsets: dict[str, int] = {}
        while True:
            ended = yield from self._ended(noun, ident)
            for name in (yield from self.ask(calls.log_names(noun, ident))):
                while True:
                    call = calls.log(noun, ident, name, offsets.get(name, 0))
                    piece = yield from self.ask(call)
                    offsets[name] = piece.next
                    if not piece.text:
                        break
                    yield Emit((name, piece.text))
            if ended or not follow:
                return
            yield from pause(0.5)

    def _ended(self, noun: str, ident: str) -> Flow[bool]:
        if noun == "services":
            return (yield from self.ask(calls.service(ident))).state in ENDED
        return (yield from self.ask(calls.job(ident))).state in ENDED


def _succeeded(job: Job) -> Job:
    if job.state != State.SUCCEEDED:
        reason = f"{job.status.end or job.state}: {job.status.reason}"
        raise Failed(noun="job", name=job.spec.name, reason=reason)
    return job
