"""The programs of a cloud: control, gateway, node, and the supervisor that starts and ends them.

They parse settings, call wiring and serve until a signal; no decision is made here.
"""
