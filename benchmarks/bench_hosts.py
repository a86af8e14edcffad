"""Recovery time after the loss of a host with two ranks and its replica server.

Each of three hosts is a network and PID namespace on one bridge. A gang of four ranks runs on two
hosts; the third is free. Either every process of a host is killed at once, or the host is cut off
from the network; RUNS times each (3). The receipt gives the time from the fault to the first step
complete on all ranks. Needs root and iproute2.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

from report import report

sys.path.insert(0, str(Path(__file__).parent.parent))
from tests.contracts import hosts

RUNS = int(os.environ.get("RUNS", "3"))
HOSTS = ("h1", "h2", "h3")
HEARTBEAT_S = 1.0


def main() -> None:
    """Measure both kinds of loss, RUNS times each."""
    if not hosts.possible():
        print("skipped: needs root and network namespaces")
        return
    rows = []
    with tempfile.TemporaryDirectory(prefix="kz-") as folder, hosts.network(*HOSTS) as net:
        cloud = Cloud(net, Path(folder))
        cloud.up()
        for what, lose in (("every process killed", cloud.kill), ("cable pulled", cloud.unplug)):
            found = [cloud.trial(lose) for _ in range(RUNS)]
            rows.append(
                {
                    "what": what,
                    "recovery_s": round(median(row["seconds"] for row in found), 2),
                    "longest_s": round(max(row["seconds"] for row in found), 2),
                    **{
                        f"{part}_s": round(median(row[part] for row in found), 2)
                        for part in ("noticed", "decided", "restored")
                    },
                    "steps_lost": max(row["lost"] for row in found),
                    "rungs": ",".join(sorted({row["rung"] for row in found})),
                    "from": ",".join(sorted({row["source"] for row in found})),
                    "runs": len(found),
                }
            )
            print(rows[-1], file=sys.stderr, flush=True)
    report("a lost host", rows)


class Cloud:
    """A cloud with control on the first host and a node on every host."""

    def __init__(self, net: hosts.Network, folder: Path) -> None:
        """Prepare folders; no process is started."""
        self.net, self.home, self.folder = net, folder / "h1", folder
        self.running: dict[str, subprocess.Popen[str]] = {}
        self.count = 0

    def up(self) -> None:
        """Start control, then the other nodes."""
        env = {
            "KAREZ_HOME": str(self.home),
            "KAREZ_NODE": "h1",
            "KAREZ_START_S": "120",
            "KAREZ_HEARTBEAT_S": str(HEARTBEAT_S),
        }
        self.net.homes.append(self.home)
        words = ["up", "--host", self.net.addresses["h1"], "--cpus", "2", "--foreground"]
        self.running["h1"] = self.net.run("h1", words, env, stdout=subprocess.DEVNULL)
        until(lambda: bool(self.ask("pool", "--json")), within_s=120)
        for host in HOSTS[1:]:
            self.join(host)

    def join(self, host: str) -> None:
        """Let a host join, or join again, and wait until its node is ready."""
        self.count += 1
        home = self.folder / f"{host}-{self.count}"
        self.net.homes.append(home)
        token = (self.home / "node.key").read_text()
        words = [
            "join",
            f"http://{self.net.addresses['h1']}:7070",
            "--token",
            token,
            "--address",
            self.net.addresses[host],
            "--name",
            host,
            "--cpus",
            "2",
            "--home",
            str(home),
        ]
        env = {"KAREZ_HEARTBEAT_S": str(HEARTBEAT_S)}
        self.running[host] = self.net.run(host, words, env, stdout=subprocess.DEVNULL)
        until(lambda: self.states().get(host) == "ready", within_s=120)

    def kill(self, host: str) -> float:
        """Send SIGKILL to every process of a host. Returns the time of the kill."""
        space = f"{hosts.PREFIX}-{host}"
        listed = subprocess.run(
            ["ip", "netns", "pids", space], capture_output=True, text=True, check=True
        )
        at = time.time()
        for pid in map(int, listed.stdout.split()):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return at

    def unplug(self, host: str) -> float:
        """Cut a host off from the network. Returns the time of the cut."""
        at = time.time()
        self.net.pull_plug(host)
        return at

    def states(self) -> dict[str, str]:
        """State of each node, by name."""
        return {node["id"]: node["state"] for node in self.ask("pool", "--json") or []}

    def trial(self, lose: Callable[[str], float]) -> dict[str, Any]:
        """Run a gang, lose a host, read the receipt, and let the host join again."""
        self.count += 1
        name = f"gang-{self.count}"
        submit = [
            "jobs",
            "submit",
            "--name",
            name,
            "--kind",
            "train",
            "--recipe",
            "chaos-workload",
            "--workers",
            "4",
            "--each",
            "cpu=1",
            "--set",
            "steps=100000",
            "--set",
            "width=504",
            "--set",
            "batch=32",
            "--json",
        ]
        self.ask(*submit)
        until(lambda: self.job(name)["status"]["step"] >= 40, within_s=180)
        rank_nodes = {rank["node"] for rank in self.job(name)["status"]["ranks"]}
        victim = max(rank_nodes)  # never h1, which runs control
        at = lose(victim)
        until(lambda: bool(self.ask("jobs", "receipts", name, "--json")), within_s=60)
        receipt = self.ask("jobs", "receipts", name, "--json")[0]
        self.ask("jobs", "cancel", name)
        until(lambda: self.job(name)["state"] == "cancelled", within_s=60)
        self.kill(victim)
        hosts._ip("-n", f"{hosts.PREFIX}-sw", "link", "set", f"v-{victim}", "up")
        self.join(victim)
        return {
            "seconds": receipt["resumed_at"] - at,
            "noticed": receipt["detected_at"] - at,
            "decided": receipt["decided_at"] - at,
            "restored": receipt["restored_at"] - at,
            "lost": receipt["steps_lost"],
            "rung": receipt["rung"],
            "source": receipt["source"],
        }

    def job(self, name: str) -> Any:
        """Get a job as JSON, as `karez jobs show` prints it."""
        return self.ask("jobs", "show", name, "--json")

    def ask(self, *words: str) -> Any:
        """Run a karez command on the first host. Returns its JSON, or None without valid JSON."""
        done = subprocess.run(
            [*hosts.inside("h1"), sys.executable, "-m", "karez.cli.main", *words],
            env={"KAREZ_HOME": str(self.home), "PATH": "/usr/bin:/bin"},
            capture_output=True,
            text=True,
            check=False,
        )
        try:
            return json.loads(done.stdout)
        except ValueError:
            return None


def until(condition: Callable[[], bool], *, within_s: float) -> None:
    """Wait until a condition holds. Raises TimeoutError."""
    deadline = time.monotonic() + within_s
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {within_s} s")
        time.sleep(0.1)


if __name__ == "__main__":
    main()
