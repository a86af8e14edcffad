"""Messages between control, node agents, ranks, engines and replica servers: frozen dataclasses.

One module per direction; `wire` turns them into JSON objects and back. A message that cannot be
read is a value, `Malformed`, with the reason. Never here: sockets, and what a message leads to.
"""
