"""`karez simulate`: the commands that replay traces through the production scheduler."""

import typer

from karez.cli.offline.simulate.colocate import colocate_command
from karez.cli.offline.simulate.packing import packing_command
from karez.cli.offline.simulate.queue import queue_command
from karez.cli.offline.simulate.training import training_command
from karez.cli.offline.simulate.verify_log import verify_log_command
from karez.cli.old_names import by_old_name

HELP = "Replay traces through the production scheduler, offline."
app = typer.Typer(no_args_is_help=True, help=HELP)
app.command("packing")(packing_command)
app.command("queue")(queue_command)
app.command("colocate")(colocate_command)
app.command("share", hidden=True)(by_old_name(colocate_command, "simulate share"))
app.command("verify-log")(verify_log_command)
app.command("journal", hidden=True)(by_old_name(verify_log_command, "simulate journal"))
app.command("training")(training_command)
APPS = {"simulate": app}
