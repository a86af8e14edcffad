"""Tables of the store. Documents are JSON text; fields that queries use are columns."""

from sqlalchemy import (
    BigInteger,
    Column,
    Float,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
)

metadata = MetaData(
    naming_convention={"ix": "ix_%(column_0_label)s", "uq": "uq_%(table_name)s_%(column_0_name)s"}
)
_SERIAL = BigInteger().with_variant(Integer, "sqlite")

workloads = Table(
    "workloads",
    metadata,
    Column("id", String(40), primary_key=True),
    Column("seq", _SERIAL, nullable=False),
    Column("kind", String(8), nullable=False),  # job | service | replica
    Column("name", String(63), nullable=False),
    Column("project", String(63), nullable=False),
    Column("owner", String(80), nullable=False),
    Column("state", String(16), nullable=False),
    Column("priority", Integer, nullable=False),
    Column("spec", Text, nullable=False),
    Column("status", Text, nullable=False),
    Column("wait_reason", Text, nullable=False, default=""),
    Column("created_at", Float, nullable=False),
    Column("started_at", Float),
    Column("ended_at", Float),
    Column("epoch", Integer, nullable=False, default=0),
    Column("lease_owner", String(80)),
    Column("lease_token", String(40)),
    Column("lease_until", Float),
    Column("array", String(40)),  # of a job; of a replica: its service
    Column("array_index", Integer),
    Column("array_first", Integer),  # 1 in the row that stands for the whole array
    Column("array_limit", Integer),
    Column("updated_at", Float),
    Index("ix_workloads_array", "array", "state"),
    Index("ix_workloads_ended_at", "ended_at"),
    Index("ix_workloads_kind", "kind", "state"),
    Index("ix_workloads_state", "state"),
    Index("ix_workloads_name", "kind", "name"),
    Index("ix_workloads_seq", "seq"),
)
allocations = Table(
    "allocations",
    metadata,
    Column("workload", String(40), primary_key=True),
    Column("epoch", Integer, primary_key=True),
    Column("grants", Text, nullable=False),
    Column("since", Float, nullable=False),
    Column("until", Float),
    Column("unbilled_since", Float),  # null: all of it is in the ledger
    Column("devices", Text),  # device -> thousandths, by the models of then; null: not looked up
    Column("costs", Text),  # device -> billionths, as the ledger has them
    Index("ix_allocations_until", "until"),
    Index("ix_allocations_unbilled", "unbilled_since"),
)
nodes = Table(
    "nodes",
    metadata,
    Column("id", String(120), primary_key=True),
    Column("state", String(16), nullable=False),
    Column("seen_at", Float, nullable=False),
    Column("body", Text, nullable=False),
)
windows = Table(
    "windows",
    metadata,
    Column("node", String(120), primary_key=True),
    Column("starts_at", Float, primary_key=True),
    Column("ends_at", Float, nullable=False),
    Column("reason", Text, nullable=False),
)
marks = Table(
    "marks",
    metadata,
    Column("node", String(120), primary_key=True),
    Column("body", Text, nullable=False),
)
targets = Table(
    "targets",
    metadata,
    Column("workload", String(40), primary_key=True),
    Column("grants", Text, nullable=False),
)
scheduler_state = Table(
    "scheduler_state",
    metadata,
    Column("name", String(40), primary_key=True),
    Column("body", Text, nullable=False),
)
receipts = Table(
    "receipts",
    metadata,
    Column("id", String(40), primary_key=True),
    Column("job", String(40), nullable=False, index=True),
    Column("detected_at", Float, nullable=False, index=True),
    Column("body", Text, nullable=False),
)
metrics = Table(
    "metrics",
    metadata,
    Column("job", String(40), primary_key=True),
    Column("step", Integer, primary_key=True),
    Column("rank", Integer, primary_key=True),
    Column("loss", Float, nullable=False),
    Column("at", Float, nullable=False),
    Column("generation", Integer, nullable=False),
)
checkpoints = Table(
    "checkpoints",
    metadata,
    Column("job", String(40), primary_key=True),
    Column("step", Integer, primary_key=True),
    Column("rank", Integer, primary_key=True),
    Column("digest", String(64), nullable=False),
    Column("world", Integer, nullable=False, server_default="0"),
    Column("whole", Integer, nullable=False, server_default="0"),
)
transitions = Table(
    "transitions",
    metadata,
    Column("id", _SERIAL, primary_key=True, autoincrement=True),
    Column("job", String(40), nullable=False, index=True),
    Column("at", Float, nullable=False),
    Column("body", Text, nullable=False),
)
incidents = Table(
    "incidents",
    metadata,
    Column("id", _SERIAL, primary_key=True, autoincrement=True),
    Column("node", String(120), nullable=False, index=True),
    Column("at", Float, nullable=False),
    Column("body", Text, nullable=False),
)
artifacts = Table(
    "artifacts",
    metadata,
    Column("id", String(40), primary_key=True),
    Column("seq", _SERIAL, nullable=False),
    Column("name", String(200), nullable=False, index=True),
    Column("kind", String(16), nullable=False),
    Column("project", String(63), nullable=False),
    Column("owner", String(80), nullable=False),
    Column("created_at", Float, nullable=False),
    Column("spec", Text, nullable=False),
)
project_blobs = Table(
    "project_blobs",
    metadata,
    Column("project", String(63), primary_key=True),
    Column("digest", String(64), primary_key=True),
    Column("size_bytes", BigInteger, nullable=False),
)
projects = Table(
    "projects",
    metadata,
    Column("name", String(63), primary_key=True),
    Column("body", Text, nullable=False),
)
keys = Table(
    "keys",
    metadata,
    Column("id", String(40), primary_key=True),
    Column("name", String(80), nullable=False),
    Column("project", String(63), nullable=False),
    Column("role", String(16), nullable=False),
    Column("digest", String(64), nullable=False),
    Column("created_at", Float, nullable=False),
    Column("revoked_at", Float),
    Column("expires_at", Float),
    Column("calls", Text),
    Column("made_for", String(40), nullable=False, server_default=""),
    Column("parent", String(40), nullable=False, server_default=""),
    Column("sealed", LargeBinary),  # the text of a key that was made for a job
)
secrets = Table(
    "secrets",
    metadata,
    Column("project", String(63), primary_key=True),
    Column("name", String(120), primary_key=True),
    Column("sealed", LargeBinary, nullable=False),
)
calls = Table(
    "calls",
    metadata,
    Column("id", String(40), primary_key=True),
    Column("at", Float, nullable=False),
    Column("project", String(63), nullable=False),
    Column("key_id", String(40), nullable=False),
    Column("service", String(63), nullable=False),
    Column("prompt_tokens", Integer, nullable=False),
    Column("completion_tokens", Integer, nullable=False),
    Column("status", Integer, nullable=False),
    Column("duration_s", Float, nullable=False),
    Column("cached_tokens", Integer, nullable=False, server_default="0"),
    Column("cost_nano", BigInteger, nullable=False, server_default="0"),
    Index("ix_calls_project", "project", "service"),
    Index("ix_calls_at", "at"),
)
ledger = Table(
    "ledger",
    metadata,
    Column("project", String(63), primary_key=True),
    Column("seq", _SERIAL, primary_key=True, autoincrement=False),
    Column("body", Text, nullable=False),
    Column("hash", String(64), nullable=False),
)
spend = Table(
    "spend",
    metadata,
    Column("project", String(63), primary_key=True),
    Column("month", String(7), primary_key=True),
    Column("cost_nano", BigInteger, nullable=False),
)
prices = Table(
    "prices",
    metadata,
    Column("model", String(63), primary_key=True),
    Column("body", Text, nullable=False),
)
device_prices = Table(
    "device_prices",
    metadata,
    Column("device", String(120), primary_key=True),
    Column("body", Text, nullable=False),
)
audit = Table(
    "audit",
    metadata,
    Column("id", _SERIAL, primary_key=True, autoincrement=True),
    Column("at", Float, nullable=False),
    Column("actor", Text, nullable=False),
    Column("action", Text, nullable=False),
    Column("subject", Text, nullable=False),
    Column("outcome", Text, nullable=False),
    Column("detail", Text, nullable=False),
)
alert_rules = Table(
    "alert_rules",
    metadata,
    Column("project", String(63), primary_key=True),
    Column("name", String(63), primary_key=True),
    Column("body", Text, nullable=False),
)
alerts = Table(
    "alerts",
    metadata,
    Column("id", String(40), primary_key=True),
    Column("project", String(63), nullable=False),
    Column("rule", String(63), nullable=False),
    Column("at", Float, nullable=False),
    Column("state", String(16), nullable=False),
    Column("next_at", Float, nullable=False),
    Column("body", Text, nullable=False),
    Index("ix_alerts_rule", "project", "rule", "at"),
    Index("ix_alerts_state", "state", "next_at"),
)
counters = Table(
    "counters",
    metadata,
    Column("name", String(40), primary_key=True),
    Column("value", _SERIAL, nullable=False),
)
