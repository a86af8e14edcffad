"""Pure scheduling decisions: which workload starts where, which waits and why.

`engine.py` keeps the state of one pool, takes in what changed (`decision_log.ClusterDelta`) and
decides; `snapshot.plan` decides from a snapshot alone. No clock, no chance, no I/O: the same code
serves the live cloud, the simulator and what-if. It never acts.
"""
