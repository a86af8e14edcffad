"""Which cloud to speak to, and with which key."""

import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from karez.core import environment


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """A cloud's API and a key for it."""

    url: str
    key: str = field(repr=False)
    gateway: str = ""
    is_up: bool = False
    """Whether this host's own cloud runs: then a call that finds nobody may wait for a restart."""


def state_folder() -> Path:
    """The state folder of this user's cloud: KAREZ_HOME, else ~/.karez."""
    return Path(os.environ.get(environment.HOME, "~/.karez")).expanduser().absolute()  # noqa: TID251 - the client's door


def find_address(url: str = "", key: str = "") -> Address:
    """From arguments, then KAREZ_URL and KAREZ_KEY, then the cloud that `karez up` started here."""
    env, home = os.environ, state_folder()  # noqa: TID251 - the client's door
    known: dict[str, Any] = {}
    if (home / "cloud.json").exists():
        known = json.loads((home / "cloud.json").read_text())
    if not key:
        key = env.get(environment.KEY, "")
    if not key and (home / "admin.key").exists():
        key = (home / "admin.key").read_text().strip()
    return Address(
        is_up=not url and environment.URL not in env and _lives(known.get("pid")),
        url=(
            url or env.get(environment.URL, "") or known.get("url", "http://127.0.0.1:7070")
        ).rstrip("/"),
        key=key,
        gateway=env.get(environment.GATEWAY, "")
        or known.get("gateway", "http://127.0.0.1:7080/v1"),
    )


def _lives(pid: object) -> bool:
    if not isinstance(pid, int):
        return False
    try:
        os.kill(pid, 0)
    except OSError:
        return False
    return True
