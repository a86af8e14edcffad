"""Web pages: what do I have, what runs, what waits and why.

Empty until the console arrives. It will be a process of its own that speaks only through the
client.
"""
