"""Steps of the demo: import a model and data, and fine-tune through two kills."""

import json
import os
import signal

from karez.cli.remote.demo.run import DATA, JOB, MODEL, DemoRun
from karez.cli.remote.job_progress import watch_job
from karez.client.sdk import Client
from karez.core.artifacts import ArtifactKind
from karez.core.errors import Failed
from karez.core.jobs import Job

KILL_RANK_AT, KILL_CONTROL_AT, STEPS = 12, 24, 40
"""Steps at which rank 1 and control are killed; steps of the training."""


def import_inputs(run: DemoRun, client: Client) -> None:
    """Import the model and the data, unless an earlier demo did."""
    kinds = {MODEL: ("models", ArtifactKind.MODEL), DATA: ("data", ArtifactKind.DATASET)}
    for name, (noun, kind) in kinds.items():
        earlier = [a for a in client.artifacts([kind]) if a.spec.name == name]
        if not earlier:
            run.run(noun, "import", name)
        found = client.artifact(name)
        lineage = found.spec.lineage
        note = " (here from an earlier run)" if earlier else ""
        run.say(f"  {name}: {found.id}, {lineage.licence}, from {lineage.source}{note}")


def tune(run: DemoRun, client: Client) -> None:
    """Submit the training job, kill a rank and control, and show the receipts."""
    each = " --each npu=1,cpu=1" if run.is_emulated else ""
    run.run(
        *f"jobs submit --name {JOB} --kind train --workers 1:2{each} --recipe sft-lora".split(),
        *f"--set steps={STEPS} --set batch=8 -i model={MODEL} -i data={DATA}".split(),
    )
    run.say(
        f"Two ranks train together. At step {KILL_RANK_AT} rank 1 gets SIGKILL, at step "
        f"{KILL_CONTROL_AT} the control process does."
    )
    done = watch_job(client, client.job(JOB).id, on_poll=_Killer(run).on_poll)
    run.run("jobs", "receipts", JOB)
    run.receipts = client.receipts(done.id)
    if not run.receipts:
        raise Failed(noun="job", name=JOB, reason="the kill left no receipt.")
    run.say(
        f"The ranks went through it all in one job: {done.status.total_steps} steps, "
        f"{sum(r.steps_lost for r in run.receipts)} steps lost, "
        f"generation {done.status.generation}."
    )


class _Killer:
    """Kills a rank and then control, each once, at a given step of the job."""

    def __init__(self, run: DemoRun) -> None:
        self.run = run
        self.remaining = [(KILL_RANK_AT, self.kill_rank), (KILL_CONTROL_AT, self.kill_control)]

    def on_poll(self, job: Job) -> None:
        if self.remaining and job.status.step >= self.remaining[0][0] and job.state == "running":
            self.remaining.pop(0)[1](job)

    def kill_rank(self, job: Job) -> None:
        victim = job.status.ranks[-1]
        self.run.say(f"  kill -9 {victim.pid}   (rank {victim.rank}, at step {job.status.step})")
        os.kill(victim.pid, signal.SIGKILL)

    def kill_control(self, job: Job) -> None:
        pid = int(json.loads((self.run.home / "cloud.json").read_text())["parts"]["control"])
        self.run.say(f"  kill -9 {pid}   (control, at step {job.status.step}; the ranks go on)")
        os.kill(pid, signal.SIGKILL)
