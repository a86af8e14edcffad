"""Commands: noun, then verb. One file per noun.

Each command parses, calls the client once and shows the answer; --json on every read. It never
imports the server, and starts it only as a program.
"""
