"""From a table of one's own to a tuned, measured and served model: `karez studio`, and in Python.

Each step is a job that is found again by its name and what it was asked for. So a run that was cut
goes on where it stopped, and a run with another setting does again what depends on it.
"""

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from karez.client.data_sets import TABLES_SUFFIX, is_chat_data, job_stem, plan_tables, preparation
from karez.client.earlier_jobs import stands
from karez.client.sdk import Client
from karez.client.studio_plan import ROWS, VALIDATION, StudioPlan, StudioResult, no_validation
from karez.client.upload import UploadPlan, plan_upload
from karez.core.artifacts import Artifact, ArtifactKind
from karez.core.engines import Task
from karez.core.errors import Failed, NotFound
from karez.core.gang_syntax import make_gang
from karez.core.jobs import Job, JobSpec, Scalar
from karez.core.services import Service, ServiceSpec
from karez.core.table_formats import format_of_tables
from karez.core.workloads import ENDED, State, WorkloadKind

EPOCHS, LEAST_STEPS, MOST_STEPS = 3, 40, 120
"""Passes over the rows if no steps are given, between these bounds: minutes on two cores with a
model of 135 million parameters."""
VALIDATION_FILE = "validation.jsonl"
START_S = 600.0
"""Seconds that a service has to start."""
WAIT_S = 24 * 3600.0


