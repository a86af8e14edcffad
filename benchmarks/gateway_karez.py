"""The gateway's data plane, as its process runs it: `PORT UPSTREAM_URL FOLDER`; prints a key."""

import asyncio
import sys
from pathlib import Path

import uvloop

from karez.core.identity import Role
from karez.core.routing import GatewayKey, Route, Table
from karez.server.clock import SteadyClock
from karez.server.processes.gateway import key_check
from karez.serving.access_log import AccessLog
from karez.serving.call_book import CallBook
from karez.serving.gateway import Gateway
from karez.serving.usage_spool import UsageSpool
from karez.vault.keys import Pepper, full_key, make_key

KEYS, SLOTS = 50, 4096


async def _serve(port: int, upstream: str, folder: Path) -> None:
    pepper = Pepper(folder / "pepper")
    made = [make_key() for _ in range(KEYS)]
    gateway = Gateway(
        book=CallBook(
            spool=UsageSpool(folder / "calls.spool"), access_log=AccessLog(folder / "access.jsonl")
        ),
        clock=SteadyClock(),
        find_key=key_check(pepper),
        engine_key="engine-key",
    )
    keys = tuple(
        GatewayKey(id=ident, project="p", role=Role.MEMBER, digest=pepper.digest(secret))
        for ident, secret in made
    )
    route = Route(service="gpt", project="p", urls=(upstream,), parallel=SLOTS)
    gateway.table = Table(keys=keys, routes=(route,))
    await gateway.listen("127.0.0.1", port)
    print(full_key(*made[-1]), flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(_serve(int(sys.argv[1]), sys.argv[2], Path(sys.argv[3])))
