"""What runs inside a rank and what users import: the session, the process group, snapshots.

torch is allowed in this room. It decides nothing about recovery: it does what the job controller
says and reports back. It never talks to control; the node's agent (the steward) passes messages on.
"""
