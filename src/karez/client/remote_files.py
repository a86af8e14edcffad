"""Models and tables that lie elsewhere: on the Hugging Face hub, in a bucket, in a database.

They are brought to this machine, looked at, and uploaded like a folder of one's own.
"""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from errno import EACCES, EDQUOT, ENOSPC, EROFS
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from karez.client.sql_tables import is_database, rows_of_query
from karez.core.artifacts import ArtifactKind
from karez.core.errors import BadRequest, MissingPart

HUB = "hf"
BUCKETS = ("s3", "gs", "az")
_KEYS = {
    "s3": "AWS_REGION, AWS_ACCESS_KEY_ID and AWS_ENDPOINT_URL",
    "gs": "GOOGLE_APPLICATION_CREDENTIALS",
    "az": "AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY",
}
_HUB_NAME = re.compile(r"([\w.-]+/[\w.-]+)(?:@([\w./-]+))?")
_MODEL_FILES = (
    "*.safetensors",
    "*.safetensors.index.json",
    "*.json",
    "*.jinja",
    "*.model",
    "*.txt",
    "*.gguf",
    "LICENSE*",
    "NOTICE*",
    "README.md",
)
_TABLES = ("*.csv", "*.tsv", "*.jsonl", "*.ndjson", "*.json", "*.parquet", "*.gz", "README.md")
_TWICE = ("consolidated*.safetensors", "original/*")
"""The same weights once more, in their makers' own layout."""
_LICENCE = re.compile(r"^license:[ \t]*([\w.+-]+)[ \t]*$", re.MULTILINE)
_OFFLINE = (
    "Set HF_ENDPOINT to a mirror, set HF_HUB_OFFLINE=1 to take what this machine has had before, "
    "or download it elsewhere and give the folder."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Fetched:
    """Files that were brought here."""

    path: Path
    source: str
    """URL that they came from, with the revision."""
    licence: str = ""
    """As their own card says it."""


def is_remote(path: str | Path) -> bool:
    """Whether a text is a URL of a place that files are brought from."""
    return isinstance(path, str) and "://" in path


@contextmanager
def brought(path: str | Path, kind: ArtifactKind, query: str = "") -> Iterator[Fetched]:
    """Bring what a URL names to this machine; anything else is a path already.

    What comes from the hub stays in its cache, as HF_HOME says; what comes from a bucket or a
    database is removed at the end.

    Args:
        path: The URL or path.
        kind: What is looked for there.
        query: To a database, whose rows it gives.

    Raises:
        BadRequest: Nothing answers there, there is no such thing, or no scheme is known.
        MissingPart: The library of the scheme is not installed.
    """
    scheme, _, name = str(path).partition("://")
    scheme = scheme.lower()
    if query and not is_database(scheme):
        problem = f"{path} is no database that could be asked a query"
        raise BadRequest(problem=problem, fix="Leave the query out, or give sqlite:///FILE.")
    if not is_remote(path):
        yield Fetched(path=Path(path).expanduser(), source="")
    elif scheme == HUB:
        yield _from_hub(name, kind)
    elif scheme in BUCKETS:
        with TemporaryDirectory(prefix="karez-") as folder:
            yield Fetched(path=_from_bucket(scheme, name, Path(folder)), source=str(path))
    elif is_database(scheme) and kind == ArtifactKind.DATASET:
        with TemporaryDirectory(prefix="karez-") as folder:
            file, shown = rows_of_query(str(path), query, Path(folder))
            yield Fetched(path=file, source=shown)
    else:
        raise BadRequest(
            problem=f"files cannot be brought from {scheme}://",
            fix=f"Use a folder, {HUB}://OWNER/NAME, or a URL of {', '.join(BUCKETS)}.",
        )


def _from_hub(name: str, kind: ArtifactKind) -> Fetched:
    found = _HUB_NAME.fullmatch(name.removeprefix("datasets/").rstrip("/"))
    if found is None or ".." in name:
        raise BadRequest(
            problem=f"{HUB}://{name} names no repository",
            fix=f"Write {HUB}://OWNER/NAME, or {HUB}://OWNER/NAME@REVISION.",
        )
    try:
        from huggingface_hub import constants, errors, snapshot_download  # noqa: PLC0415 - an extra
    except ModuleNotFoundError as error:
        raise MissingPart(
            part="huggingface_hub",
            needed_for=f"{HUB}://",
            install="pip install 'karez[node]'",
        ) from error
    is_model = kind == ArtifactKind.MODEL
    try:
        folder = snapshot_download(
            found[1],
            repo_type="model" if is_model else "dataset",
            revision=found[2],
            allow_patterns=list(_MODEL_FILES if is_model else _TABLES),
            ignore_patterns=list(_TWICE),
        )
    except errors.GatedRepoError as error:
        raise BadRequest(
            problem=f"{found[1]} asks its users to accept its terms first",
            fix="Accept them on its page, and set HF_TOKEN to a token of yours.",
        ) from error
    except errors.RevisionNotFoundError as error:
        raise BadRequest(
            problem=f"{found[1]} has no revision {found[2]!r}",
            fix="Name a branch, a tag or a commit of it.",
        ) from error
    except errors.RepositoryNotFoundError as error:
        raise BadRequest(
            problem=f"{constants.ENDPOINT} has no {found[1]} that you may see",
            fix="Look at the name again; for a private one set HF_TOKEN.",
        ) from error
    except Exception as error:
        problem = f"{found[1]} cannot be had from {constants.ENDPOINT}: {_first_line(error)}"
        is_disk = isinstance(error, OSError) and error.errno in (ENOSPC, EDQUOT, EACCES, EROFS)
        fix = f"Make room at {constants.HF_HOME}, or set HF_HOME to another folder."
        raise BadRequest(problem=problem, fix=fix if is_disk else _OFFLINE) from error
    path = Path(folder)
    place = found[1] if is_model else f"datasets/{found[1]}"
    source = f"{constants.ENDPOINT}/{place}/tree/{path.name}"
    return Fetched(path=path, source=source, licence=_licence(path))


def _licence(folder: Path) -> str:
    """The licence that the front matter of a card names."""
    card = folder / "README.md"
    text = card.read_text(encoding="utf-8", errors="replace") if card.is_file() else ""
    head = text.split("\n---", 1)[0] if text.startswith("---") else ""
    found = _LICENCE.search(head)
    return found[1] if found and found[1] != "other" else ""


def _from_bucket(scheme: str, name: str, folder: Path) -> Path:
    url = f"{scheme}://{name}"
    try:
        from obstore import exceptions, store  # noqa: PLC0415 - an extra
    except ModuleNotFoundError as error:
        raise MissingPart(
            part="obstore", needed_for=url, install="pip install 'karez[s3]'"
        ) from error
    bucket, _, prefix = name.partition("/")
    prefix = prefix.rstrip("/")
    target = folder / (prefix.rpartition("/")[2] or bucket)
    try:
        opened = store.from_url(f"{scheme}://{bucket}")
        entries = [entry for part in opened.list(prefix or None) for entry in part]
        paths = [str(entry["path"]) for entry in entries if _is_file(opened, entry)]
        if not paths and prefix:
            paths = [opened.head(prefix)["path"]]  # a file, and no folder
        for path in paths:
            _get(opened, path, target / path[len(prefix) :].lstrip("/"))
    except (exceptions.NotFoundError, FileNotFoundError) as error:
        raise BadRequest(problem=f"there is nothing at {url}") from error
    except (exceptions.BaseError, OSError, ValueError) as error:
        raise BadRequest(
            problem=f"{url} cannot be read: {_first_line(error)}",
            fix=f"Look at the address and at the variables with its keys, such as {_KEYS[scheme]}.",
        ) from error
    if not paths:
        raise BadRequest(problem=f"there is nothing at {url}")
    return target


def _is_file(opened: Any, entry: Mapping[str, Any]) -> bool:
    """Whether an object is a file: consoles keep a folder as an empty one, whose name ends in /."""
    if entry["size"]:
        return True
    try:
        opened.head(entry["path"])
    except FileNotFoundError:
        return False  # it was listed without the / of its name
    return True


def _get(opened: Any, path: str, target: Path) -> None:
    if ".." in target.parts:
        raise ValueError(f"the name {path} leads out of it")
    target.parent.mkdir(parents=True, exist_ok=True)
    with target.open("wb") as file:
        for piece in opened.get(path).stream():
            file.write(piece)


def _first_line(error: Exception) -> str:
    line = next(iter(str(error).strip().splitlines()), "")
    return (line or type(error).__name__)[:300]
