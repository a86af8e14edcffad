"""`karez demo`: a real model, tuned through two kills, then chatted with."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.rule import Rule

from karez.cli.remote.cloud import start_cloud, stop_cloud
from karez.cli.remote.job_progress import watch_job
from karez.client.sdk import Client
from karez.core import environment
from karez.core.api_models import ReceiptView
from karez.core.artifacts import ArtifactKind
from karez.core.errors import Failed, MissingPart
from karez.core.units import show_seconds
from karez.core.workloads import ACTIVE, Job, JobSpec

app = typer.Typer()
MODEL, DATA, JOB = "smollm2-135m-instruct", "intent-router", "router-tune"
QUESTIONS = ("How do I reverse a list in Python?", "Which planet is closest to the sun?")
ASK = "Which desk answers this: coding, trivia or chat?\n"
KILL_RANK_AT, KILL_CONTROL_AT, STEPS = 12, 24, 40


@dataclass(slots=True, kw_only=True)
class _Story:
    """What the demo has done so far; the closing page is made of it."""

    console: Console
    home: Path
    env: dict[str, str]
    commands: list[str] = field(default_factory=list)
    began_at: float = 0.0
    ready_s: float = 0.0
    seconds: dict[str, float] = field(default_factory=dict)
    report: dict[str, Any] = field(default_factory=dict)
    receipts: list[ReceiptView] = field(default_factory=list)

    def say(self, text: str) -> None:
        """A line of plain words."""
        self.console.print(text, highlight=False, markup=False)

    def head(self, number: int, text: str) -> None:
        """A step's headline."""
        self.console.print(Rule(f"[bold]{number}. {text}[/bold]", align="left", style="dim"))

    def run(self, *words: str) -> None:
        """Run a karez command as a user would, in plain sight. Raises Failed."""
        line = "karez " + " ".join(f"'{w}'" if " " in w else w for w in words)
        self.commands.append(line)
        self.say(f"$ {line}")
        done = subprocess.run(  # noqa: S603 - our own program
            [sys.executable, "-m", "karez.cli.main", *words],
            env={**os.environ, **self.env},  # noqa: TID251 - handed on
            check=False,
        )
        if done.returncode:
            raise Failed(
                noun="job", name=words[0], reason=f"`{line}` ended with {done.returncode}."
            )


@app.command()
def demo(
    once: Annotated[bool, typer.Option("--once", help="Stop everything at the end.")] = False,
    home: Annotated[Path, typer.Option(help="State folder.")] = Path("~/.karez-demo"),
    port: Annotated[int, typer.Option(help="Port of the API.")] = 7070,
    gateway_port: Annotated[int, typer.Option(help="Port of the gateway.")] = 7080,
    ray_port: Annotated[int, typer.Option(help="Port of the Ray head.")] = 7079,
) -> None:
    """Start a cloud, fine-tune a real model through two kills, and chat with the result.

    Takes about five minutes on two cores. The cloud keeps running until Ctrl-C.
    """
    folder = home.expanduser().absolute()
    env = {
        environment.HOME: str(folder),
        environment.PORT: str(port),
        environment.GATEWAY_PORT: str(gateway_port),
        environment.RAY_PORT: str(ray_port),
    }
    os.environ.update(env)  # noqa: TID251 - the commands below speak to this cloud
    console = Console(width=None if sys.stdout.isatty() else 110)
    story = _Story(console=console, home=folder, env=env, began_at=_now())
    for caught in (signal.SIGTERM, signal.SIGHUP):  # a closed terminal stops it too
        signal.signal(caught, _interrupt)
    story.head(1, "A cloud on this machine")
    story.commands.append("karez up")
    supervisor, key_file = start_cloud(env, say=story.say)
    story.ready_s = _now() - story.began_at
    try:
        _tell_up(story, key_file)
        with Client() as client:
            _clear(client)
            for number, (title, step) in enumerate(STEPS_OF_THE_STORY, 2):
                started = _now()
                story.head(number, title)
                step(story, client)
                story.seconds[title] = _now() - started
            _closing_page(story, client)
        if not once:
            story.say("\nThe cloud keeps running. Ctrl-C stops everything it started.")
            supervisor.wait()
    except KeyboardInterrupt:
        story.say("\nstopping")
    finally:
        stop_cloud(supervisor.pid)
        supervisor.wait()
        story.say("stopped: nothing of the cloud is running any more")


def _interrupt(_number: int, _frame: object) -> None:
    raise KeyboardInterrupt


