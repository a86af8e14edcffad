"""`karez alerts`: be told when something happens."""

import tomllib
from pathlib import Path
from typing import Annotated, Any

import typer

from karez.cli.client_options import Json, ProjectName, Yes, client, confirm
from karez.cli.old_names import word_of, words_of
from karez.cli.output import clock, json_out, table
from karez.cli.terminal import say
from karez.core.alerts import AlertEvent, AlertRule
from karez.core.codec import from_json
from karez.core.errors import BadRequest
from karez.core.units import parse_seconds

app = typer.Typer(no_args_is_help=True, help="Be told when something happens.")
RuleName = Annotated[str, typer.Argument(help="Name of the rule.")]


@app.command("add")
def add(
    name: Annotated[str, typer.Argument(help="Name of the rule.")] = "",
    on: Annotated[
        list[AlertEvent] | None,
        typer.Option(
            help="What to be told of. Repeatable.",
            parser=word_of(AlertEvent),
            metavar=words_of(AlertEvent),
        ),
    ] = None,
    to: Annotated[str, typer.Option(help="URL of a webhook, or a mail address.")] = "",
    jobs: Annotated[str, typer.Option(help="Pattern of the names of jobs.")] = "*",
    waiting: Annotated[
        str, typer.Option(help="How long a job waits before you are told, such as 30m.")
    ] = "",
    device_hours: Annotated[
        float | None, typer.Option(help="Device hours of a month beyond which you are told.")
    ] = None,
    spend: Annotated[
        float | None, typer.Option(help="Cost of a month beyond which you are told.")
    ] = None,
    secret: Annotated[
        str, typer.Option(help="Secret of the project that signs what a webhook gets.")
    ] = "",
    file: Annotated[
        Path | None, typer.Option("--file", "-f", help="TOML file of rules, as [[alert]] tables.")
    ] = None,
    project: ProjectName = "default",
) -> None:
    """Add a rule, or all rules of a file. A rule of the same name is replaced.

    Examples:
      karez alerts add night --on failed --on recovered --to https://chat.example.com/hook

      karez alerts add queue --on waiting --waiting 30m --to me@example.com

      karez alerts add nodes --on node --project '*' --to ops@example.com
    """
    try:
        if file is not None:
            rules = _rules_of(file)
        else:
            rule = AlertRule(
                name=name,
                on=tuple(on or ()),
                to=to,
                project=project,
                jobs=jobs,
                waiting_s=parse_seconds(waiting) if waiting else None,
                device_hours=device_hours,
                spend=spend,
                secret=secret,
            )
            rules = [rule]
    except (ValueError, OSError) as error:
        raise BadRequest(problem=str(error)) from error
    for rule in rules:
        client().put_alert(rule)
        say(f"{rule.name} of {rule.project}; try it with: karez alerts test {rule.name}")


@app.command("list")
def list_alerts(as_json: Json = False) -> None:
    """List the rules of the projects you may see."""
    found = client().alerts()
    if as_json:
        json_out(found)
        return
    rows = [
        (s.rule.name, s.rule.project, ", ".join(s.rule.on), s.rule.jobs, s.rule.to, s.owner)
        for s in found
    ]
    heads = ("name", "project", "on", "jobs", "to", "owner")
    table(heads, rows, empty="no alerts; add one with `karez alerts add`")


@app.command("test")
def try_alert(name: RuleName, project: ProjectName = "default") -> None:
    """Send one alert by a rule now, and say whether it arrived."""
    sent = client().try_alert(name, project)
    say(f"sent: {sent.alert.text}")


@app.command("sent")
def sent(name: RuleName, project: ProjectName = "default", as_json: Json = False) -> None:
    """List the alerts of a rule, newest first, and what kept any from being sent."""
    found = client().sent_alerts(name, project)
    if as_json:
        json_out(found)
        return
    rows = [(clock(d.alert.at), d.state, d.attempts, d.alert.text, d.problem) for d in found]
    table(("at", "state", "attempts", "text", "problem"), rows, empty="nothing was sent yet")


@app.command("remove")
def remove(name: RuleName, project: ProjectName = "default", yes: Yes = False) -> None:
    """Remove a rule."""
    confirm(f"Remove the alert {name}?", yes=yes)
    client().remove_alert(name, project)


def _rules_of(file: Path) -> list[AlertRule]:
    """Read `[[alert]]` tables. Raises ValueError, OSError."""
    tables: Any = tomllib.loads(file.read_text("utf-8")).get("alert", [])
    if not isinstance(tables, list) or not tables:
        raise ValueError(f"{file} has no [[alert]] tables")
    rules = []
    for table_ in tables:
        given = dict(table_)
        if "waiting" in given:
            given["waiting_s"] = parse_seconds(given.pop("waiting"))
        rules.append(from_json(AlertRule, given))
    return rules


APPS = {"alerts": app}
