"""Steps of the demo: evaluate the tuned model, deploy it, and chat through the gateway."""

import json
import subprocess
import sys
from typing import Any

from karez.cli.command_clock import now, sleep
from karez.cli.remote.demo.run import DATA, JOB, MODEL, DemoRun
from karez.cli.remote.job_progress import watch_job
from karez.cli.terminal import inherited
from karez.client.sdk import Client
from karez.core.errors import Failed, MissingPart
from karez.core.jobs import Job, JobSpec

EVALUATION = "router-eval"
QUESTIONS = ("How do I reverse a list in Python?", "Which planet is closest to the sun?")
PROMPT = "Which desk answers this: coding, trivia or chat?\n"


def evaluate(run: DemoRun, client: Client) -> None:
    """Compare the tuned model with its base on held-out rows."""
    tuned = client.job(JOB).status.outputs["model"]
    run.say(f"{JOB}-model is registered as {tuned}, with its base, data, job and receipts:")
    run.run("models", "show", tuned)
    each = "npu=1,cpu=2" if run.is_emulated else "cpu=2"
    run.run(
        *f"jobs submit --name {EVALUATION} --recipe evaluate --each {each} --set rows=100".split(),
        *f"-i model={tuned} -i base={MODEL} -i data={DATA} --watch".split(),
    )
    report = client.job(EVALUATION).status.outputs["report"]
    run.report = json.loads(client.artifact_file(report, "report.json"))
    run.say(f"  evaluated on {run.report['device']}")
    for role, name in (("base", "base "), ("model", "tuned")):
        shown = run.report[role]
        low, high = shown["accuracy_95"]
        run.say(
            f"  {name}: held-out loss {shown['loss']:.3f}, right {shown['accuracy']:.0%} "
            f"(95% interval {low:.0%} to {high:.0%}, {run.report['rows']} rows)"
        )


def deploy(run: DemoRun, client: Client) -> None:
    """Convert both models and deploy each as a service."""
    tuned = client.job(JOB).status.outputs["model"]
    jobs = [_convert(run, client, "base-q8", MODEL), _convert(run, client, "router-q8", tuned)]
    for job in jobs:
        watch_job(client, job.id)
    for name in ("base", "router"):
        run.run("services", "deploy", f"{name}-q8-gguf", "--name", name, "--each", "cpu=1")


def _convert(run: DemoRun, client: Client, name: str, model: str) -> Job:
    run.commands.append(f"karez models convert {model} --name {name}")
    run.say(f"$ {run.commands[-1]}")
    spec = JobSpec(name=name, recipe="convert-gguf", inputs={"model": model})
    return client.submit(spec)


def chat(run: DemoRun, client: Client) -> None:
    """Ask both services the same questions through the gateway."""
    try:
        from openai import APIStatusError, OpenAI  # noqa: PLC0415 - not needed by any other command
    except ModuleNotFoundError as error:
        raise MissingPart(
            part="openai", needed_for="the demo's chat", install="pip install 'karez[node]'"
        ) from error
    remote = OpenAI(base_url=client.address.gateway, api_key=_create_key(run))
    _wait_for_models(remote, {"base", "router"}, APIStatusError)
    for question in QUESTIONS:
        for service in ("base", "router"):
            text = _answer(remote, service, PROMPT + question)
            run.say(f"  {service:>4} | {question} -> {' '.join(text.split())}")
    run.commands.append(f"karez chat router '{PROMPT.strip()} {QUESTIONS[0]}'")
    _wait_for_usage(client)
    run.run("usage")


def _create_key(run: DemoRun) -> str:
    run.commands.append("karez keys create demo-app")
    made = subprocess.run(
        [sys.executable, "-P", "-m", "karez.cli.main", "keys", "create", "demo-app"],
        env=inherited(run.env),
        capture_output=True,
        text=True,
        check=True,
    )
    run.say("$ karez keys create demo-app     # a member's key for the official openai client")
    return made.stdout.strip()


def _answer(remote: Any, service: str, text: str) -> str:
    """Ask a service through the official openai client, streamed."""
    pieces = remote.chat.completions.create(
        model=service,
        messages=[{"role": "user", "content": text}],
        max_tokens=40,
        temperature=0.0,
        stream=True,
    )
    return "".join(choice.delta.content or "" for piece in pieces for choice in piece.choices)


def _wait_for_models(remote: Any, names: set[str], refused: type[Exception]) -> None:
    """Wait until the gateway knows the new key and the services. Raises Failed."""
    deadline = now() + 20.0
    while now() < deadline:
        try:
            if names <= {model.id for model in remote.models.list()}:
                return
        except refused:
            pass  # the gateway does not know the key yet
        sleep(0.2)
    raise Failed(noun="service", name="gateway", reason="it does not list the services.")


def _wait_for_usage(client: Client) -> None:
    deadline = now() + 10.0
    while now() < deadline:
        if sum(row.requests for row in client.usage()) >= 2 * len(QUESTIONS):
            return
        sleep(0.2)
