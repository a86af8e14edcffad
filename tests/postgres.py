"""A PostgreSQL of the tests' own, from Debian's package, on a free port of loopback."""

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.ports import free_port


def programs() -> Path | None:
    """The folder with initdb and pg_ctl, if PostgreSQL is installed."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    return found[-1].parent if found else None


class Server:
    """A PostgreSQL in a folder of its own; it archives its WAL where it is asked to."""

    def __init__(self, folder: Path, *, archives: bool = False) -> None:
        self.folder, self.port = folder, free_port()
        self.data, self.archive = folder / "data", folder / "archive"
        self.archives = archives

    @property
    def url(self) -> str:
        return f"postgresql+psycopg://karez@127.0.0.1:{self.port}/postgres"

    def run(self, program: str, *words: str) -> None:
        where = programs()
        assert where is not None
        as_user = ["runuser", "-u", "postgres", "--"] if os.geteuid() == 0 else []
        subprocess.run(  # PostgreSQL refuses to run as root
            [*as_user, str(where / program), *words],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            check=True,
            cwd="/",
        )

    def create(self) -> None:
        for folder in (self.folder, self.archive):
            folder.mkdir(exist_ok=True)
            if os.geteuid() == 0:
                user = pwd.getpwnam("postgres")
                os.chown(folder, user.pw_uid, user.pw_gid)
        self.run("initdb", "-D", str(self.data), "-A", "trust", "-U", "karez")

    def start(self, *settings: str) -> None:
        archiving = ["archive_mode=on", f"archive_command=cp %p {self.archive}/%f"]
        words = [
            "listen_addresses=127.0.0.1",
            f"unix_socket_directories={self.folder}",
            *(archiving if self.archives else ()),
            *settings,
        ]
        options = " ".join([f"-p {self.port}", *(f"-c '{word}'" for word in words)])
        self.run("pg_ctl", "-D", str(self.data), "-o", options, "-w", "start")

    def stop(self) -> None:
        self.run("pg_ctl", "-D", str(self.data), "-m", "immediate", "stop")


@contextmanager
def server() -> Iterator[str]:
    """The SQLAlchemy URL of a fresh server; it is gone afterwards."""
    folder = Path(tempfile.mkdtemp(prefix="kz-pg-"))
    made = Server(folder)
    try:
        made.create()
        made.start()
        yield made.url
        made.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
