"""`karez`: the command line. Each noun's module is imported only when it is used."""

import importlib
import sys
from collections.abc import Sequence
from typing import Any

import typer
from typer.core import TyperGroup

import karez

COMMANDS = {
    "up": ("karez.cli.remote.cloud", "Start a cloud on this machine."),
    "down": ("karez.cli.remote.cloud", "Stop the cloud on this machine."),
    "join": ("karez.cli.remote.cloud", "Add this machine's devices to a cloud."),
    "status": ("karez.cli.remote.cloud", "The cloud in one look."),
    "doctor": ("karez.cli.offline.doctor", "Check this machine and say what to mend."),
    "demo": ("karez.cli.remote.demo", "Tune a model through a kill, then chat with it."),
    "simulate": (
        "karez.cli.offline.simulate.app",
        "Traces through the production scheduler, offline.",
    ),
    "pool": ("karez.cli.remote.pool", "Nodes and devices."),
    "why": ("karez.cli.remote.why", "Why a job or service waits, and what would start it."),
    "what-if": ("karez.cli.offline.what_if", "What a change would do, and to whom."),
    "chaos": ("karez.cli.remote.chaos", "Break a job on purpose, and measure how it goes on."),
    "receipts": ("karez.cli.remote.receipts", "Check receipts of recoveries, offline."),
    "migrate": (
        "karez.cli.offline.migrate.app",
        "From CUDA to NPU: scan, rewrite, verify, convert.",
    ),
    "faults": ("karez.cli.remote.faults", "Faults of nodes: report and list them."),
    "jobs": ("karez.cli.remote.jobs", "Submit, watch and stop jobs."),
    "models": ("karez.cli.remote.artifacts", "Models: import, convert, list."),
    "data": ("karez.cli.remote.artifacts", "Data sets: import, list."),
    "services": ("karez.cli.remote.services", "Deploy models behind the gateway."),
    "chat": ("karez.cli.remote.chat", "Talk to a deployed model."),
    "logs": ("karez.cli.remote.logs", "Output of a job or a service."),
    "keys": ("karez.cli.remote.access", "API keys."),
    "projects": ("karez.cli.remote.access", "Projects, quotas and secrets."),
    "usage": ("karez.cli.remote.access", "Tokens and device time used."),
    "audit": ("karez.cli.remote.access", "Who changed what."),
}


class _Lazy(TyperGroup):
    """Knows every command's name and one line; imports it on use."""

    def list_commands(self, ctx: Any) -> list[str]:
        """All names, in the table's order."""
        del ctx
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """The command itself, imported now."""
        del ctx
        if cmd_name not in COMMANDS:
            return None
        module, _ = COMMANDS[cmd_name]
        app = importlib.import_module(module).APPS[cmd_name]
        command = typer.main.get_command(app)
        command.name = cmd_name
        return command

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write the table's lines: no command is imported for the list."""
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
def _root(version: bool = typer.Option(False, "--version", help="Print the version.")) -> None:
    """One pool of NPUs, GPUs and CPUs that trains without interruption and serves the result."""
    if version:
        typer.echo(karez.__version__)
        raise typer.Exit


def main(words: Sequence[str] | None = None) -> int:
    """Run a command, by default the process's own: 0 done, 1 refused or failed, 2 misused."""
    from karez.core.errors import KarezError, Remote  # noqa: PLC0415 - after --help
    from karez.core.parts import missing_part  # noqa: PLC0415 - as above

    try:
        app(words, prog_name="karez")
    except KarezError as error:
        typer.echo(error.what(), err=True)
        typer.echo(error.hint(), err=True)
        code = error.kind if isinstance(error, Remote) else error.code
        sys.exit(2 if code == "bad-request" else 1)
    except ModuleNotFoundError as error:
        missing = missing_part(error, f"karez {sys.argv[1]}")
        if missing is None:
            raise
        typer.echo(f"{missing.what()}\n{missing.hint()}", err=True)
        sys.exit(1)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(1)
    return 0


if __name__ == "__main__":
    sys.exit(main())
