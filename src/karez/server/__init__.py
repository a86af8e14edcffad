"""Control: the REST API, the loops that reconcile, and the wiring.

wiring.py alone chooses real edges. Routes parse and call one service method. Loops claim a row,
work, and write back guarded by lease and token. It never chooses where a workload runs: scheduling
does.
"""
