"""Nouns, units, errors, ports, settings. Imports nothing of ours.

What every room shares: frozen dataclasses for nouns, Protocols for edges, one class per error a
user may meet. No I/O except parsing what is handed in.
"""
