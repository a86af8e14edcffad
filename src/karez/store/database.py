"""Database connections: SQLite with one writer at a time, or PostgreSQL."""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import (
    Connection,
    Engine,
    Table,
    create_engine,
    event,
    insert,
    select,
    update,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import IntegrityError, InternalError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from karez.core.errors import StartFailed, StorageFull, Unreachable
from karez.store import schema
from karez.store.migration import PART, migrate_tables
from karez.store.pending_audit import write_pending


class Database:
    """Connections and transactions. Threads may share it."""

    def __init__(self, url: str) -> None:
        """Open a SQLAlchemy URL; nothing is created yet."""
        self.sqlite = url.startswith("sqlite")
        if self.sqlite:
            self.engine = create_engine(
                url, connect_args={"timeout": 30, "check_same_thread": False}
            )
            _prepare_sqlite(self.engine)
        else:
            self.engine = create_engine(url, pool_size=8, max_overflow=24, pool_pre_ping=True)

    def migrate(self) -> None:
        """Migrate the tables to this version. Safe to repeat, and for several processes at once.

        Raises:
            StartFailed: The database does not answer, or its tables are not what they have to be.
        """
        with self.schema_change() as connection:
            migrate_tables(connection)

    @contextmanager
    def schema_change(self) -> Iterator[Connection]:
        """Open a transaction that may change tables: all of it holds, or nothing.

        Raises:
            StartFailed: The database does not answer or refuses.
        """
        try:
            with self.engine.connect() as connection:
                lock = "BEGIN IMMEDIATE" if self.sqlite else "SELECT pg_advisory_xact_lock(7070)"
                connection.exec_driver_sql(lock)
                with _whole(connection):
                    yield connection
        except OperationalError as error:
            raise StartFailed(part=PART, detail=str(error.orig)) from error

    @contextmanager
    def snapshot(self) -> Iterator[Connection]:
        """Open a transaction that sees one moment, whatever others write meanwhile."""
        with self._typed(), self.engine.connect() as connection:
            if self.sqlite:
                connection.exec_driver_sql("BEGIN")
            else:
                connection.execution_options(isolation_level="REPEATABLE READ")
            yield connection
            connection.rollback()

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """Open a transaction that may write; it holds the writer's lock from its start.

        Raises:
            StorageFull: No room; nothing of the transaction is kept.
            Unreachable: The database does not answer.
        """
        with self._typed(), self.engine.connect() as connection:
            if self.sqlite:
                connection.exec_driver_sql("BEGIN IMMEDIATE")
            with _whole(connection):
                note_kept = write_pending(connection)
                yield connection
            note_kept()

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """Open a transaction that only reads."""
        with self._typed(), self.engine.connect() as connection:
            yield connection
            connection.rollback()

    @contextmanager
    def _typed(self) -> Iterator[None]:
        """Turn errors of the database (disk full, no answer) into StorageFull and Unreachable."""
        try:
            yield
        except (OperationalError, InternalError, PoolTimeout) as error:
            where = self.engine.url.render_as_string(hide_password=True)
            if _is_full(getattr(error, "orig", None)):
                raise StorageFull(path=where) from error
            raise Unreachable(what_is_it="The database", address=where) from error

    def next_number(self, connection: Connection, name: str, count: int = 1) -> int:
        """Take the next `count` values of a counter, inside a write transaction; the last one."""
        table = schema.counters
        number = connection.execute(
            update(table)
            .where(table.c.name == name)
            .values(value=table.c.value + count)
            .returning(table.c.value)
        ).scalar()
        if number is not None:
            return int(number)
        try:
            with connection.begin_nested():
                connection.execute(insert(table).values(name=name, value=count))
        except IntegrityError:
            return self.next_number(connection, name, count)
        return int(
            connection.execute(select(table.c.value).where(table.c.name == name)).scalar_one()
        )

    def into(self, table: Table) -> sqlite.Insert | postgresql.Insert:
        """Build an INSERT that can say what to do on a conflict."""
        return sqlite.insert(table) if self.sqlite else postgresql.insert(table)

    def once(self, table: Table, values: list[dict[str, object]]) -> None:
        """Insert rows; rows that exist already stay as they are."""
        with self.write() as tx:
            tx.execute(self.into(table).values(values).on_conflict_do_nothing())

    def close(self) -> None:
        """Close all connections."""
        self.engine.dispose()


@contextmanager
def _whole(connection: Connection) -> Iterator[None]:
    """Commit what is done within, or nothing of it."""
    try:
        yield
        connection.commit()
    except BaseException:
        connection.rollback()
        raise


def _is_full(error: BaseException | None) -> bool:
    name, state = getattr(error, "sqlite_errorname", ""), getattr(error, "sqlstate", "")
    return name in ("SQLITE_FULL", "SQLITE_IOERR_SHMSIZE") or state == "53100"  # disk_full


def _prepare_sqlite(engine: Engine) -> None:
    @event.listens_for(engine, "connect")
    def _connect(connection: sqlite3.Connection, _record: object) -> None:
        connection.isolation_level = None  # transactions BEGIN explicitly, in `write`
        cursor = connection.cursor()
        for pragma in ("journal_mode=WAL", "synchronous=NORMAL", "busy_timeout=30000"):
            cursor.execute(f"PRAGMA {pragma}")
        cursor.close()
