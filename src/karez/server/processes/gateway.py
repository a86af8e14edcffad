"""The gateway process: reads its table from control, and delivers calls to control."""

import asyncio
import json
import signal
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from functools import lru_cache
from pathlib import Path

import aiohttp
import structlog
import uvloop

from karez.core.codec import from_text, to_json, to_text
from karez.core.errors import ProtocolMismatch
from karez.core.messages.wire import PROTOCOL, PROTOCOL_HEADER
from karez.core.routing import GatewayKey, Table
from karez.core.settings import MOST_GATEWAYS, Settings, address_ranges
from karez.server.clock import SteadyClock
from karez.server.home import Home
from karez.server.processes.report import Report
from karez.serving.access_log import AccessLog
from karez.serving.call_book import CallBook
from karez.serving.gateway import Gateway
from karez.serving.gateway_metrics import merge_metrics
from karez.serving.shared_rows import SharedRows
from karez.serving.usage_spool import UsageSpool
from karez.vault.keys import Pepper, read_or_make, split_key, write_private

log = structlog.get_logger()
GRACE_S = 3.0
"""How long answers that have begun may take once the process is asked to end."""
REFRESH_S = 1.0
"""Seconds between two reads of the table of keys and replicas."""
BATCHES = 4
"""Of calls that are delivered between two reads of the table."""
BAD = 400
AWAITED_S = 0.2
"""The same while requests wait for a service without a replica."""


def run_gateway(settings: Settings, report: Report, number: str = "0") -> None:
    """Serve until SIGTERM, as the process of this number."""
    del report
    home, process, processes = Home.of(settings), int(number), settings.gateway_processes
    shared = SharedRows(home.gateway_rows, process=process, processes=processes)
    home.gateway_metrics.mkdir(mode=0o700, exist_ok=True)
    gateway = Gateway(
        book=CallBook(
            spool=UsageSpool(home.calls(process)),
            access_log=_access_log(home.access_log(process), settings.access_log),
        ),
        process=process,
        processes=processes,
        open_rows=shared.open,
        add_others=_add_others(home.gateway_metrics, process) if processes > 1 else bytes,
        clock=SteadyClock(),
        find_key=key_check(Pepper(home.pepper)),
        engine_key=read_or_make(home.engine_key).hex(),
        proxies=address_ranges(settings.trusted_proxies),
        control=f"http://{settings.host}:{settings.port}/api/v1/openai",
    )
    gateway.table = _stored_table(home.path / "gateway.table")
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_serve(gateway, settings, home))


def _access_log(path: Path, has: str) -> AccessLog | None:
    """The access log; None: there is to be none, or it cannot be written."""
    if has == "off":
        return None
    try:
        return AccessLog(path, has_text=has == "text")
    except OSError as error:
        log.error("gateway.access-log", why=str(error))
        return None


def _add_others(folder: Path, process: int) -> Callable[[bytes], bytes]:
    """Build what adds the metrics that other processes have written into a folder."""

    def add(own: bytes) -> bytes:
        texts = {int(file.stem): file.read_text() for file in folder.glob("*.prom")}
        return merge_metrics({**texts, process: own.decode()}).encode()

    return add


def key_check(pepper: Pepper) -> Callable[[str, Table], GatewayKey | None]:
    """Build a check that finds the key of a text; a valid key is hashed once only."""
    matches = lru_cache(maxsize=4096)(pepper.matches)

    def check(text: str, table: Table) -> GatewayKey | None:
        parts = split_key(text)
        if parts is None:
            return None
        key = next((key for key in table.keys if key.id == parts[0]), None)
        return key if key is not None and matches(parts[1], key.digest) else None

    return check


async def _serve(gateway: Gateway, settings: Settings, home: Home) -> None:
    loop, stopped = asyncio.get_running_loop(), asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped.set)
    server = await gateway.listen(settings.host, settings.gateway_port)
    async with _background(gateway, settings, home):
        await stopped.wait()
        server.close()
        await gateway.close(within_s=GRACE_S)


