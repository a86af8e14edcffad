"""Control: the REST API, the controllers that reconcile, and the wiring.

wiring.py alone chooses real edges. Routes parse and call one service method. Controllers claim a
row, work, and write back guarded by lease and token. Control never chooses where a workload runs:
scheduling does.
"""
