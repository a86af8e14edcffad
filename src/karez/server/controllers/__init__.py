"""The background controllers of control: scheduler, workload controllers, eviction, orphans.

Each reads the store and the nodes, decides, and acts; every tick is safe to repeat. Controllers
never answer a request.
"""
