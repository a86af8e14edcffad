"""Find the address of the cloud in use and the API key for it."""

import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from karez.core import environment

OWN_URL, OWN_GATEWAY = "http://127.0.0.1:7070", "http://127.0.0.1:7080/v1"
"""Addresses of a cloud of this host that has written none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """URL of a cloud's API and gateway, and an API key."""

    url: str
    key: str = field(repr=False)
    gateway: str = ""
    is_up: bool = False
    """Whether this host's own cloud runs at the address; calls then wait for a restart."""


def state_folder() -> Path:
    """State folder of this user's cloud: KAREZ_HOME, else ~/.karez."""
    return Path(os.environ.get(environment.HOME, "~/.karez")).expanduser().absolute()  # noqa: TID251 - the client's door


def find_address(url: str = "", key: str = "") -> Address:
    """Read arguments, then KAREZ_URL and KAREZ_KEY, then the files of the cloud of `karez up`.

    The key in those files is used for that cloud alone.
    """
    env, home = os.environ, state_folder()  # noqa: TID251 - the client's door
    local_cloud: dict[str, Any] = {}
    if (home / "cloud.json").exists():
        local_cloud = json.loads((home / "cloud.json").read_text())
    own_url = str(local_cloud.get("url", OWN_URL))
    own_gateway = str(local_cloud.get("gateway", OWN_GATEWAY))
    used_url = (url or env.get(environment.URL, "") or own_url).rstrip("/")
    gateway = env.get(environment.GATEWAY, "") or own_gateway
    key = key or env.get(environment.KEY, "")
    # a key of this host's cloud is for that cloud: no other server is to see it
    is_own = (used_url, gateway.rstrip("/")) == (own_url.rstrip("/"), own_gateway.rstrip("/"))
    if not key and is_own and (home / "admin.key").exists():
        key = (home / "admin.key").read_text().strip()
    return Address(
        is_up=not url and environment.URL not in env and _is_running(local_cloud.get("pid")),
        url=used_url,
        key=key,
        gateway=gateway,
    )


def _is_running(pid: object) -> bool:
    if not isinstance(pid, int):
        return False
    try:
        os.kill(pid, 0)
    except OSError:
        return False
    return True
