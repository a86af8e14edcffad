"""Brings the tables of a database to the revision of this version: all of it, or nothing."""

import sqlite3
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, inspect

from karez.core.errors import StartFailed
from karez.store.schema import metadata

PART = "The database"


def migrate_tables(connection: Connection, to: str = "head") -> None:
    """Migrate inside the transaction of this connection, which the caller commits.

    Raises:
        StartFailed: Its tables are of a newer version, or are not those of their revision.
    """
    config = _config(connection)
    if to == "head":
        _keep_copy(connection, config)
    command.upgrade(config, to)
    if to == "head":
        _check_complete(connection)


def revision_of(connection: Connection) -> str:
    """The revision of the tables; empty: there are none.

    Raises:
        StartFailed: A newer karez made it.
    """
    revision = MigrationContext.configure(connection).get_current_revision() or ""
    known = {script.revision for script in _scripts(_config(connection)).walk_revisions()}
    if revision and revision not in known:
        detail = (
            f"its tables are of revision {revision}, which this version of karez does not know: a"
            " newer one has migrated them. Install that version again, or restore a backup that"
            " this one made, with `karez restore`."
        )
        raise StartFailed(part=PART, detail=detail)
    return revision


def _config(connection: Connection) -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    config.attributes["connection"] = connection
    return config


def _scripts(config: Config) -> ScriptDirectory:
    return ScriptDirectory.from_config(config)


def _keep_copy(connection: Connection, config: Config) -> None:
    """Copy a SQLite database that is about to be migrated, as `FILE.before-REVISION`."""
    revision, head = revision_of(connection), _scripts(config).get_current_head()
    file = connection.engine.url.database
    if not revision or revision == head or connection.dialect.name != "sqlite" or not file:
        return
    copy = Path(f"{file}.before-{head}")
    with sqlite3.connect(file) as source, sqlite3.connect(copy) as target:
        source.backup(target)
    copy.chmod(0o600)
    for one in (source, target):
        one.close()


def _check_complete(connection: Connection) -> None:
    """Check that the database has the tables and columns of its revision.

    Raises:
        StartFailed: It lacks some: a migration was broken off by other means, or a hand changed it.
    """
    inspector = inspect(connection)
    present = set(inspector.get_table_names())
    lacking = []
    for table in metadata.sorted_tables:
        if table.name not in present:
            lacking.append(table.name)
            continue
        columns = {column["name"] for column in inspector.get_columns(table.name)}
        lacking += [f"{table.name}.{name}" for name in set(table.columns.keys()) - columns]
    if lacking:
        detail = (
            f"it says that it was migrated, and lacks {', '.join(sorted(lacking))}: a migration was"
            " half done, or somebody changed the tables. Nothing was changed now. Restore a backup"
            " with `karez restore`, or the copy that the migration made beside the database."
        )
        raise StartFailed(part=PART, detail=detail)