@asynccontextmanager
async def _background(gateway: Gateway, settings: Settings, home: Home) -> AsyncIterator[None]:
    base = f"http://{settings.host}:{settings.port}/api/v1"
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=10)) as session:
        tasks = [asyncio.create_task(_follow(gateway, session, base, home))]
        if gateway.processes > 1:
            file = home.gateway_metrics / f"{gateway.process}.prom"
            tasks.append(asyncio.create_task(_tell_metrics(gateway, file)))
        yield
        for task in tasks:
            task.cancel()


async def _tell_metrics(gateway: Gateway, file: Path) -> None:
    """Tell the other processes what this one counts, also while control is away."""
    while True:
        try:
            write_private(file, gateway.metrics().decode())
        except OSError as error:
            log.error("gateway.metrics-not-told", why=str(error))
        await asyncio.sleep(REFRESH_S)


async def _follow(gateway: Gateway, session: aiohttp.ClientSession, base: str, home: Home) -> None:
    """Refresh the table and deliver the calls; control may be away for a while."""
    seen = b""
    spools = [gateway.book.spool, *_left(home, gateway)]
    while True:
        try:
            key = home.gateway_key.read_text()
            headers = {"authorization": f"Bearer {key}", PROTOCOL_HEADER: str(PROTOCOL)}
            async with session.get(f"{base}/gateway/table", headers=headers) as answer:
                data = await answer.read() if answer.status == 200 else b""
                if answer.status == ProtocolMismatch.status:
                    log.error("gateway.refused", why=await answer.text())
            if data and data != seen:
                seen, gateway.table = data, from_text(Table, data)
                write_private(home.path / "gateway.table", to_text(gateway.table))
            await _report_load(gateway, session, base, headers)
            for spool in spools:
                for _ in range(BATCHES):  # a backlog holds up no report
                    if not (spool.rotate() and await _deliver(spool, session, base, headers)):
                        break
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            log.info("gateway.control-away", error=type(error).__name__)
        except ValueError as error:  # the last good table stays
            log.error("message.refused", type="gateway-table", why=str(error))
        await _pause(gateway)


def _left(home: Home, gateway: Gateway) -> list[UsageSpool]:
    """The calls of processes that the gateway had when it had more; its first delivers them."""
    files = [home.calls(number) for number in range(gateway.processes, MOST_GATEWAYS)]
    if gateway.process:
        return []
    return [
        UsageSpool(file) for file in files if file.exists() or file.with_suffix(".sending").exists()
    ]


async def _deliver(
    spool: UsageSpool, session: aiohttp.ClientSession, base: str, headers: Mapping[str, str]
) -> bool:
    """Deliver a batch of calls; returns whether control has taken it."""
    body = await asyncio.to_thread(_batch, spool)
    more = {**headers, "content-type": "application/json"}
    async with session.post(f"{base}/gateway/calls", data=body, headers=more) as answer:
        if answer.status == 204:
            spool.done()
        else:
            log.error("gateway.calls-refused", status=answer.status, why=await answer.text())
        return answer.status == 204


def _batch(spool: UsageSpool) -> bytes:
    return json.dumps([to_json(call) for call in spool.take()]).encode()


async def _report_load(
    gateway: Gateway, session: aiohttp.ClientSession, base: str, headers: Mapping[str, str]
) -> None:
    load = to_json(gateway.load())
    async with session.post(f"{base}/gateway/load", json=load, headers=headers) as answer:
        if answer.status >= BAD:
            log.error("gateway.load-refused", status=answer.status, why=await answer.text())


async def _pause(gateway: Gateway) -> None:
    """Wait for the next round, which comes soon while a replica is awaited."""
    for _ in range(round(REFRESH_S / AWAITED_S)):
        await asyncio.sleep(AWAITED_S)
        if gateway.admission.awaits_a_replica():
            return


def _stored_table(path: Path) -> Table:
    """The last table, so that the gateway serves even before control has started."""
    try:
        return from_text(Table, path.read_bytes())
    except (FileNotFoundError, ValueError):
        return Table()
