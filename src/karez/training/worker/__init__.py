"""What runs inside a rank: the session, its group, its snapshots.

The only part of `training` that imports torch. It decides nothing: it does what the foreman says
and reports. User code sees `session.Run` and nothing else.
It never talks to control; the node's steward passes messages on.
"""
