"""Options of `karez migrate verify`; two of them are shared with `karez migrate compare`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from karez.cli.client_options import ProjectName

Certificate = Annotated[
    Path | None, typer.Option(help="Write the signed certificate to this file.")
]
Report = Annotated[Path | None, typer.Option(help="Write an HTML report to this file.")]


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifyOptions:
    """Options of `karez migrate verify`."""

    original: Annotated[Path, typer.Argument(help="Folder of the code before the migration.")]
    migrated: Annotated[Path, typer.Argument(help="Folder of the code after the migration.")]
    reference: Annotated[
        str,
        typer.Option(
            help="Where the original runs: cpu, cuda, migrated (the migrated code on the CPU), or "
            "the folder of an earlier record."
        ),
    ] = ""
    target: Annotated[
        str, typer.Option(help="Where the migrated code runs: emulated, npu, cuda or cpu.")
    ] = ""
    on: Annotated[
        str, typer.Option(help="Run the migrated code as a job on the pool, such as npu:1.")
    ] = ""
    reference_on: Annotated[
        str, typer.Option(help="Run the reference as a job on the pool, such as gpu:1.")
    ] = ""
    ranks: Annotated[
        int, typer.Option(help="Number of processes, started by torchrun.", min=1, max=64)
    ] = 1
    project: ProjectName = "default"
    reference_args: Annotated[
        str, typer.Option(help="Extra arguments of the reference run, as one quoted text.")
    ] = ""
    steps: Annotated[
        int, typer.Option(help="Number of steps recorded in detail.", min=1, max=100)
    ] = 3
    most: Annotated[
        int, typer.Option(help="End the script after this number of steps; 0: never.", min=0)
    ] = 0
    kernels: Annotated[
        Path | None,
        typer.Option(help="Strict mode: file that lists the only operators the device has."),
    ] = None
    chip: Annotated[
        str,
        typer.Option(
            help="Strict mode: A2, A3 or 950DT; operators and data types that the chip is "
            "documented not to support fail."
        ),
    ] = ""
    fault: Annotated[
        str,
        typer.Option(
            help="Self-test: corrupt a module of the migrated run by a share of its values, as "
            "NAME=SHARE."
        ),
    ] = ""
    certificate: Certificate = None
    report: Report = None
    keep: Annotated[Path | None, typer.Option(help="Keep both records in this folder.")] = None
