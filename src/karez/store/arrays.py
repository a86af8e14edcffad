"""SQL of arrays: their jobs are rows of their own, and an array is shown as one job."""

from collections.abc import Mapping, Sequence

from sqlalchemy import ColumnElement, Connection, Select, and_, case, func, or_, select, update

from karez.core.arrays import describe_limit
from karez.core.jobs import ArrayProgress, Job, array_as_job
from karez.core.workloads import ENDED, State
from karez.store.schema import workloads as table
from karez.store.workload_rows import ENDED_STATES, WAITING_STATES, read_job


def one_row(states: Sequence[State]) -> ColumnElement[bool]:
    """Condition: a job outside arrays, or the row that stands for its array.

    With states: the job, or some job of the array, is in one of them.
    """
    first = table.c.array_first == 1
    if not states:
        return or_(table.c.array.is_(None), first)
    is_in = table.c.state.in_([state.value for state in states])
    some = select(table.c.array).where(is_in, table.c.array.is_not(None))
    return or_(and_(table.c.array.is_(None), is_in), and_(first, table.c.array.in_(some)))


def find(tx: Connection, ident: str) -> Job | None:
    """The array of an id, as one job."""
    first = select(table).where(table.c.array == ident, table.c.array_first == 1)
    row = tx.execute(first).first()
    return fold(tx, [read_job(row)])[0] if row else None


def fold(tx: Connection, jobs: Sequence[Job]) -> Sequence[Job]:
    """The jobs, each that is of an array replaced by the whole array as one job."""
    arrays = [job.array.id for job in jobs if job.array is not None]
    if not arrays:
        return jobs
    query = (
        select(
            table.c.array,
            table.c.state,
            func.count(),
            func.min(table.c.started_at),
            func.max(table.c.ended_at),
            func.min(case((table.c.state == State.FAILED.value, table.c.array_index))),
        )
        .where(table.c.array.in_(arrays))
        .group_by(table.c.array, table.c.state)
    )
    found = {array: ArrayProgress() for array in arrays}
    for array, state, count, started, ended, failed in tx.execute(query):
        one = ArrayProgress(
            states={State(state): count}, started_at=started, ended_at=ended, first_failed=failed
        )
        found[array] = found[array].merged(one)
    return [array_as_job(job, found[job.array.id]) if job.array else job for job in jobs]


def select_held() -> Select[tuple[object, ...]]:
    """SELECT of the held jobs, of each array the first alone."""
    is_held = and_(table.c.state == State.HELD.value, table.c.kind == "job")
    firsts = select(func.min(table.c.seq)).where(is_held, table.c.array.is_not(None))
    firsts = firsts.group_by(table.c.array)
    return (
        select(table)
        .where(is_held, or_(table.c.array.is_(None), table.c.seq.in_(firsts)))
        .order_by(table.c.seq)
    )


def settle(tx: Connection, array: str, state: State, values: Mapping[str, object]) -> int:
    """Give the held jobs of an array these values; into the queue go as many as its limit allows.

    Returns how many were changed.
    """
    is_held = and_(table.c.array == array, table.c.state == State.HELD.value)
    held = select(table.c.id).where(is_held).order_by(table.c.seq)
    limit = tx.execute(select(table.c.array_limit).where(is_held).limit(1)).scalar()
    if state in ENDED or limit is None:
        return tx.execute(update(table).where(is_held).values(**values)).rowcount
    room = max(0, limit - _under_way(tx, array))
    turn = [ident for (ident,) in tx.execute(held.limit(room))]
    its_turn = update(table).where(is_held, table.c.id.in_(turn))  # unless it was just cancelled
    changed = tx.execute(its_turn.values(**values)).rowcount
    reason = describe_limit(limit)
    rest = update(table).where(is_held, table.c.wait_reason != reason)
    tx.execute(rest.values(wait_reason=reason))
    return changed


def may_settle(tx: Connection, array: str, state: State) -> bool:
    """Whether `settle` may have something to change."""
    is_held = and_(table.c.array == array, table.c.state == State.HELD.value)
    limit = tx.execute(select(table.c.array_limit).where(is_held).limit(1)).scalar()
    if state in ENDED or limit is None or _under_way(tx, array) < limit:
        return True
    wrong = and_(is_held, table.c.wait_reason != describe_limit(limit))
    return tx.execute(select(table.c.id).where(wrong).limit(1)).first() is not None


def _under_way(tx: Connection, array: str) -> int:
    """How many jobs of an array are queued or active."""
    idle = [*ENDED_STATES, State.HELD.value]
    query = select(func.count()).where(table.c.array == array, table.c.state.not_in(idle))
    return tx.execute(query).scalar_one()


def request_stop(tx: Connection, array: str, *, at: float) -> State | None:
    """End the waiting jobs of an array at once and ask its active ones to stop."""
    members = update(table).where(table.c.array == array)
    tx.execute(
        members.where(table.c.state.in_(WAITING_STATES)).values(
            state=State.CANCELLED.value, ended_at=at
        )
    )
    tx.execute(members.where(table.c.state.not_in(ENDED_STATES)).values(state=State.STOPPING.value))
    seen = find(tx, array)
    return None if seen is None else seen.state
