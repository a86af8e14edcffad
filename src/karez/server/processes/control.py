"""The control process: the API and the controllers."""

import gc
import signal

import uvicorn

from karez.core.api_models import JoinConfig
from karez.core.settings import Settings
from karez.server.api.app import create_app
from karez.server.home import Home
from karez.server.processes.http_connections import MAX_CONNECTIONS, TimedProtocol
from karez.server.processes.report import Report
from karez.server.wiring import build_cloud


def _keep_running(_number: int, _frame: object) -> None:
    """Ignore the signal that uvicorn raises again after it has ended: the cleanup must run."""


def run_control(settings: Settings, report: Report) -> None:
    """Serve until SIGTERM. Raises AlreadyRunning if another control holds the state folder."""
    del report
    home = Home.of(settings)
    home.lock("control")
    cloud, manager = build_cloud(settings, home)
    app = create_app(cloud)
    app.state.loops_alive = manager.alive
    app.state.failing = manager.failing
    app.state.join_config = JoinConfig(
        ray_address=settings.ray_address or f"{settings.host}:{settings.ray_port}",
        ray_token=home.ray_token.read_text() if home.ray_token.exists() else "",
    )
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _keep_running)
    gc.collect()
    gc.freeze()  # modules stay loaded: no collection needs to walk them during a pass
    manager.start()
    try:
        uvicorn.run(
            app,
            host=settings.host,
            port=settings.port,
            log_level="warning",
            access_log=False,
            http=TimedProtocol,
            limit_concurrency=MAX_CONNECTIONS,
            timeout_graceful_shutdown=3,
        )
    finally:
        manager.stop()
        cloud.store.close()
