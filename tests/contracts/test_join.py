"""A second host joins, a job spreads over both, and the second host's cable is pulled."""

import json
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.contracts import hosts
from tests.contracts.cloud import until

pytestmark = pytest.mark.alone
SCRIPT = Path(__file__).parent / "gang_job.py"


def said(home: Path, *words: str) -> str:
    """What a karez command on the first host prints."""
    done = subprocess.run(
        [*hosts.inside("h1"), sys.executable, "-m", "karez.cli.main", *words],
        env={"KAREZ_HOME": str(home), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout


def ask(home: Path, *words: str) -> Any:
    """A karez command on the first host, answered as JSON."""
    try:
        return json.loads(said(home, *words))
    except ValueError:
        return None


@pytest.mark.skipif(not hosts.possible(), reason="needs root and network namespaces")
def test_a_job_spreads_over_a_host_that_joined_and_survives_its_loss(tmp_path: Path) -> None:
    home, second, code = tmp_path / "one", tmp_path / "two", tmp_path / "code"
    code.mkdir()
    shutil.copy(SCRIPT, code / "gang_job.py")
    with hosts.network("h1", "h2") as net:
        net.homes += [home, second]
        first = net.addresses["h1"]
        env = {"KAREZ_HOME": str(home), "KAREZ_NODE": "h1", "KAREZ_START_S": "120"}
        net.run("h1", ["up", "--host", first, "--cpus", "1", "--foreground"], env)
        until(lambda: bool(ask(home, "pool", "--json")), within_s=90)
        token = said(home, "join-token", "h2").strip()
        join = ["join", f"http://{first}:7070", "--token", token, "--address", net.addresses["h2"]]
        net.run("h2", [*join, "--name", "h2", "--cpus", "1", "--home", str(second)], {})
        until(lambda: len(ask(home, "pool", "--json")) == 2, within_s=90)

        submit = [
            "jobs",
            "submit",
            "--name",
            "spread",
            "--kind",
            "train",
            "--workers",
            "1:2",
            "--code",
            str(code),
            "--set",
            "steps=3000",
            "--set",
            "work=40",
            "--json",
            "--",
            "python",
            "gang_job.py",
        ]
        assert ask(home, *submit)["state"] == "queued"

        def job() -> Any:
            return ask(home, "jobs", "show", "spread", "--json")

        until(lambda: job()["status"]["step"] >= 20, within_s=180)
        assert {rank["node"] for rank in job()["status"]["ranks"]} == {"h1", "h2"}

        net.pull_plug("h2")
        at = job()["status"]["step"]
        until(lambda: len(job()["status"]["ranks"]) == 1, within_s=120)
        until(lambda: job()["status"]["step"] > at + 20, within_s=120)
        (receipt,) = ask(home, "jobs", "receipts", "spread", "--json")
        assert receipt["rung"] == "shrink"
        assert receipt["steps_lost"] <= 1

        def states() -> dict[str, str]:
            return {node["id"]: node["state"] for node in ask(home, "pool", "--json")}

        until(lambda: states() == {"h1": "ready", "h2": "lost"}, within_s=30)
        # the host that was cut off fences itself: nobody is left working on it
        space = f"{hosts.PREFIX}-h2"

        def ranks_there() -> str:
            listed = subprocess.run(
                ["ip", "netns", "pids", space], capture_output=True, text=True, check=True
            )
            lines = []
            for pid in listed.stdout.split():
                status = Path(f"/proc/{pid}/cmdline")
                lines.append(status.read_text() if status.exists() else "")
            return "\n".join(line for line in lines if "fork_server" in line)

        deadline = time.monotonic() + 60
        while ranks_there():
            assert time.monotonic() < deadline, ranks_there()
            time.sleep(0.5)
