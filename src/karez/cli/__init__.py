"""Commands: noun, then verb. One file per noun; `remote` speaks to a cloud, `offline` needs none.

A command parses, calls one function and shows the answer. No decision is made here.
"""