@dataclass(slots=True, kw_only=True)
class Studio:
    """Carries a plan out."""

    client: Client
    plan: StudioPlan
    watch: Callable[[Client, str], Job] | None = None
    """Waits for a job and shows it; raises Failed. None: waits in silence."""
    send: Callable[..., Artifact] | None = None
    """Uploads as Client.upload does, and shows it."""
    say: Callable[[str], object] = lambda _: None
    """Told what is done next, and what was there already."""

    def run(self) -> StudioResult:
        """Do all steps. Raises Failed if one fails; a run after that goes on from there."""
        self.say("1. The data set")
        data = self.prepared()
        self.say("2. The model to tune")
        base = self.base()
        self.say("3. Fine-tuning")
        tuned = self.tuned(data, base)
        self.say("4. Measured on held-out rows, beside its base")
        report, measured = self.measured(data, base, tuned)
        self.say("5. Converted and served")
        served = self.converted(tuned)
        service = self.served(served)
        return StudioResult(
            data=data.id,
            base=base.id,
            model=tuned,
            report=report,
            served=served,
            service=service.id,
            measured=measured,
        )

    def prepared(self) -> Artifact:
        """The data set of chat rows."""
        plan, send = self.plan, self.send or self.client.upload
        common: dict[str, Any] = {
            "project": plan.project,
            "source": plan.source,
            "licence": plan.licence,
        }
        made: UploadPlan
        if is_chat_data(plan.path) and not plan.data_settings:
            if plan.target_accuracy and not (plan.path / VALIDATION_FILE).is_file():
                raise no_validation(plan.path)
            made = plan_upload(plan.path, ArtifactKind.DATASET)
            return send(
                made, name=plan.name, kind=ArtifactKind.DATASET, format="chat-jsonl", **common
            )
        made = plan_tables(plan.path)
        tables = send(
            made,
            name=plan.name + TABLES_SUFFIX,
            kind=ArtifactKind.DATASET,
            format=format_of_tables(file.entry.path for file in made.files),
            **common,
        )
        settings: dict[str, Any] = {**common, **plan.data_settings}
        if plan.target_accuracy:
            settings.setdefault("validation", VALIDATION)
        spec = preparation(tables.id, name=plan.name, **settings)
        return self.client.artifact(self._made(spec, "data"))

    def base(self) -> Artifact:
        """The model to tune; fetched if only the catalogue has it."""
        plan = self.plan
        try:
            found = self.client.artifact(plan.base)
        except NotFound:
            settings: dict[str, Scalar] = {"entry": plan.base}
            if plan.model_file:
                settings["file"] = plan.model_file
            spec = JobSpec(
                name=f"import-{job_stem(plan.base)}",
                project=plan.project,
                recipe="import-model",
                settings=settings,
            )
            return self.client.artifact(self._made(spec, "model"))
        self.say(f"   {found.spec.name} is there: {found.id}")
        return found

    def tuned(self, data: Artifact, base: Artifact) -> str:
        """The tuned model, merged."""
        if self.plan.task == Task.CLASSIFY:
            return self._classifier(data, base)
        rows = int(data.spec.facts.get("train_rows") or 0)
        settings: dict[str, Scalar] = {"batch": 8, **self.plan.tune_settings}
        if "steps" not in settings:
            steps = math.ceil(EPOCHS * rows / int(settings["batch"]))
            settings["steps"] = max(LEAST_STEPS, min(MOST_STEPS, steps))
        seen = int(settings["steps"]) * int(settings["batch"])
        if rows:
            self.say(f"   {settings['steps']} steps see {seen} of {rows} rows" * (seen < rows))
        return self._trained("tune", "sft-lora", settings, {"model": base.id, "data": data.id})

    def _classifier(self, data: Artifact, base: Artifact) -> str:
        """The classifier."""
        settings = dict(self.plan.tune_settings)
        if self.plan.target_accuracy:
            # rows that a threshold is chosen on must not have chosen the model
            settings.setdefault("keep", "last")
        inputs = {"model": base.id, "data": data.id}
        return self._trained("train", "train-classifier", settings, inputs)

    def _trained(
        self, step: str, recipe: str, settings: Mapping[str, Scalar], inputs: Mapping[str, str]
    ) -> str:
        """The model that a gang trains."""
        spec = JobSpec(
            name=f"{self.plan.stem}-{step}",
            project=self.plan.project,
            kind=WorkloadKind.TRAIN,
            recipe=recipe,
            settings=settings,
            gang=make_gang(self.plan.workers, self._each()),
            inputs=inputs,
        )
        return self._made(spec, "model")

    def measured(self, data: Artifact, base: Artifact, tuned: str) -> tuple[str, dict[str, Any]]:
        """(artifact of the report, the report)."""
        settings: dict[str, Scalar] = {"rows": self.plan.rows or ROWS[self.plan.task]}
        if self.plan.target_accuracy:
            settings["target_accuracy"] = self.plan.target_accuracy
        spec = JobSpec(
            name=f"{self.plan.stem}-eval",
            project=self.plan.project,
            recipe="evaluate",
            settings=settings,
            gang=make_gang("1", self._each()),
            inputs={"model": tuned, "base": base.id, "data": data.id},
        )
        report = self._made(spec, "report")
        return report, json.loads(self.client.artifact_file(report, "report.json"))

    def converted(self, tuned: str) -> str:
        """The model in the format that is served."""
        if self.plan.serve_as == "hf" or self.plan.task == Task.CLASSIFY:
            return tuned
        settings = {"converter": self.plan.converter} if self.plan.converter else {}
        spec = JobSpec(
            name=f"{self.plan.stem}-q8",
            project=self.plan.project,
            recipe="convert-gguf",
            settings=settings,
            inputs={"model": tuned},
        )
        return self._made(spec, "gguf")

    def served(self, model: str) -> Service:
        """The service; one of this name that is there is updated, while it serves."""
        client = self.client
        spec = ServiceSpec(
            name=self.plan.stem,
            project=self.plan.project,
            model=model,
            task=self.plan.task,
            context_tokens=self.plan.context,
        )
        named = (one for one in client.services() if one.spec.name == spec.name)
        live = next((one for one in named if one.spec.project == spec.project), None)
        if live is None:
            return client.wait_ready(client.deploy(spec).id, limit_s=START_S)
        wanted = replace(live.spec, model=model, context_tokens=spec.context_tokens)
        before = replace(live.spec, model=client.artifact(live.spec.model).id)
        if before != wanted:
            self.say(f"   {live.id} is updated")
            client.wait_updated(client.update_service(live.id, wanted))
        return client.wait_ready(live.id, limit_s=START_S)

    def _each(self) -> list[str] | None:
        return [self.plan.each] if self.plan.each else None

    def _made(self, spec: JobSpec, output: str) -> str:
        """The artifact that a job makes: the one of before, if it was asked for the same."""
        job = self._earlier(spec)
        if job is not None and job.state == State.SUCCEEDED:
            self.say(f"   {job.id} {spec.name} has done this already")
        else:
            job = job or self.client.submit(spec)
            wait = self.watch or partial(_wait, limit_s=WAIT_S)
            job = wait(self.client, job.id)
        made = job.status.outputs.get(output, "")
        if not made:
            reason = f"it made no {output}."
            raise Failed(noun="job", name=spec.name, reason=reason)
        return made

    def _earlier(self, spec: JobSpec) -> Job | None:
        """The newest job that was asked for the same and has not failed."""
        for job in self.client.jobs(limit=500):
            is_same = _asked(job.spec) == _asked(spec)
            if is_same and job.state == State.QUEUED and job.spec.gang != spec.gang:
                self.say(f"   {job.id} was to run elsewhere, and is cancelled")
                self.client.cancel(job.id)
                continue
            if is_same and (job.state not in ENDED or stands(self.client, job)):
                return job
        return None


def _asked(spec: JobSpec) -> tuple[object, ...]:
    """What a job is told apart by; where it ran does not change what it made."""
    return (spec.project, spec.name, spec.recipe, dict(spec.settings), dict(spec.inputs))


def _wait(client: Client, ident: str, *, limit_s: float) -> Job:
    return client.wait(ident, limit_s=limit_s)
