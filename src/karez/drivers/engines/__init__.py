"""Model server programs behind core.ports.Engine.

An engine is a command, an environment and a URL. It never sees users' keys, and it listens only
on its node's address with a key of its own.
"""
