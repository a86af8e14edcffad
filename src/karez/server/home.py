"""The files of a cloud's state folder, and its lock files."""

import fcntl
import os
from dataclasses import dataclass
from pathlib import Path

from karez.core.errors import AlreadyRunning, StartFailed
from karez.core.settings import Settings

RESTORING = "restoring.partial"
"""Folder in a state folder, on its disk, in which a restore makes the cloud until it is whole."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Home:
    """The state folder of a cloud; each property is the path of one file in it."""

    path: Path

    @classmethod
    def of(cls, settings: Settings) -> "Home":
        """Open the state folder; it is created if absent, readable by its owner only."""
        path = Path(settings.home).expanduser().absolute()
        if (path / RESTORING).exists():
            detail = f"a restore into {path} was broken off: empty the folder and restore again."
            raise StartFailed(part="The cloud", detail=detail)
        try:
            (path / "logs").mkdir(mode=0o700, parents=True, exist_ok=True)
            path.chmod(0o700)
        except OSError as error:
            raise StartFailed(
                part="The state folder", detail=f"{path}: {error.strerror}"
            ) from error
        return cls(path=path)

    @property
    def admin_key(self) -> Path:
        """File of the first admin key."""
        return self.path / "admin.key"

    @property
    def gateway_key(self) -> Path:
        """File of the key that the gateway shows to control."""
        return self.path / "gateway.key"

    def access_log(self, process: int = 0) -> Path:
        """The access log of a process of the gateway: one line of JSON for each request."""
        return self.path / "logs" / f"access{_number(process)}.jsonl"

    def calls(self, process: int = 0) -> Path:
        """The calls that a process of the gateway has not delivered yet."""
        return self.path / f"calls{_number(process)}.spool"

    @property
    def gateway_rows(self) -> Path:
        """Folder of what the processes of the gateway share."""
        return self.path / "gateway.rows"

    @property
    def gateway_metrics(self) -> Path:
        """Folder of the metrics of each process of the gateway."""
        return self.path / "gateway.metrics"

    @property
    def node_key(self) -> Path:
        """File of the key that nodes show to control; also the join token."""
        return self.path / "node.key"

    @property
    def engine_key(self) -> Path:
        """File of the key that the gateway shows to engines."""
        return self.path / "engine.key"

    @property
    def receipts_key(self) -> Path:
        """File of the private key that signs receipts."""
        return self.path / "receipts.key"

    @property
    def receipts_public(self) -> Path:
        """File of the public key that receipts are checked with."""
        return self.path / "receipts.pub"

    @property
    def ray_token(self) -> Path:
        """File of Ray's cluster token, which tenants never get."""
        return self.path / "ray.token"

    @property
    def pepper(self) -> Path:
        """File of the secret that digests keys and seals secrets."""
        return self.path / "pepper"

    def lock(self, name: str) -> int:
        """Hold a lock file until the process ends. Raises AlreadyRunning."""
        fd = os.open(self.path / f"{name}.lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            pid = int(os.read(fd, 20) or b"0")
            os.close(fd)
            raise AlreadyRunning(home=str(self.path), pid=pid) from None
        os.ftruncate(fd, 0)
        os.write(fd, str(os.getpid()).encode())
        return fd


def _number(process: int) -> str:
    return f"-{process}" if process else ""
