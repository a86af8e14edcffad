"""`karez`: the command line. A command's module is imported only when the command runs."""

import importlib
import sys
from collections.abc import Sequence
from typing import Any

import typer
from typer.core import TyperGroup

import karez
from karez.cli.terminal import say

COMMANDS = {
    "up": ("karez.cli.remote.cloud", "Start a cloud on this machine."),
    "down": ("karez.cli.remote.cloud", "Stop the cloud on this machine."),
    "join": ("karez.cli.remote.cloud", "Add this machine's devices to a cloud."),
    "join-token": ("karez.cli.remote.cloud", "Print a token with which one host may join."),
    "backup": ("karez.cli.remote.backups", "Copy the whole cloud on this machine into a folder."),
    "restore": ("karez.cli.remote.backups", "Make a cloud of a backup."),
    "status": ("karez.cli.remote.cloud", "Show nodes, devices, workloads and addresses."),
    "doctor": ("karez.cli.offline.doctor", "Check this machine, and say what to fix."),
    "demo": (
        "karez.cli.remote.demo.app",
        "Tune a model through two kills, then chat with the model.",
    ),
    "studio": ("karez.cli.remote.studio", "Turn a table of your own into a served model."),
    "simulate": (
        "karez.cli.offline.simulate.app",
        "Replay traces through the production scheduler, offline.",
    ),
    "pool": ("karez.cli.remote.pool", "Show and manage nodes and devices."),
    "why": ("karez.cli.remote.why", "Explain why a job or service waits, and what would start it."),
    "what-if": ("karez.cli.offline.what_if", "Predict the effect of other nodes, quotas or jobs."),
    "chaos": ("karez.cli.remote.chaos", "Inject faults into jobs, and measure the recoveries."),
    "receipts": ("karez.cli.remote.receipts", "Verify receipts of recoveries, offline."),
    "migrate": (
        "karez.cli.offline.migrate.app",
        "Move a repository from CUDA to NPUs, with proof.",
    ),
    "faults": ("karez.cli.remote.faults", "Report and list faults of nodes."),
    "jobs": ("karez.cli.remote.jobs", "Submit, watch and stop jobs."),
    "cp": ("karez.cli.remote.copy", "Copy files into and out of running jobs."),
    "port-forward": ("karez.cli.remote.port_forward", "Reach a port of a running job from here."),
    "artifacts": ("karez.cli.remote.artifacts", "List, download and remove artifacts."),
    "environments": ("karez.cli.remote.environments", "Python packages that jobs bring."),
    "models": ("karez.cli.models", "Import, check, convert and list models."),
    "data": ("karez.cli.remote.data_sets", "Import, prepare and list data sets."),
    "services": ("karez.cli.remote.services", "Deploy models behind the gateway."),
    "sweeps": ("karez.cli.remote.sweeps", "Try settings of a job to find the best."),
    "pipelines": ("karez.cli.remote.pipelines", "Run jobs that follow from each other."),
    "chat": ("karez.cli.remote.chat", "Chat with a deployed model."),
    "classify": ("karez.cli.remote.classify", "Ask a deployed classifier for labels of texts."),
    "logs": ("karez.cli.remote.logs", "Print the output of a job or a service."),
    "alerts": ("karez.cli.remote.alerts", "Be told when something happens."),
    "keys": ("karez.cli.remote.access", "Create, list, rotate and revoke API keys."),
    "projects": ("karez.cli.remote.projects", "Manage projects, quotas and secrets."),
    "usage": ("karez.cli.remote.billing", "Show what was used and what it costs, and verify it."),
    "prices": ("karez.cli.remote.prices", "Set and list the prices of models and devices."),
    "audit": ("karez.cli.remote.access", "List who changed what."),
}


class _Lazy(TyperGroup):
    """Group that knows each command's name and help line; imports a command on use."""

    def list_commands(self, ctx: Any) -> list[str]:
        """List all names, in the order of COMMANDS."""
        del ctx
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """Import a command and return it."""
        del ctx
        if cmd_name not in COMMANDS:
            return None
        module, _ = COMMANDS[cmd_name]
        app = importlib.import_module(module).APPS[cmd_name]
        command = typer.main.get_command(app)
        command.name = cmd_name
        return command

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write the help lines of COMMANDS; no command is imported."""
        del ctx
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, line) in COMMANDS.items()])


app = typer.Typer(
    cls=_Lazy,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Start with `karez demo`, or `karez up` and `karez jobs submit --help`.",
)


@app.callback(invoke_without_command=True)
def _root(
    version: bool = typer.Option(False, "--version", help="Print the version and exit."),
) -> None:
    """One pool of NPUs, GPUs and CPUs that trains without interruption and serves the result."""
    if version:
        say(karez.__version__)
        raise typer.Exit


def main(words: Sequence[str] | None = None) -> int:
    """Run a command. Exit codes: 0 done, 1 refused or failed, 2 misused."""
    from karez.core.errors import KarezError, Remote  # noqa: PLC0415 - keeps --help fast
    from karez.core.parts import missing_part  # noqa: PLC0415 - keeps --help fast

    try:
        app(words, prog_name="karez")
    except KarezError as error:
        say(error.what(), err=True)
        say(error.hint(), err=True)
        code = error.kind if isinstance(error, Remote) else error.code
        sys.exit(2 if code == "bad-request" else 1)
    except ModuleNotFoundError as error:
        command = next(iter(sys.argv[1:] if words is None else words), "")
        missing = missing_part(error, f"karez {command}")
        if missing is None:
            raise
        say(f"{missing.what()}\n{missing.hint()}", err=True)
        sys.exit(1)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(1)
    return 0


if __name__ == "__main__":
    sys.exit(main())
