"""Closing page of the demo: what happened, and each step by hand."""

from rich.rule import Rule

from karez.cli.command_clock import now
from karez.cli.remote.demo.run import MODEL, DemoRun
from karez.client.sdk import Client
from karez.core import environment
from karez.core.units import show_seconds


def show_closing_page(run: DemoRun, client: Client) -> None:
    """Print a summary, the commands to repeat the demo, and the addresses."""
    run.console.print(Rule("[bold]What happened[/bold]", style="green"))
    base, tuned = run.report["base"], run.report["model"]
    first = run.receipts[0]
    restored = show_seconds(first.restored_at - first.detected_at)
    run.say(
        f"A {MODEL} was fine-tuned by two ranks. One was killed: its state came from "
        f"{first.source}, it was restored in {restored}, "
        f"the next step was complete after {show_seconds(first.recovery_s)}, and "
        f"{first.steps_lost} steps were lost. Control was killed too; the ranks continued.\n"
        f"Right answers on unseen questions: {base['accuracy']:.0%} before, "
        f"{tuned['accuracy']:.0%} after. Both models answer at the gateway now.\n"
        f"Whole demo: {show_seconds(now() - run.started_at)} "
        f"(cloud ready in {show_seconds(run.ready_s)}; "
        + "; ".join(f"{title.lower()} {show_seconds(s)}" for title, s in run.seconds.items())
        + ")."
    )
    _show_commands(run, client)


def _show_commands(run: DemoRun, client: Client) -> None:
    run.say("\nEach step by hand:")
    run.say(f"  export {environment.HOME}={run.home}")
    for line in run.commands:
        run.say(f"  {line}")
    url, gateway = client.address.url, client.address.gateway
    run.say(f"\nAPI {url}/api/v1 (described at {url}/api/v1/openapi.json)\nGateway {gateway}")
