"""Read inventory and trace files, by path or by the name of an imported inventory."""

import gzip
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from karez.client.address import state_folder
from karez.core.errors import BadRequest
from karez.core.names import check_name
from karez.core.nodes import Node


@contextmanager
def lines_of(path: Path) -> Iterator[Iterator[str]]:
    """Open a text file, compressed or not, by lines. Raises BadRequest for an unreadable file."""
    try:
        with (
            gzip.open(path, "rt", encoding="utf-8-sig", newline="")
            if path.suffix == ".gz"
            else path.open(encoding="utf-8-sig", newline="")
        ) as file:
            yield file
    except (OSError, EOFError, UnicodeDecodeError, zlib.error) as error:
        why = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise BadRequest(problem=f"cannot read {path}: {why}") from error


def nodes_of(inventory: Path) -> Sequence[Node]:
    """Read the nodes of an inventory file, or of an imported inventory. Raises BadRequest."""
    from karez.simulation.inventories import read_inventory  # noqa: PLC0415 - NumPy, only here

    path = inventory
    with suppress(OSError, BadRequest):  # not a valid name: then it is a file
        if not path.exists() and (kept := kept_inventory(str(inventory))).exists():
            path = kept
    with lines_of(path) as lines:
        return read_inventory("".join(lines), str(path))


def kept_inventory(name: str) -> Path:
    """Path of the imported inventory with a name. Raises BadRequest for an invalid name."""
    try:
        check_name(name)
    except ValueError as error:
        raise BadRequest(problem=str(error), fix="Give another --name.") from error
    return state_folder() / "inventories" / f"{name}.json"
