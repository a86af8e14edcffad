"""The recovery protocol of a training gang, as pure functions: state and event in, commands out.

`transitions.advance` is the entry and `takeover` begins or adopts a gang; `state`, `events` and
`commands` are the nouns. No clock, no I/O, no threads: karez.training.controller carries commands
out, and simulation runs the same code.
"""
