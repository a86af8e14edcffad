"""Slow senders, half-open connections and large anonymous bodies at a real server (H1, H2, M12)."""

import hashlib
import json
import os
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest

from karez.core.settings import Settings
from karez.server.api import door
from karez.server.processes import http_connections
from tests.api import Api, running_api
from tests.contracts.gang import until

pytestmark = pytest.mark.story


@pytest.fixture
def api(tmp_path: Path) -> Iterator[Api]:
    with running_api(tmp_path, settings=Settings(requests_per_s=0.0)) as made:
        yield made


def dial(url: str) -> socket.socket:
    host, _, port = url.removeprefix("http://").partition(":")
    stream = socket.create_connection((host, int(port)))
    stream.settimeout(20)
    return stream


def is_closed(stream: socket.socket) -> bool:
    """Wait until the other side has closed a connection."""
    try:
        while stream.recv(4096):
            continue
    except ConnectionResetError:
        return True
    except TimeoutError:
        return False
    return True


def is_well(api: Api, url: str) -> bool:
    headers = {"authorization": f"Bearer {api.admin}"}
    health = httpx.get(f"{url}/api/v1/health", timeout=10)
    jobs = httpx.get(f"{url}/api/v1/jobs", headers=headers, timeout=10)
    return (health.status_code, jobs.status_code) == (200, 200)


def parts(folder: Path) -> list[Path]:
    return list((folder / "blobs").glob("*.part"))


def test_slow_uploads_hold_up_nobody_and_leave_nothing(
    api: Api, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """H1: more of them than there are threads for requests."""
    digest = hashlib.sha256(b"x").hexdigest()
    head = (
        f"PUT /api/v1/blobs/{digest} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {api.admin}\r\n"
        "content-length: 100000\r\n\r\nabc"
    )
    with ExitStack() as open_ones:
        streams = [open_ones.enter_context(dial(url)) for _ in range(60)]
        for stream in streams:
            stream.sendall(head.encode())
        until(lambda: len(parts(tmp_path)) == len(streams))
        assert is_well(api, url)
        for stream in streams[:30]:
            stream.close()
        until(lambda: len(parts(tmp_path)) == 30)
        monkeypatch.setattr(door, "IDLE_S", 0.5)
        for stream in streams[30:]:
            stream.sendall(b"more")
        for stream in streams[30:]:
            assert b" 408 " in stream.recv(4096)
        until(lambda: parts(tmp_path) == [])
    assert is_well(api, url)


def test_what_an_upload_left_is_swept(api: Api, tmp_path: Path) -> None:
    old, new = (tmp_path / "blobs" / f"{name}.part" for name in ("old", "new"))
    for path in (old, new):
        path.write_bytes(b"x")
    os.utime(old, (1.0, 1.0))
    assert api.cloud.blobs.sweep(before=1000.0) == 1
    assert parts(tmp_path) == [new]


def test_half_open_connections_are_dropped(
    api: Api, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """M12: some say nothing, some begin a request and never end its head."""
    monkeypatch.setattr(http_connections, "REQUEST_S", 1.5)
    with ExitStack() as open_ones:
        streams = [open_ones.enter_context(dial(url)) for _ in range(300)]
        for stream in streams[::2]:
            stream.sendall(b"GET /api/v1/health HTTP/1.1\r\nx: y\r\n")
        assert is_well(api, url)
        assert all(map(is_closed, streams))
    assert is_well(api, url)


def test_a_connection_is_used_again_within_its_time(
    api: Api, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_connections, "REQUEST_S", 3.0)
    with httpx.Client(headers={"authorization": f"Bearer {api.admin}"}) as client:
        for _ in range(20):
            assert client.get(f"{url}/api/v1/whoami").status_code == 200


@pytest.mark.parametrize("how", ["length", "chunks"])
def test_nobody_reads_what_a_stranger_sends(url: str, how: str) -> None:
    """H2: a large body without a key is refused by its head alone."""
    sized = "content-length: 200000000" if how == "length" else "transfer-encoding: chunked"
    with dial(url) as stream:
        stream.sendall(f"POST /api/v1/jobs HTTP/1.1\r\nhost: x\r\n{sized}\r\n\r\n".encode())
        answer = stream.recv(65536)
        assert b" 401 " in answer
        assert b"connection: close" in answer.lower()


def test_a_body_that_is_too_large_is_refused_by_its_head(api: Api, url: str) -> None:
    for sized, body in (
        ("content-length: 200000000", b""),
        ("transfer-encoding: chunked", b"200000\r\n" + b"x" * 0x200000 + b"\r\n"),
    ):
        with dial(url) as stream:
            head = f"POST /api/v1/jobs HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {api.admin}\r\n"
            stream.sendall(f"{head}{sized}\r\n\r\n".encode() + body)
            assert b" 413 " in stream.recv(65536)


def test_a_request_that_ends_in_two_ways_is_refused(api: Api, url: str) -> None:
    """Low: what a proxy before and the server behind would cut differently."""
    with dial(url) as stream:
        head = f"POST /api/v1/jobs HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {api.admin}\r\n"
        both = "content-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n"
        stream.sendall((head + both + "GET /api/v1/whoami HTTP/1.1\r\nhost: x\r\n\r\n").encode())
        assert stream.recv(65536).split(b"\r\n")[0].split()[1] in (b"400", b"422")


def test_a_key_may_ask_so_often(tmp_path: Path) -> None:
    with running_api(tmp_path, settings=Settings(requests_per_s=1.0)) as api:
        codes = [api.ask("GET", "/whoami").status_code for _ in range(14)]
        assert codes == [200] * 10 + [429] * 4
        refused = api.ask("GET", "/whoami")
        assert (refused.headers["retry-after"], refused.json()["code"]) == (
            "1",
            "too-many-requests",
        )
        other = api.cloud.access.reset_admin()
        assert api.ask("GET", "/whoami", other).status_code == 200
        assert json.loads(refused.text)["fields"]["retry_after_s"] == 1
