"""Real edges: Ray, devices, engines, blobs. Each passes the contract tests of its port.

Chosen by server/wiring.py alone. A driver carries out calls and reports; it decides nothing,
and it never talks to the store.
"""
