"""Commands that need no cloud: simulate, what-if on a trace, migrate, verify, doctor.

They import the rooms that do the work (simulation, migration, equivalence, checkpoints, ascend,
tuning), never the server or the store.
"""
