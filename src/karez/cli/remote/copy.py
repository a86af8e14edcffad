"""`karez cp`: files into and out of running jobs."""

from pathlib import Path
from typing import Annotated

import typer

from karez.cli.client_options import client
from karez.cli.remote.attach import RankOption
from karez.cli.terminal import say
from karez.core.errors import BadRequest

app = typer.Typer()


@app.command()
def cp(
    source: Annotated[str, typer.Argument(help="Path here, or JOB:PATH.")],
    target: Annotated[str, typer.Argument(help="Path here, or JOB:FOLDER.")],
    rank: RankOption = 0,
) -> None:
    """Copy files or folders into or out of a running job.

    Paths of a job are relative to the folder that it runs in, or below $KAREZ_OUT, $KAREZ_INPUTS or
    $KAREZ_CHECKPOINT_DIR.

    Examples:
      karez cp train:loss.csv .

      karez cp new-rows.jsonl train:data
    """
    from_job, to_job = _of_job(source), _of_job(target)
    if from_job is not None and to_job is None:
        for path in client().copy_from_job(*from_job, target, rank=rank):
            say(str(path))
    elif to_job is not None and from_job is None:
        job, folder = to_job
        client().copy_to_job(source, job, folder, rank=rank)
        say(f"{job}:{(Path(folder) / Path(source).resolve().name).as_posix()}")
    else:
        problem = f"one of {source} and {target} is of a job, and the other is here"
        raise BadRequest(problem=problem, fix="Write JOB:PATH for the one of a job.")


def _of_job(text: str) -> tuple[str, str] | None:
    """(job, path) of JOB:PATH; None for a path here, such as `./a:b` or `C:\\a`."""
    job, colon, path = text.partition(":")
    is_here = not colon or len(job) < 2 or any(c in job for c in "/\\")
    return None if is_here else (job, path or ".")


APPS = {"cp": app}
