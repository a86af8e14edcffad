"""Tokens to join: for one host and a while, and good for nothing else (M6)."""

from pathlib import Path
from typing import Any

import pytest

from karez.core.api_models import JoinConfig
from karez.core.identity import KeySpec, Role
from karez.core.messages.wire import PROTOCOL, PROTOCOL_HEADER
from karez.server.processes import node
from karez.server.processes.node import JoinRequest
from tests.api import Api, running_api
from tests.fakes import FakeClock
from tests.loopback import served

SAME = {PROTOCOL_HEADER: str(PROTOCOL)}


def token_of(api: Api, **more: object) -> str:
    spec = {"name": "host", "project": "*", "role": "join", **more}
    return str(api.ask("POST", "/keys", json=spec).json()["key"])


def join(api: Api, token: str, name: str = "h") -> tuple[int, str]:
    answer = api.ask("POST", "/node/join", token, json={"name": name}, headers=SAME)
    return answer.status_code, answer.json().get("node_key", "")


def with_config(api: Api) -> Api:
    app: Any = api.http.app
    app.state.join_config = JoinConfig(ray_address="r", ray_token="t")
    return api


def test_a_token_is_good_for_one_host(tmp_path: Path) -> None:
    with running_api(tmp_path) as made:
        api = with_config(made)
        token = token_of(api)
        for path in ("/jobs", "/pool", "/node/blobs/" + "0" * 64):
            assert api.ask("GET", path, token).status_code == 403
        assert api.ask("GET", "/node/join", token, headers=SAME).status_code == 403
        code, key = join(api, token, "rack1/gpu 7\x1b[2J")
        assert code == 200
        assert join(api, token) == (401, "")
        assert api.ask("GET", "/node/join", key, headers=SAME).json()["ray_token"] == "t"
        assert api.ask("GET", "/jobs", key).status_code == 403
        assert join(api, key)[0] == 403
        member = api.key(Role.ADMIN)
        refused = api.ask("POST", "/keys", member, json={"name": "x", "role": "join"})
        assert refused.status_code == 403


def test_tokens_and_keys_expire(tmp_path: Path) -> None:
    with running_api(tmp_path) as made:
        api = with_config(made)
        clock = api.cloud.clock
        assert isinstance(clock, FakeClock)
        early, late = token_of(api, expires_in_s=60.0), token_of(api)
        key = api.cloud.access.new_key(KeySpec(name="k", role=Role.VIEWER, expires_in_s=100.0))[1]
        assert api.ask("GET", "/jobs", key).status_code == 200
        clock.pause(101.0)
        assert join(api, early) == (401, "")
        assert api.ask("GET", "/jobs", key).status_code == 401
        assert join(api, late)[0] == 200
        last = token_of(api)
        clock.pause(3601.0)
        assert join(api, last) == (401, "")


@pytest.mark.story
def test_a_host_joins_with_a_token_and_again_without(tmp_path: Path) -> None:
    with running_api(tmp_path) as made, served(with_config(made).http.app) as url:

        def asked(token: str) -> JoinConfig:
            request = JoinRequest(
                url=url, token=token, address="127.0.0.1", name="h2", home=tmp_path / "node"
            )
            request.home.mkdir(exist_ok=True)
            return node._fetch_config(request)

        token = token_of(made)
        assert asked(token).ray_token == "t"
        assert asked(token).ray_token == "t"  # the same command, after a restart of the host
        file = tmp_path / "node" / node.NODE_KEY
        assert file.stat().st_mode & 0o777 == 0o600
        assert asked("").ray_token == "t"
        assert asked(file.read_text()).ray_token == "t"  # a key in place of a token, as before
        names = [key.name for key in made.cloud.store.access.keys()]
        assert "node h2" in names
