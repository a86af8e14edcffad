"""The background controllers of control: scheduler, workload controllers, eviction, orphans.

Each looks at the store and the nodes, decides, and acts; every tick is safe to repeat. They never
answer a request.
"""
