"""`karez migrate checkpoint`: convert a checkpoint between frameworks."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from karez.cli.client_options import Json
from karez.cli.options import takes
from karez.cli.terminal import say
from karez.core.errors import BadRequest


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointOptions:
    """Options of `karez migrate checkpoint`."""

    source: Annotated[Path, typer.Argument(help="Checkpoint file, or folder of shards.")]
    target: Annotated[Path, typer.Argument(help="File to write; a folder for sharded safetensors.")]
    to: Annotated[
        str,
        typer.Option(
            help="Target format: torch, safetensors, mindspore or gguf. Default: from the name of "
            "the target."
        ),
    ] = ""
    rules: Annotated[
        Path | None, typer.Option(help="TOML file with rules that rename tensors.")
    ] = None
    kind: Annotated[
        list[str] | None,
        typer.Option(
            help="Kind of a module, for MindSpore's parameter names, as "
            "MODULE=norm|embedding|prelu|conv1d|same. Repeatable."
        ),
    ] = None
    mindspore_names: Annotated[
        bool,
        typer.Option(
            "--mindspore-names", help="Name the parameters of norms as mindspore.nn does."
        ),
    ] = False
    shard_mb: Annotated[
        int, typer.Option(help="Maximum size of one safetensors file, in MB.", min=1)
    ] = 5000
    like: Annotated[
        Path | None,
        typer.Option(help="GGUF: Hugging Face folder with the configuration and the tokenizer."),
    ] = None
    outtype: Annotated[
        str, typer.Option(help="GGUF: data type of the weights: q8_0, f16, bf16 or f32.")
    ] = "f16"
    converter: Annotated[
        str, typer.Option(help="GGUF: wheel file of the converter, to work offline.")
    ] = ""


@takes(CheckpointOptions)
def checkpoint_command(options: CheckpointOptions, as_json: Json = False) -> None:
    """Convert a checkpoint between PyTorch, safetensors and MindSpore, bit for bit, or to GGUF.

    Neither framework is needed. A pickle is read without executing anything in it. Names that no
    rule matches stay as they are and are listed. GGUF, for edge devices, is made by llama.cpp's
    converter and kept only if it answers a test prompt as the source does.

    Example: karez migrate checkpoint model.pt model.ckpt --mindspore-names
    """
    result = _convert(options)
    if as_json:
        say(json.dumps(result, indent=1))
    else:
        _show(result)


def _convert(options: CheckpointOptions) -> dict[str, Any]:
    from karez.checkpoints.convert import Order, convert  # noqa: PLC0415 - keeps --help fast

    order = Order(
        source=options.source,
        target=options.target,
        to=options.to,
        rules=options.rules,
        kinds=_kinds(options),
        shard_bytes=options.shard_mb * 1_000_000,
    )
    if options.to != "gguf" and options.target.suffix != ".gguf":
        return convert(order)
    from karez.cli.offline.migrate.gguf_export import export  # noqa: PLC0415 - keeps --help fast

    return export(order, options.like, options.outtype, options.converter)


def _kinds(options: CheckpointOptions) -> dict[str, str] | None:
    """Module -> kind for MindSpore's names; None keeps names. Raises BadRequest."""
    if not options.mindspore_names and not options.kind:
        return None
    kinds: dict[str, str] = {}
    for text in options.kind or []:
        module, equals, kind = text.partition("=")
        if not equals:
            raise BadRequest(problem=f"--kind {text!r} should read like encoder.embed=embedding")
        kinds[module] = kind
    return kinds


def _show(result: dict[str, Any]) -> None:
    count = f"{result['tensors']} tensors, " if "tensors" in result else ""
    say(f"{count}{result['bytes'] / 1e6:.1f} MB: {result['files'][0]}")
    for what in ("dropped", "unmatched", "left_out"):
        if result[what]:
            shown = ", ".join(result[what][:10])
            say(f"{what.replace('_', ' ')}: {len(result[what])}: {shown}", err=True)
