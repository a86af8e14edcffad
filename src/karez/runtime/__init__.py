"""The runtime inside a rank, which users import: the session, the process group, snapshots.

torch is allowed in this room. It decides nothing about recovery: it carries out the job
controller's decisions and reports back. It never talks to control; the node agent (the steward)
passes messages on.
"""
