"""Pure decisions: which workload starts where, which waits and why.

A snapshot goes in, decisions come out. No clock, no chance, no I/O: the same function serves the
live cloud, the simulator and what-if. It never acts.
"""
