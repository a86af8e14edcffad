"""A trace and a failure model in, the real decisions and their cost out.

Empty until the simulator arrives; it will call scheduling's plan() and training's protocol as
they are, never copies of them.
"""
