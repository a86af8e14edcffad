"""Alembic's folder: each change of the tables as expand, then contract."""