def _tell_up(story: _Story, key_file: str) -> None:
    story.say(f"ready in {show_seconds(story.ready_s)}; all state is in {story.home}")
    if key_file:
        key = Path(key_file).read_text()
        story.say(f"admin key (shown once; kept in {key_file}, mode 0600): {key}")


def _clear(client: Client) -> None:
    """Stop what an earlier demo left in the queue or running."""
    for service in client.services(ended=False):
        client.stop_service(service.id)
    for job in client.jobs(states=[*ACTIVE]):
        client.cancel(job.id)
    while client.services(ended=False):
        _pause(0.2)


def _bring_in(story: _Story, client: Client) -> None:
    kinds = {MODEL: ("models", ArtifactKind.MODEL), DATA: ("data", ArtifactKind.DATASET)}
    for name, (noun, kind) in kinds.items():
        known = [a for a in client.artifacts([kind]) if a.spec.name == name]
        if not known:
            story.run(noun, "import", name)
        found = client.artifact(name)
        lineage = found.spec.lineage
        again = " (here from an earlier run)" if known else ""
        story.say(f"  {name}: {found.id}, {lineage.licence}, from {lineage.source}{again}")


def _tune(story: _Story, client: Client) -> None:
    story.run(
        "jobs",
        "submit",
        "--name",
        JOB,
        "--kind",
        "train",
        "--workers",
        "1:2",
        "--recipe",
        "sft-lora",
        "--set",
        f"steps={STEPS}",
        "--set",
        "batch=8",
        "-i",
        f"model={MODEL}",
        "-i",
        f"data={DATA}",
    )
    story.say(
        f"Two ranks train together. At step {KILL_RANK_AT} rank 1 gets SIGKILL, at step "
        f"{KILL_CONTROL_AT} the control process does."
    )
    done = watch_job(client, client.job(JOB).id, on_look=_Trouble(story).look)
    story.run("jobs", "receipts", JOB)
    story.receipts = client.receipts(done.id)
    if not story.receipts:
        raise Failed(noun="job", name=JOB, reason="the kill left no receipt.")
    story.say(
        f"The ranks went through it all in one job: {done.status.total_steps} steps, "
        f"{sum(r.steps_lost for r in story.receipts)} steps lost, "
        f"generation {done.status.generation}."
    )


class _Trouble:
    """Kills a rank and then control, each once, at its step."""

    def __init__(self, story: _Story) -> None:
        self.story = story
        self.left = [(KILL_RANK_AT, self.kill_rank), (KILL_CONTROL_AT, self.kill_control)]

    def look(self, job: Job) -> None:
        if self.left and job.status.step >= self.left[0][0] and job.state == "running":
            self.left.pop(0)[1](job)

    def kill_rank(self, job: Job) -> None:
        victim = job.status.ranks[-1]
        self.story.say(f"  kill -9 {victim.pid}   (rank {victim.rank}, at step {job.status.step})")
        os.kill(victim.pid, signal.SIGKILL)

    def kill_control(self, job: Job) -> None:
        pid = int(json.loads((self.story.home / "cloud.json").read_text())["parts"]["control"])
        self.story.say(f"  kill -9 {pid}   (control, at step {job.status.step}; the ranks go on)")
        os.kill(pid, signal.SIGKILL)


def _evaluate(story: _Story, client: Client) -> None:
    tuned = client.job(JOB).status.outputs["model"]
    story.say(f"{JOB}-model is registered as {tuned}, with its base, data, job and receipts:")
    story.run("models", "show", tuned)
    story.run(
        "jobs",
        "submit",
        "--name",
        "router-eval",
        "--recipe",
        "evaluate",
        "--each",
        "cpu=2",
        "--set",
        "rows=100",
        "-i",
        f"model={tuned}",
        "-i",
        f"base={MODEL}",
        "-i",
        f"data={DATA}",
        "--watch",
    )
    report = client.job("router-eval").status.outputs["report"]
    story.report = json.loads(client.artifact_file(report, "report.json"))
    for role, name in (("base", "base "), ("model", "tuned")):
        shown = story.report[role]
        low, high = shown["accuracy_95"]
        story.say(
            f"  {name}: held-out loss {shown['loss']:.3f}, right {shown['accuracy']:.0%} "
            f"(95% interval {low:.0%} to {high:.0%}, {story.report['rows']} rows)"
        )


def _deploy(story: _Story, client: Client) -> None:
    tuned = client.job(JOB).status.outputs["model"]
    jobs = [_convert(story, client, "base-q8", MODEL), _convert(story, client, "router-q8", tuned)]
    for job in jobs:
        watch_job(client, job.id)
    for name in ("base", "router"):
        story.run("services", "deploy", f"{name}-q8-gguf", "--name", name, "--each", "cpu=1")


