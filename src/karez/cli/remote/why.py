"""`karez why`: explain why a job or a service waits."""

from typing import Annotated

import typer

from karez.cli.client_options import Json, client
from karez.cli.output import clock, json_out, table
from karez.cli.terminal import say
from karez.core.explanations import Estimate, Explanation
from karez.core.workloads import State

app = typer.Typer()


@app.command()
def why(
    name: Annotated[str, typer.Argument(help="Id or name of a job or a service.")],
    as_json: Json = False,
) -> None:
    """Explain why a job or service waits, when it may start, and what would start it now.

    Example: karez why support-tune
    """
    answer = client().why(name)
    if as_json:
        json_out(answer)
        return
    say(f"{answer.name} ({answer.id}) is {answer.state}: {answer.reason or 'all is well'}")
    if answer.state == State.QUEUED:
        _show_reasons(answer)


def _show_reasons(answer: Explanation) -> None:
    if answer.ahead:
        say(f"{answer.ahead} workloads are ahead in the queue")
    for hurdle in answer.hurdles:
        ruled_out = ", ".join(f"{count} {reason}" for reason, count in hurdle.nodes.items())
        say(
            f"  {hurdle.asked} each: {hurdle.workers} of {hurdle.needed} workers fit; "
            f"{hurdle.devices_free:g} of {hurdle.devices:g} devices free"
            + (f"; nodes ruled out: {ruled_out}" if ruled_out else "")
        )
    for line in answer.quota:
        say(
            f"  quota of {line.project}: {line.held:g} of {line.limit:g} {line.kind} held, "
            f"{line.asked:g} asked"
            + ("" if line.guarantee is None else f", {line.guarantee:g} guaranteed in its cohort")
        )
    _show_outlook(answer)


def _show_outlook(answer: Explanation) -> None:
    if answer.starts is not None:
        say(f"it may start {_when(answer.starts)}")
    if answer.holders:
        say("\nworkloads that hold what it needs")
        table(
            ("workload", "id", "project", "kind", "devices", "since"),
            [
                (h.name, h.id, h.project, h.kind, f"{h.devices:g}", clock(h.since))
                for h in answer.holders
            ],
            empty="",
        )
    if answer.changes:
        say("\nany one of these would start it now, the smallest first")
        for number, change in enumerate(answer.changes, 1):
            say(f"  {number}. {change.what}")


def _when(starts: Estimate) -> str:
    late = f"{clock(starts.late)} at the latest" if starts.late else "latest start unknown"
    return f"about {clock(starts.middle)} ({clock(starts.early)} at the earliest, {late})"


APPS = {"why": app}
