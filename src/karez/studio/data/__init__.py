"""Data sets of a user's own: read from tables, written as chat rows, and split without leaks."""
