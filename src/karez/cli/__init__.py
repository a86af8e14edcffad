"""Commands: noun, then verb. `remote` speaks to a cloud, `offline` works without a cloud.

A command parses, calls one function and shows the answer. No decision is made here.
"""