def _convert(story: _Story, client: Client, name: str, model: str) -> Job:
    story.commands.append(f"karez models convert {model} --name {name}")
    story.say(f"$ {story.commands[-1]}")
    spec = JobSpec(name=name, recipe="convert-gguf", inputs={"model": model})
    return client.submit(spec)


def _chat(story: _Story, client: Client) -> None:
    try:
        from openai import OpenAI  # noqa: PLC0415 - not needed by any other command
    except ModuleNotFoundError as error:
        raise MissingPart(
            part="openai", needed_for="the demo's chat", install="pip install 'karez[node]'"
        ) from error
    story.commands.append("karez keys create demo-app")
    made = subprocess.run(
        [sys.executable, "-m", "karez.cli.main", "keys", "create", "demo-app"],
        env={**os.environ, **story.env},  # noqa: TID251 - handed on
        capture_output=True,
        text=True,
        check=True,
    )
    story.say("$ karez keys create demo-app     # a member's key for the official openai client")
    remote = OpenAI(base_url=client.address.gateway, api_key=made.stdout.strip())
    _wait_for_models(remote, {"base", "router"})
    for question in QUESTIONS:
        for service in ("base", "router"):
            pieces = remote.chat.completions.create(
                model=service,
                messages=[{"role": "user", "content": ASK + question}],
                max_tokens=40,
                temperature=0.0,
                stream=True,
            )
            text = "".join(
                choice.delta.content or "" for piece in pieces for choice in piece.choices
            )
            story.say(f"  {service:>4} | {question} -> {' '.join(text.split())}")
    story.commands.append(f"karez chat router '{ASK.strip()} {QUESTIONS[0]}'")
    _wait_for_usage(client)
    story.run("usage")


def _wait_for_models(remote: Any, names: set[str]) -> None:
    """Until the gateway has heard of the new key and the services."""
    from openai import APIStatusError  # noqa: PLC0415 - as in _chat

    deadline = _now() + 20.0
    while _now() < deadline:
        try:
            if names <= {model.id for model in remote.models.list()}:
                return
        except APIStatusError:
            pass  # the key is a moment old
        _pause(0.2)
    raise Failed(noun="service", name="gateway", reason="it does not list the services.")


def _wait_for_usage(client: Client) -> None:
    deadline = _now() + 10.0
    while _now() < deadline:
        if sum(row.requests for row in client.usage()) >= 2 * len(QUESTIONS):
            return
        _pause(0.2)


def _closing_page(story: _Story, client: Client) -> None:
    story.console.print(Rule("[bold]What happened[/bold]", style="green"))
    base, tuned = story.report["base"], story.report["model"]
    first = story.receipts[0]
    restored = show_seconds(first.restored_at - first.detected_at)
    story.say(
        f"A {MODEL} was fine-tuned by two ranks. One was killed: its state came from "
        f"{first.source}, it was restored in {restored}, "
        f"the next step was complete after {show_seconds(first.recovery_s)}, and "
        f"{first.steps_lost} steps were lost. Control was killed too: nobody noticed.\n"
        f"Right answers on unseen questions: {base['accuracy']:.0%} before, "
        f"{tuned['accuracy']:.0%} after. Both models answer at the gateway now.\n"
        f"Whole demo: {show_seconds(_now() - story.began_at)} "
        f"(cloud ready in {show_seconds(story.ready_s)}; "
        + "; ".join(f"{title.lower()} {show_seconds(s)}" for title, s in story.seconds.items())
        + ")."
    )
    story.say("\nEach step by hand:")
    story.say(f"  export {environment.HOME}={story.home}")
    for line in story.commands:
        story.say(f"  {line}")
    url, gateway = client.address.url, client.address.gateway
    story.say(f"\nAPI {url}/api/v1 (described at {url}/api/v1/openapi.json)\nGateway {gateway}")


STEPS_OF_THE_STORY: tuple[tuple[str, Callable[[_Story, Client], None]], ...] = (
    ("A model and data, with source and licence", _bring_in),
    ("Fine-tuning through two kills", _tune),
    ("Measured against the base", _evaluate),
    ("Converted and deployed", _deploy),
    ("Chat through the gateway", _chat),
)


def _now() -> float:
    return time.monotonic()  # noqa: TID251 - a command's own clock


def _pause(seconds: float) -> None:
    time.sleep(seconds)  # noqa: TID251 - as above


APPS = {"demo": app}
