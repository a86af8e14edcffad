"""Find the address of the cloud in use and the API key for it."""

import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from karez.core import environment


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
    """Read arguments, then KAREZ_URL and KAREZ_KEY, then the files of the cloud of `karez up`."""
    env, home = os.environ, state_folder()  # noqa: TID251 - the client's door
    local_cloud: dict[str, Any] = {}
    if (home / "cloud.json").exists():
        local_cloud = json.loads((home / "cloud.json").read_text())
    if not key:
        key = env.get(environment.KEY, "")
    if not key and (home / "admin.key").exists():
        key = (home / "admin.key").read_text().strip()
    return Address(
        is_up=not url and environment.URL not in env and _is_running(local_cloud.get("pid")),
        url=(
            url or env.get(environment.URL, "") or local_cloud.get("url", "http://127.0.0.1:7070")
        ).rstrip("/"),
        key=key,
        gateway=env.get(environment.GATEWAY, "")
        or local_cloud.get("gateway", "http://127.0.0.1:7080/v1"),
    )


def _is_running(pid: object) -> bool:
    if not isinstance(pid, int):
        return False
    try:
        os.kill(pid, 0)
    except OSError:
        return False
    return True
