"""Real hosts on one machine: network, PID and UTS namespaces on a bridge. Needs root, iproute2."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

PREFIX = f"kz{os.getpid() % 10_000}"


def possible() -> bool:
    """Whether this user and kernel can make network namespaces."""
    if os.geteuid() != 0 or shutil.which("ip") is None:
        return False
    probe = f"{PREFIX}-probe"
    made = subprocess.run(["ip", "netns", "add", probe], capture_output=True, check=False)
    subprocess.run(["ip", "netns", "del", probe], capture_output=True, check=False)
    return made.returncode == 0


def inside(host: str) -> list[str]:
    """The words that run a command on a host's network."""
    return ["ip", "netns", "exec", f"{PREFIX}-{host}"]


@dataclass
class Network:
    """Hosts by name, with their addresses."""

    addresses: dict[str, str]
    homes: list[Path] = field(default_factory=list)
    """State folders of nodes: whose power is cut clears no shared memory."""
    processes: list["subprocess.Popen[str]"] = field(default_factory=list)

    def run(
        self, host: str, words: Sequence[str], env: dict[str, str], stdout: int | None = None
    ) -> "subprocess.Popen[str]":
        """Start a karez command on a host, in a PID namespace of its own."""
        process = subprocess.Popen(
            [
                *inside(host),
                "unshare",
                "-pfmu",
                "--mount-proc",
                "--kill-child=SIGKILL",
                sys.executable,
                "-m",
                "karez.cli.main",
                *words,
            ],
            env={**os.environ, **env},
            text=True,
            stdout=stdout,
        )
        self.processes.append(process)
        return process

    def pull_plug(self, host: str) -> None:
        """Cut a host's cable; what runs on it is not told."""
        _ip("-n", f"{PREFIX}-sw", "link", "set", f"v-{host}", "down")


@contextmanager
def network(*names: str) -> Iterator[Network]:
    """A bridge and one host per name."""
    made = Network({name: f"10.77.0.{number}" for number, name in enumerate(names, 1)})
    try:
        _ip("netns", "add", f"{PREFIX}-sw")
        _ip("-n", f"{PREFIX}-sw", "link", "add", "br0", "type", "bridge")
        _ip("-n", f"{PREFIX}-sw", "link", "set", "br0", "up")
        for name, address in made.addresses.items():
            space = f"{PREFIX}-{name}"
            _ip("netns", "add", space)
            _ip(
                "-n",
                f"{PREFIX}-sw",
                "link",
                "add",
                f"v-{name}",
                "type",
                "veth",
                "peer",
                "name",
                "eth0",
                "netns",
                space,
            )
            _ip("-n", f"{PREFIX}-sw", "link", "set", f"v-{name}", "master", "br0", "up")
            _ip("-n", space, "addr", "add", f"{address}/24", "dev", "eth0")
            _ip("-n", space, "link", "set", "eth0", "up")
            _ip("-n", space, "link", "set", "lo", "up")
        yield made
    finally:
        for process in made.processes:
            process.kill()
            process.wait()
        for name in (*names, "sw"):
            space = f"{PREFIX}-{name}"
            listed = subprocess.run(
                ["ip", "netns", "pids", space], capture_output=True, text=True, check=False
            )
            for pid in listed.stdout.split():
                subprocess.run(["kill", "-9", pid], capture_output=True, check=False)
            subprocess.run(["ip", "netns", "del", space], capture_output=True, check=False)
        for path in [path for home in made.homes for path in home.rglob("memory.path")]:
            shutil.rmtree(path.read_text(), ignore_errors=True)


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)
