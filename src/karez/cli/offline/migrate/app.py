"""`karez migrate`: the commands that move a repository from CUDA to NPUs."""

import typer

from karez.cli.offline.migrate.advise import advise_command, rules_command
from karez.cli.offline.migrate.checkpoint import checkpoint_command
from karez.cli.offline.migrate.rewrite import rewrite_command
from karez.cli.offline.migrate.scan import scan_command
from karez.cli.offline.migrate.verify import check_command, compare_command, verify_command
from karez.cli.offline.versions import versions_command

app = typer.Typer(no_args_is_help=True, help="Move a repository from CUDA to NPUs, with proof.")
app.command("scan")(scan_command)
app.command("rewrite")(rewrite_command)
app.command("verify", context_settings={"allow_extra_args": True, "ignore_unknown_options": True})(
    verify_command
)
app.command("compare")(compare_command)
app.command("check")(check_command)
app.command("checkpoint")(checkpoint_command)
app.command("advise")(advise_command)
app.command("rules")(rules_command)
app.command("versions")(versions_command)
APPS = {"migrate": app}
