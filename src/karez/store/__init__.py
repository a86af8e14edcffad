"""SQL store: tables, migrations and the queries behind the protocols of core.stores.

SQLite by default, PostgreSQL beyond one machine, one code path. Each method is one short
transaction; nothing slow ever happens inside one, and no decision is taken here.
"""
