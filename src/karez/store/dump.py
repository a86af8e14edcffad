"""Copies a database into files and back; SQLite and PostgreSQL read each other's dumps."""

import base64
import gzip
import hashlib
import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from sqlalchemy import (
    Connection,
    LargeBinary,
    MetaData,
    Table,
    func,
    insert,
    inspect,
    select,
    text,
    update,
)
from typing_extensions import override

from karez.core.artifacts import FileEntry
from karez.core.backups import DatabaseDump, DumpableDatabase, TableDump
from karez.core.errors import BadRequest
from karez.store.database import Database
from karez.store.migration import migrate_tables, revision_of
from karez.store.schema import metadata

BATCH = 500
"""Rows of one INSERT."""


class SqlDump(DumpableDatabase):
    """Dumps one database, whose tables are read as they are: they may be of an older revision."""

    def __init__(self, url: str) -> None:
        """Open a SQLAlchemy URL; nothing is migrated."""
        self._db = Database(url)

    @override
    def revision(self) -> str:
        with self._db.read() as tx:
            return revision_of(tx)

    @override
    def blobs(self) -> Sequence[str]:
        with self._db.read() as tx:
            return sorted(_named_blobs(tx))

    @override
    def dump(self, folder: Path) -> DatabaseDump:
        file = self._db.engine.url.database if self._db.sqlite else None
        is_there = file is None or Path(file).exists()  # to look for tables would make the file
        if not (is_there and self.revision()):
            where = self._db.engine.url.render_as_string(hide_password=True)
            raise BadRequest(
                problem=f"the database {where} holds no cloud",
                fix="Name the one that the cloud was started with, with --database.",
            )
        folder.mkdir(mode=0o700, parents=True)
        with self._db.snapshot() as tx:
            return DatabaseDump(
                revision=revision_of(tx),
                tables=tuple(_dump_table(tx, table, folder) for table in _tables(tx)),
                blobs=tuple(sorted(_named_blobs(tx))),
            )

    @override
    def load(self, folder: Path, dump: DatabaseDump) -> None:
        with self._db.schema_change() as tx:
            migrate_tables(tx, to=dump.revision)
            tables = {table.name: table for table in _tables(tx)}
            for one in dump.tables:
                _load_table(tx, tables[one.name], folder / one.file.path)
            _give_up_leases(tx, tables["workloads"])
            migrate_tables(tx)

    @override
    def close(self) -> None:
        self._db.close()


def _tables(tx: Connection) -> Sequence[Table]:
    found = MetaData()
    present = set(inspect(tx).get_table_names())
    found.reflect(tx, only=sorted(present & metadata.tables.keys()))  # others may share a database
    return found.sorted_tables


def _named_blobs(tx: Connection) -> set[str]:
    """Digests of the files of artifacts, and of stored checkpoints."""
    if not inspect(tx).get_table_names():
        return set()
    digests = set(tx.execute(text("SELECT digest FROM checkpoints")).scalars())
    for spec in tx.execute(text("SELECT spec FROM artifacts")).scalars():
        digests |= {file["sha256"] for file in json.loads(spec)["files"]}
    return digests


def _dump_table(tx: Connection, table: Table, folder: Path) -> TableDump:
    path, rows = folder / f"{table.name}.jsonl.gz", 0
    with gzip.open(path, "wt", encoding="utf-8") as file:
        for row in tx.execution_options(yield_per=BATCH).execute(select(table)).mappings():
            file.write(json.dumps({name: _as_json(value) for name, value in row.items()}) + "\n")
            rows += 1
    path.chmod(0o600)
    with path.open("rb") as written:
        digest = hashlib.file_digest(written, "sha256").hexdigest()
    entry = FileEntry(path=path.name, sha256=digest, size_bytes=path.stat().st_size)
    return TableDump(name=table.name, rows=rows, file=entry)


def _as_json(value: Any) -> Any:
    is_binary = isinstance(value, bytes | memoryview)
    return base64.b64encode(bytes(value)).decode() if is_binary else value


def _load_table(tx: Connection, table: Table, path: Path) -> None:
    binary = [column.name for column in table.columns if isinstance(column.type, LargeBinary)]
    with gzip.open(path, "rt", encoding="utf-8") as file:
        while rows := list(_rows(itertools.islice(file, BATCH), binary)):
            tx.execute(insert(table), rows)
    if tx.dialect.name == "postgresql":
        _count_on(tx, table)


def _rows(lines: Iterator[str], binary: Sequence[str]) -> Iterator[Mapping[str, Any]]:
    for line in lines:
        row = json.loads(line)
        for name in binary:
            row[name] = None if row[name] is None else base64.b64decode(row[name])
        yield row


def _count_on(tx: Connection, table: Table) -> None:
    """Let PostgreSQL's sequences go on after the highest number in a table."""
    for column in table.primary_key:
        sequence = tx.execute(select(func.pg_get_serial_sequence(table.name, column.name))).scalar()
        if sequence:
            highest = tx.execute(select(func.max(column))).scalar()
            if highest is not None:
                tx.execute(select(func.setval(sequence, highest)))


def _give_up_leases(tx: Connection, workloads: Table) -> None:
    tx.execute(update(workloads).values(lease_owner=None, lease_token=None, lease_until=None))
