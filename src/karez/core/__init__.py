"""Nouns, units, errors, ports and settings that every room shares.

Frozen dataclasses for nouns, Protocols for edges, one class per error a user may meet. Imports
nothing else of karez, and does no I/O except parsing what is handed in.
"""
